"""rspamd by its HTTP protocol: what it is told, every way it may answer, or not; and what a message becomes then."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies

from services.contracts.v1 import mail_pb2 as pb
from services.core.settings import BadSettings, Filter
from services.core.telemetry import Metrics, logger
from services.filter.engine import FAULT, PASSED_OVER, Engine, Finding
from services.filter.engines import configured, spam_rspamd
from services.filter.examined import Examined
from services.filter.http import Answer
from services.filter.pipeline import Pipeline
from services.filter.servers import NoServer
from services.filter.verdict import Action, Policy, decide, settled
from tests.unit.filter.letters import PLAIN, examined

Behaviour = Callable[["FakeRspamd", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class FakeRspamd:
    """Takes a request as rspamd does, then behaves as it is told."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.asked: list[tuple[str, list[tuple[str, str]], bytes]] = []
        self.word = ""
        self._server: asyncio.Server | None = None

    async def start(self, path: str = "") -> "FakeRspamd":
        if path:
            self._server, self.word = await asyncio.start_unix_server(self._serve, path), path
        else:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.word = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def request(self, reader: asyncio.StreamReader) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("utf-8").split("\r\n")
        fields = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in head[1:-2])]
        body = await reader.readexactly(int(dict(fields)["content-length"]))
        self.asked.append((head[0], fields, body))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self.behaviour(self, reader, writer)
        except (OSError, EOFError):
            return
        finally:
            writer.close()


