"""Who of several servers is asked."""

import asyncio

import pytest

from services.filter.servers import NoServer, Servers


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
