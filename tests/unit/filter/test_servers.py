"""Where servers listen, and who of several is asked."""

import asyncio

import pytest

from services.core.settings import BadSettings
from services.filter.servers import Address, NoServer, Servers, address


@pytest.mark.parametrize(
    ("word", "where"),
    [
        ("clamd:3311", Address("clamd", 3311)),
        ("clamd", Address("clamd", 3310)),
        ("[::1]:77", Address("::1", 77)),
        ("[::1]", Address("::1", 3310)),
        ("/run/clamd.ctl", Address("", 0, "/run/clamd.ctl")),
    ],
)
def test_where_servers_listen(word: str, where: Address) -> None:
    assert address(word, 3310, "POSTA_FILTER_CLAMD") == where
    assert address(str(where), 1, "POSTA_FILTER_CLAMD") == where


@pytest.mark.parametrize("word", ["clamd:", ":3310", "clamd:http", "clamd:70000", "clamd:0", "http://clamd:80"])
def test_where_none_can_listen(word: str) -> None:
    with pytest.raises(BadSettings, match="POSTA_FILTER_CLAMD: expected host:port"):
        address(word, 3310, "POSTA_FILTER_CLAMD")


@pytest.mark.parametrize("trouble", [OSError("refused"), EOFError("hung up"), ValueError("nonsense"), TimeoutError()])
async def test_one_that_fails_is_asked_last_for_a_while(trouble: Exception) -> None:
    servers, asked = Servers(("a", "b"), 5), []

    async def question(server: str) -> str:
        asked.append(server)
        if server == "a":
            raise trouble
        return server

    assert [await servers.ask(question) for _ in range(3)] == ["b", "b", "b"]
    assert asked == ["a", "b", "b", "b"]


async def test_where_none_answers_every_reason_is_told() -> None:
    async def question(server: str) -> str:
        if server == "a":
            raise OSError("refused")
        return await asyncio.Event().wait() or ""

    with pytest.raises(NoServer, match="a: refused; b: no answer in time"):
        await Servers(("a", "b"), 0.05).ask(question)


async def test_what_is_our_own_fault_comes_through() -> None:
    async def question(server: str) -> str:
        raise KeyError(server)

    with pytest.raises(KeyError):
        await Servers(("a", "b"), 5).ask(question)