def says(status: str = "200 OK", **value: Any) -> Behaviour:
    """A server that answers every request so."""
    body = json.dumps({"score": 0.0, "required_score": 15.0, "symbols": {}, "messages": {}, **value}).encode()

    async def behave(fake: FakeRspamd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await fake.request(reader)
        writer.write(b"HTTP/1.1 %b\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (status.encode(), len(body)))
        writer.write(body)
        await writer.drain()

    return behave


def raw(octets: bytes) -> Behaviour:
    async def behave(fake: FakeRspamd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await fake.request(reader)
        writer.write(octets)
        await writer.drain()

    return behave


async def hung(fake: FakeRspamd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await fake.request(reader)
    await reader.read()


async def deaf(fake: FakeRspamd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def cut(fake: FakeRspamd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(20)
    writer.transport.abort()


CLEAN = says(action="no action")
SYMBOLS = {
    "BAYES_SPAM": {"name": "BAYES_SPAM", "score": 5.1, "options": ["99.98%"]},
    "MIME_GOOD": {"name": "MIME_GOOD", "score": -0.1, "options": ["text/plain"]},
    "RCPT_COUNT_ONE": {"name": "RCPT_COUNT_ONE", "score": 0.0, "options": ["1"]},
}
Start = Callable[..., Awaitable[FakeRspamd]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    fakes: list[FakeRspamd] = []

    async def start(behaviour: Behaviour, path: str = "") -> FakeRspamd:
        fakes.append(await FakeRspamd(behaviour).start(path))
        return fakes[-1]

    yield start
    for fake in fakes:
        await fake.stop()


def engine(*servers: FakeRspamd | str, optional: bool = False, **settings: Any) -> Engine:
    words = tuple(each if isinstance(each, str) else each.word for each in servers)
    made = configured(Filter(rspamd=words, **settings), [spam_rspamd.NAME] if optional else [])
    return next(each for each in made if each.name == spam_rspamd.NAME)


async def found(engine: Engine, message: Examined | None = None) -> list[Finding]:
    outcome = engine.examine(message or examined(PLAIN))
    assert isinstance(outcome, Awaitable)
    return list(await outcome)


@pytest.mark.parametrize("socket", ["tcp", "unix"])
async def test_it_is_told_the_whole_envelope(start: Start, tmp_path: Path, socket: str) -> None:
    fake = await start(CLEAN, str(tmp_path / "rspamd.sock") if socket == "unix" else "")
    request = pb.ScanRequest(
        envelope=pb.Envelope(spool_id="01hzy"),
        sender="ünal@remote.test",
        recipients=[pb.Recipient(address="alice@posta.test"), pb.Recipient(address="bob@posta.test")],
        client=pb.ClientFacts(
            address="192.0.2.7",
            helo="mail.remote.test\r\nSettings-Id: none",
            rdns="mail.remote.test",
            tls="TLSv1.3 TLS_AES_256_GCM_SHA384",
            login="ünal@remote.test",
        ),
    )
    large = PLAIN + b"line\r\n" * 100_000

    await found(engine(fake), Examined(request, large))

    ((line, fields, body),) = fake.asked
    assert line == "POST /checkv2 HTTP/1.1"
    assert body == large
    ours = [(name, value) for name, value in fields if name not in spoken_by_httpx]
    assert ours == [
        ("from", "ünal@remote.test"),
        ("rcpt", "alice@posta.test"),
        ("rcpt", "bob@posta.test"),
        ("ip", "192.0.2.7"),
        ("helo", "mail.remote.testSettings-Id: none"),
        ("hostname", "mail.remote.test"),
        ("user", "ünal@remote.test"),
        ("queue-id", "01hzy"),
        ("tls-version", "TLSv1.3"),
        ("tls-cipher", "TLS_AES_256_GCM_SHA384"),
    ]


spoken_by_httpx = {"host", "accept", "accept-encoding", "connection", "user-agent", "content-length"}


async def test_a_bounce_to_one_recipient(start: Start) -> None:
    fake = await start(CLEAN)
    request = pb.ScanRequest(recipients=[pb.Recipient(address="alice@posta.test")])
    await found(engine(fake), Examined(request, PLAIN))
    ours = [(name, value) for name, value in fake.asked[0][1] if name not in spoken_by_httpx]
    assert ours == [("from", "<>"), ("rcpt", "alice@posta.test"), ("deliver-to", "alice@posta.test")]


@pytest.mark.parametrize(
    ("action", "score", "becomes", "reply"),
    [
        ("no action", 5.0, Action.ACCEPT, ""),
        ("greylist", 5.0, Action.ACCEPT, ""),
        ("add header", 7.0, Action.JUNK, ""),
        ("rewrite subject", 7.0, Action.JUNK, ""),
        ("quarantine", 7.0, Action.JUNK, ""),
        ("soft reject", 1.0, Action.TEMPFAIL, "451 4.7.1 The message is not taken now, try again later (soft reject)"),
        ("reject", 16.0, Action.REJECT, "554 5.7.1 Message refused: it looks like spam"),
        ("discard", 16.0, Action.REJECT, "554 5.7.1 Message refused: it looks like spam"),
        # Its own thresholds count, not ours.
        ("no action", 14.0, Action.ACCEPT, ""),
        ("no action", 99.0, Action.ACCEPT, ""),
        ("add header", 2.0, Action.JUNK, ""),
        ("add header", 13.0, Action.QUARANTINE, "550 5.7.1 Message refused: it looks like spam"),
        ("an operator's own", 7.0, Action.ACCEPT, ""),
    ],
)
async def test_its_action_is_the_verdict(
    start: Start, action: str, score: float, becomes: pb.Verdict.Action.ValueType, reply: str
) -> None:
    fake = await start(says(action=action, score=score, symbols=SYMBOLS))
    verdict = decide(findings := await found(engine(fake)), Policy())
    assert verdict.action == becomes
    assert (f"{verdict.code} {verdict.enhanced} {verdict.text}" if verdict.code else "") == reply
    assert settled(findings, Policy()) == (becomes in (Action.REJECT, Action.TEMPFAIL))
    assert verdict.score == pytest.approx(score)
    assert [each.symbol for each in verdict.findings][:2] == ["BAYES_SPAM", "MIME_GOOD"]
    assert verdict.findings[0].detail == "99.98%"
    if not reply:
        yes = "Yes" if becomes == Action.JUNK else "No"
        assert verdict.headers.replace(b"\r\n ", b" ").endswith(
            f"X-Spam-Score: {score:.1f}\r\n"
            f"X-Spam-Status: {yes}, score={score:.1f} required=15.0 tests=BAYES_SPAM, MIME_GOOD\r\n".encode()
        )
        assert verdict.headers.startswith(b"X-Spam-Flag: YES") == (becomes == Action.JUNK)


async def test_a_clean_message_says_that_it_was_examined(start: Start) -> None:
    verdict = decide(await found(engine(await start(CLEAN))), Policy())
    assert verdict.headers == b"X-Spam-Score: 0.0\r\nX-Spam-Status: No, score=0.0 required=15.0 tests=none\r\n"


async def test_its_own_words_are_in_the_reply(start: Start) -> None:
    fake = await start(says(action="soft reject", messages={"smtp_message": "Rate limit\r\n250 ok"}))
    assert decide(await found(engine(fake)), Policy()).text.endswith("try again later (Rate limit??250 ok)")


async def test_what_others_found_still_counts(start: Start) -> None:
    findings = await found(engine(await start(says(action="no action", score=-5.0))))
    ours = Finding("policy", "GTUBE", "spam", 10)
    assert decide([ours, *findings], Policy()).action == Action.JUNK
    assert decide([ours, ours, *findings], Policy()).action == Action.REJECT


@pytest.mark.parametrize(
    "behaviour",
    [
        says("500 Internal Server Error", error="worker died"),
        says("200 OK"),
        says(action="no action", score="NaN"),
        says(action=["reject"]),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"),
        raw(b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe"),
        raw(b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000),
        says(action="no action", score=10**400),
        raw(b"220 mail.remote.test ESMTP\r\n"),
        raw(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5_000_000),
        raw(b""),
        cut,
    ],
)
async def test_an_answer_that_is_none(start: Start, behaviour: Behaviour) -> None:
    with pytest.raises(NoServer, match=r"127\.0\.0\.1"):
        await found(engine(await start(behaviour)))


@pytest.mark.parametrize("behaviour", [hung, deaf, cut])
async def test_another_server_is_asked(start: Start, behaviour: Behaviour) -> None:
    first, second = await start(behaviour), await start(CLEAN)
    asked = engine(first, second, engine_deadline_s=1)
    assert [each.symbol for each in await found(asked)] == ["JUDGED_CLEAN"]
    assert [each.symbol for each in await found(asked)] == ["JUDGED_CLEAN"]


@pytest.mark.parametrize("behaviour", [hung, deaf, says("500 Internal Server Error"), None])
@pytest.mark.parametrize("optional", [False, True])
async def test_one_that_does_not_answer_is_never_passed_over(
    start: Start, tmp_path: Path, behaviour: Behaviour | None, optional: bool
) -> None:
    where = await start(behaviour) if behaviour else str(tmp_path / "nobody")
    metrics = Metrics("filter")
    made = engine(where, optional=optional, engine_deadline_s=0.2)
    pipeline = Pipeline([made], Policy(), logger("test"), metrics)

    findings = await pipeline.run(examined(PLAIN), asyncio.get_running_loop().time() + 5)

    assert [each.symbol for each in findings] == [PASSED_OVER if optional else FAULT]
    verdict = decide(findings, Policy())
    if optional:
        assert (verdict.action, verdict.headers) == (Action.ACCEPT, b"X-Posta-Not-Examined-By: spam_rspamd\r\n")
    else:
        assert (verdict.action, verdict.code, verdict.enhanced) == (Action.TEMPFAIL, 451, "4.7.1")
    assert b'posta_filter_engine_faults_total{engine="spam_rspamd"} 1.0' in metrics.exposition()


async def test_a_message_past_the_limit_says_that_it_was_not_examined(start: Start) -> None:
    fake = await start(CLEAN)
    findings = await found(engine(fake, rspamd_max_size=100))
    assert fake.asked == []
    assert decide(findings, Policy()).headers == b"X-Posta-Not-Examined-By: spam_rspamd\r\n"


_JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | strategies.text(),
    lambda inner: strategies.lists(inner, max_size=4) | strategies.dictionaries(strategies.text(), inner, max_size=4),
    max_leaves=10,
)
_ACTION = strategies.sampled_from([*spam_rspamd.JUDGEMENTS, "own"]) | _JSON
_FACTS = strategies.fixed_dictionaries({"score": _JSON | strategies.floats(), "options": _JSON}) | _JSON
_VALUE = strategies.fixed_dictionaries(
    {"action": _ACTION, "score": strategies.floats() | _JSON},
    optional={
        "required_score": strategies.floats() | _JSON,
        "symbols": strategies.dictionaries(strategies.text(), _FACTS, max_size=4) | _JSON,
        "messages": strategies.dictionaries(strategies.just("smtp_message"), _JSON) | _JSON,
        "error": _JSON,
    },
)


@given(_VALUE)
def test_whatever_an_answer_holds_is_a_verdict_or_none(value: dict[str, Any]) -> None:
    try:
        findings = list(spam_rspamd.findings(Answer(200, "OK", value)))
    except ValueError:
        return
    verdict = decide(findings, Policy())
    assert verdict.headers.isascii()
    assert all(line.startswith((b" ", b"X-Spam-")) for line in verdict.headers.split(b"\r\n")[:-1])
    assert verdict.text.isascii()
    assert "\n" not in verdict.text


def test_no_server_no_engine() -> None:
    assert spam_rspamd.engine(Filter()) is None
    with pytest.raises(BadSettings, match="POSTA_FILTER_RSPAMD"):
        spam_rspamd.engine(Filter(rspamd=("http://rspamd:11333",)))
    with pytest.raises(BadSettings, match="no such engine: spam_rspamd"):
        configured(Filter(), ["spam_rspamd"])
