"""The client against servers that are well, and servers that are not in every way a server can be."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from services.mxrouter.carriage import Fate, Outcome, Route
from tests.unit.mxrouter.script import letter
from tests.unit.mxrouter.world import EHLO, IMPATIENT, PATIENT, Caller, World

REMOTE = Route("remote.test")
TWO = "@ IN MX 10 one\n@ IN MX 20 two\none IN A 127.0.0.2\ntwo IN A 127.0.0.3\n"
PLAIN = EHLO.replace("250-STARTTLS\r\n", "")


def brief(outcomes: list[Outcome]) -> list[tuple[str, int, str]]:
    return [(each.fate.value, each.code, each.enhanced) for each in outcomes]


async def well(caller: Caller) -> None:
    await caller.take(PLAIN)


async def test_a_letter_arrives_over_tls(world: World) -> None:
    world.zone("remote.test", "@ IN MX 10 mx\nmx IN A 127.0.0.2\n")
    _, tls = world.certificate("someone.else.test")
    await world.host("127.0.0.2", lambda caller: caller.take(tls=tls))

    outcomes = await world.client().carry(REMOTE, letter("carol@remote.test", "dave@remote.test"))

    assert outcomes == [Outcome(Fate.SENT, 250, "2.0.0", "taken", "mx.remote.test", relayed_dsn=True)] * 2
    (caller,) = [each for _, each in world.calls]
    assert caller.lines[:3] == ["EHLO mx.posta.test", "STARTTLS", "EHLO mx.posta.test"]
    assert caller.message == b"Subject: x\r\n\r\n..one\r\n...two\r\n.\r\n"
    assert world.results == [("no-policy-found", "successful")]


async def test_the_next_letter_takes_the_same_connection(world: World) -> None:
    world.zone("remote.test", TWO)
    await world.host("127.0.0.2", lambda caller: caller.take(PLAIN, RCPT="550 5.1.1 who?"))
    client = world.client(messages=3)

    for _ in range(4):
        assert brief(await client.carry(REMOTE, letter())) == [("failed", 550, "5.1.1")]
    await client.close()

    assert world.called == ["127.0.0.2"] * 2, "the first one had carried its three"
    verbs = [[line.split()[0] for line in caller.lines] for _, caller in world.calls]
    assert verbs[0] == ["EHLO", "MAIL", "RCPT", "DATA", *(["RSET", "MAIL", "RCPT", "DATA"] * 2), "QUIT"]
    assert verbs[1][-1] == "QUIT"


async def test_an_idle_connection_is_left(world: World) -> None:
    world.zone("remote.test", TWO)
    left = asyncio.Event()

    async def script(caller: Caller) -> None:
        await caller.take(PLAIN)
        left.set()

    await world.host("127.0.0.2", script)
    await world.client(idle_s=0.05).carry(REMOTE, letter())

    await left.wait()
    assert world.calls[0][1].lines[-1] == "QUIT"


async def test_a_kept_connection_that_has_died_is_no_failure(world: World) -> None:
    world.zone("remote.test", TWO)

    async def script(caller: Caller) -> None:
        # It hangs up on the first command after the first message.
        await caller.take(PLAIN, then="" if len(world.calls) == 1 else None)

    await world.host("127.0.0.2", script)
    client = world.client()

    assert brief(await client.carry(REMOTE, letter())) == [("sent", 250, "2.0.0")]
    assert brief(await client.carry(REMOTE, letter())) == [("sent", 250, "2.0.0")]
    assert world.called == ["127.0.0.2"] * 2


BEFORE = ["GREETING", "EHLO", "MAIL", "RCPT", "DATA"]
FLAWS = {"hangs": None, "hangs up": "", "garbage": "<html>", "floods": "250-x\r\n" * 60_000 + "250 x"}


@pytest.mark.parametrize("flaw", FLAWS)
@pytest.mark.parametrize("stage", BEFORE)
async def test_one_host_is_broken_and_the_other_takes_it(world: World, stage: str, flaw: str) -> None:
    world.zone("remote.test", TWO)
    await world.host("127.0.0.2", lambda caller: caller.take(PLAIN, **{stage: FLAWS[flaw]}))
    await world.host("127.0.0.3", well)

    outcomes = await world.client(patience=IMPATIENT if flaw == "hangs" else PATIENT).carry(REMOTE, letter())

    assert brief(outcomes) == [("sent", 250, "2.0.0")]
    assert outcomes[0].host == "two.remote.test"


@pytest.mark.parametrize("flaw", FLAWS)
async def test_broken_after_the_message(world: World, flaw: str) -> None:
    """The message may have been taken: nobody else is asked."""
    world.zone("remote.test", TWO)
    await world.host("127.0.0.2", lambda caller: caller.take(PLAIN, MESSAGE=FLAWS[flaw]))
    await world.host("127.0.0.3", well)

    outcomes = await world.client(patience=IMPATIENT if flaw == "hangs" else PATIENT).carry(REMOTE, letter())

    assert brief(outcomes) == [("later", 451, "4.4.2")]
    assert "it may have been taken, and may arrive twice" in outcomes[0].text
    assert not outcomes[0].unreachable
    assert world.called == ["127.0.0.2"]


@pytest.mark.parametrize(
    ("stage", "said", "outcome", "hosts"),
    [
        ("GREETING", "421 4.3.2 busy", ("sent", 250, "2.0.0"), 2),
        ("GREETING", "554 5.7.1 no", ("sent", 250, "2.0.0"), 2),
        ("EHLO", "421 4.3.2 busy", ("sent", 250, "2.0.0"), 2),
        ("EHLO", "554 5.7.1 no", ("sent", 250, "2.0.0"), 2),
        ("MAIL", "451 4.3.1 full", ("sent", 250, "2.0.0"), 2),
        ("MAIL", "550 5.7.1 no", ("failed", 550, "5.7.1"), 1),
        ("RCPT", "450 4.2.0 grey", ("later", 450, "4.2.0"), 1),
        ("RCPT", "550 5.1.1 who", ("failed", 550, "5.1.1"), 1),
        ("RCPT", "421 4.3.2 busy", ("sent", 250, "2.0.0"), 2),
        ("DATA", "451 4.3.0 odd", ("later", 451, "4.3.0"), 1),
        ("DATA", "554 5.7.1 no", ("failed", 554, "5.7.1"), 1),
        ("MESSAGE", "451 4.3.0 odd", ("later", 451, "4.3.0"), 1),
        ("MESSAGE", "554 5.7.1 no", ("failed", 554, "5.7.1"), 1),
        ("MESSAGE", "421 4.3.2 busy", ("sent", 250, "2.0.0"), 2),
    ],
)
async def test_refused(world: World, stage: str, said: str, outcome: tuple[str, int, str], hosts: int) -> None:
    world.zone("remote.test", TWO)
    await world.host("127.0.0.2", lambda caller: caller.take(PLAIN, **{stage: said}))
    await world.host("127.0.0.3", well)

    assert brief(await world.client().carry(REMOTE, letter())) == [outcome]
    assert len(world.called) == hosts


async def test_a_server_that_refuses_at_the_greeting_says_nothing_final(world: World) -> None:
    world.zone("remote.test", TWO)
    for address in ("127.0.0.2", "127.0.0.3"):
        await world.host(address, lambda caller: caller.take(GREETING="554 5.7.1 you are listed"))

    (outcome,) = await world.client().carry(REMOTE, letter())

    assert outcome == Outcome(
        Fate.LATER, 554, "4.7.1", "the greeting: you are listed", "two.remote.test", unreachable=True
    )


async def test_nobody_is_there(world: World) -> None:
    world.zone("remote.test", TWO)
    await world.host("127.0.0.9", well)

    (outcome,) = await world.client().carry(REMOTE, letter())

    assert (outcome.fate, outcome.enhanced, outcome.host, outcome.unreachable) == (Fate.LATER, "4.4.1", "", True)
    assert "two.remote.test (127.0.0.3:" in outcome.text


async def test_an_address_of_the_host_that_is_dead(world: World) -> None:
    world.zone("remote.test", "@ IN MX 1 mx\nmx IN AAAA ::1\nmx IN A 127.0.0.7\nmx IN A 127.0.0.2\n")
    await world.host("127.0.0.2", well)

    assert brief(await world.client().carry(REMOTE, letter())) == [("sent", 250, "2.0.0")]


async def test_a_reply_that_is_cut_in_the_middle(world: World) -> None:
    world.zone("remote.test", TWO)

    async def script(caller: Caller) -> None:
        caller.writer.write(b"220-mx.remote.test\r\n220 ES")
        await caller.writer.drain()

    await world.host("127.0.0.2", script)
    await world.host("127.0.0.3", well)

    assert brief(await world.client().carry(REMOTE, letter())) == [("sent", 250, "2.0.0")]


async def test_a_reply_that_comes_octet_by_octet_has_no_more_time_than_any(world: World) -> None:
    world.zone("remote.test", TWO)

    async def script(caller: Caller) -> None:
        while True:
            caller.writer.write(b"220-x\r\n")
            await caller.writer.drain()
            await asyncio.sleep(0.05)

    await world.host("127.0.0.2", script)

    (outcome,) = await world.client(patience=IMPATIENT).carry(REMOTE, letter())

    assert outcome.fate is Fate.LATER


async def test_the_server_stops_reading_in_the_middle_of_the_message(world: World) -> None:
    """Part of it is still here, so nothing was taken: the other host gets it."""
    world.zone("remote.test", TWO)
    done = asyncio.Event()

    async def script(caller: Caller) -> None:
        await caller.say("220 x")
        for answer in (PLAIN, "250 ok", "250 ok", "354 go"):
            await caller.line()
            await caller.say(answer)
        caller.stop_reading()
        await done.wait()

    await world.host("127.0.0.2", script)
    await world.host("127.0.0.3", well)

    big = letter(octets=b"Subject: x\r\n\r\n" + b"x" * 30_000_000 + b"\r\n")
    patience = replace(PATIENT, block_s=1.0)
    outcomes = await world.client(patience=patience).carry(REMOTE, big)
    done.set()

    assert brief(outcomes) == [("sent", 250, "2.0.0")]
    assert world.called == ["127.0.0.2", "127.0.0.3"]


async def test_a_refusal_in_the_middle_of_the_message_is_heard(world: World) -> None:
    world.zone("remote.test", TWO)

    async def script(caller: Caller) -> None:
        await caller.say("220 x")
        for answer in (PLAIN, "250 ok", "250 ok", "354 go"):
            await caller.line()
            await caller.say(answer)
        await caller.reader.readexactly(100_000)
        await caller.say("552 5.3.4 too much")
        await caller.hang()

    await world.host("127.0.0.2", script)

    big = letter(octets=b"Subject: x\r\n\r\n" + b"x" * 3_000_000 + b"\r\n")

    client = world.client(patience=replace(PATIENT, quit_s=0.1))
    assert brief(await client.carry(REMOTE, big)) == [("failed", 552, "5.3.4")]


@pytest.mark.parametrize("said", ["454 4.7.0 not now", "500 what?"])
async def test_tls_offered_and_refused(world: World, said: str) -> None:
    world.zone("remote.test", TWO)
    await world.host("127.0.0.2", lambda caller: caller.take(STARTTLS=said))

    assert brief(await world.client().carry(REMOTE, letter())) == [("sent", 250, "2.0.0")]
    assert world.called == ["127.0.0.2"], "in the same session"
    assert world.results == [("no-policy-found", "starttls-not-supported")]


@pytest.mark.parametrize("broken", ["garbage", "hangs up", "hangs", "speaks first"])
async def test_tls_offered_and_broken(world: World, broken: str) -> None:
    """Nothing demands TLS of this host, so it gets the letter in the clear, over a connection of its own."""
    world.zone("remote.test", TWO)

    async def script(caller: Caller) -> None:
        if len(world.calls) > 1:
            await caller.take()
            return
        await caller.say("220 x")
        await caller.line()
        await caller.say(EHLO)
        await caller.line()
        await caller.say("220 go" + ("\r\n250 injected" if broken == "speaks first" else ""))
        if broken == "garbage":
            await caller.say("HTTP/1.1 400 Bad Request")
        if broken != "hangs up":
            await caller.hang()

    await world.host("127.0.0.2", script)

    client = world.client(patience=IMPATIENT if broken == "hangs" else PATIENT)
    assert brief(await client.carry(REMOTE, letter())) == [("sent", 250, "2.0.0")]
    assert "STARTTLS" not in world.calls[1][1].lines
    assert world.results == [("no-policy-found", "validation-failure")]


async def test_what_no_host_can_do(world: World) -> None:
    world.zone("remote.test", TWO)
    for address in ("127.0.0.2", "127.0.0.3"):
        await world.host(address, well)

    outcomes = await world.client().carry(REMOTE, letter("käthe@remote.test", "carol@remote.test"))

    assert brief(outcomes) == [("failed", 553, "5.6.7"), ("sent", 250, "2.0.0")]
    assert [caller.lines[0] for _, caller in world.calls] == ["EHLO mx.posta.test"] * 2


async def test_what_one_host_cannot_do_waits_for_one_that_is_away(world: World) -> None:
    world.zone("remote.test", TWO)
    await world.host("127.0.0.2", well)

    (outcome,) = await world.client().carry(REMOTE, letter("käthe@remote.test"))

    assert outcome.fate is Fate.LATER


@pytest.mark.parametrize(
    ("zone", "fate", "enhanced"),
    [
        ("@ IN MX 0 .\n", Fate.FAILED, "5.1.10"),
        ("@ IN MX 10 mx.posta.test.\n@ IN MX 20 two\ntwo IN A 127.0.0.2\n", Fate.FAILED, "5.4.6"),
        ("@ IN MX 10 nowhere\n", Fate.FAILED, "5.4.4"),
        ("@ IN TXT x\n", Fate.FAILED, "5.4.4"),
        (";posta: servfail @\n@ IN TXT x\n", Fate.LATER, "4.4.3"),
        (";posta: servfail mx\n@ IN MX 1 mx\n@ IN MX 2 nowhere\n", Fate.LATER, "4.4.3"),
        (None, Fate.FAILED, "5.1.2"),
    ],
)
async def test_no_way_there(world: World, zone: str | None, fate: Fate, enhanced: str) -> None:
    if zone is not None:
        world.zone("other.test", zone)

    (outcome,) = await world.client().carry(Route("other.test"), letter())

    assert (outcome.fate, outcome.enhanced, outcome.unreachable) == (fate, enhanced, fate is Fate.LATER)


async def test_cancelled_it_cuts_the_connection(world: World) -> None:
    world.zone("remote.test", TWO)
    reached, cut = asyncio.Event(), asyncio.Event()

    async def script(caller: Caller) -> None:
        await caller.say("220 x")
        await caller.line()
        reached.set()
        await caller.hang()
        cut.set()

    await world.host("127.0.0.2", script)
    carrying = asyncio.create_task(world.client().carry(REMOTE, letter()))
    await reached.wait()
    carrying.cancel()

    with pytest.raises(asyncio.CancelledError):
        await carrying
    await cut.wait()


async def test_a_server_that_says_how_many_messages_a_connection_may_carry(world: World) -> None:
    world.zone("remote.test", TWO)
    await world.host("127.0.0.2", lambda caller: caller.take("250-x\r\n250 LIMITS MAILMAX=2"))
    client = world.client()

    for _ in range(4):
        assert brief(await client.carry(REMOTE, letter())) == [("sent", 250, "2.0.0")]

    assert len(world.called) == 2


async def test_hosts_that_hang_are_not_waited_for_one_after_the_other_without_end(world: World) -> None:
    world.zone("remote.test", TWO)
    for address in ("127.0.0.2", "127.0.0.3"):
        await world.host(address, lambda caller: caller.take(GREETING=None))

    outcomes = await world.client(patience=IMPATIENT, search_s=0.5).carry(REMOTE, letter())

    assert brief(outcomes) == [("later", 451, "4.4.2")]
    assert outcomes[0].unreachable
    assert world.called == ["127.0.0.2"]


async def test_many_letters_at_once(world: World) -> None:
    world.zone("remote.test", TWO)
    await world.host("127.0.0.2", well)
    client = world.client()

    outcomes = await asyncio.gather(*(client.carry(REMOTE, letter(f"r{n}@remote.test")) for n in range(20)))

    assert [brief(each) for each in outcomes] == [[("sent", 250, "2.0.0")]] * 20
    assert sum(caller.message != b"" for _, caller in world.calls) == 20
