"""Where other programs listen, as settings name it."""

import pytest

from services.core.endpoint import Endpoint, endpoint
from services.core.settings import BadSettings


@pytest.mark.parametrize(
    ("word", "where"),
    [
        ("clamd:3311", Endpoint("clamd", 3311)),
        ("clamd", Endpoint("clamd", 3310)),
        ("[::1]:77", Endpoint("::1", 77)),
        ("[::1]", Endpoint("::1", 3310)),
        ("/run/clamd.ctl", Endpoint("", 0, "/run/clamd.ctl")),
    ],
)
def test_where_servers_listen(word: str, where: Endpoint) -> None:
    assert endpoint(word, 3310, "POSTA_FILTER_CLAMD") == where
    assert endpoint(str(where), 1, "POSTA_FILTER_CLAMD") == where


@pytest.mark.parametrize("word", ["clamd:", ":3310", "clamd:http", "clamd:70000", "clamd:0", "http://clamd:80"])
def test_where_none_can_listen(word: str) -> None:
    with pytest.raises(BadSettings, match="POSTA_FILTER_CLAMD: expected host:port"):
        endpoint(word, 3310, "POSTA_FILTER_CLAMD")
