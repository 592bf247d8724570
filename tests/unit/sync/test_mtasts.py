"""The policy we tell is one that our own relay would believe of others."""

from __future__ import annotations

import httpx
import pytest
from pydantic import ValidationError

from services.core.settings import Sync
from services.mxrouter.mtasts import parse
from services.sync import mtasts
from services.sync.app import application


async def _asked(settings: Sync) -> httpx.Response:
    app = application((mtasts.router(settings, "mail.posta.test"),))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="https://mta-sts.posta.test") as client:
        return await client.get("/.well-known/mta-sts.txt")


@pytest.mark.parametrize(
    ("settings", "mode", "hosts"),
    [
        (Sync(mta_sts="testing"), "testing", ("mail.posta.test",)),
        (Sync(mta_sts="enforce", public_hostname="mx.example.org"), "enforce", ("mx.example.org",)),
        (Sync(mta_sts="enforce", mta_sts_mx=("mx1.a.test", "*.b.test")), "enforce", ("mx1.a.test", "*.b.test")),
        (Sync(mta_sts="none"), "none", ("mail.posta.test",)),
    ],
)
async def test_a_policy_is_told(settings: Sync, mode: str, hosts: tuple[str, ...]) -> None:
    answer = await _asked(settings)
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] == "text/plain"
    found = parse(answer.text)
    assert (found.mode, found.hosts) == (mode, hosts)


async def test_without_one_there_is_nothing_to_be_told() -> None:
    assert (await _asked(Sync())).status_code == 404


def test_a_mode_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError):
        Sync.model_validate({"mta_sts": "maybe"})
