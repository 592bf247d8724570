"""The relay on a real store and bus, with a carrier that follows a script."""

from __future__ import annotations

import asyncio
import re

import pytest
from sqlalchemy import text

from services.contracts.v1.mail_pb2 import RelayDestination, Ticket
from services.core.bus import Bus, work_remote
from services.core.spans import Span, Spans
from services.core.store.spool import Recipient
from services.core.subjects import relay_destination, trace
from services.mxrouter.carriage import Letter, Outcome, Route
from tests.unit.core.conftest import NatsServer, up
from tests.unit.mxrouter.house import DEAD, FAILED, LATER, SENT, House, Script, relaying, until


@pytest.fixture
def carrier() -> Script:
    return Script()


async def steps(bus: Bus, spool_id: str) -> list[tuple[str, str, str]]:
    return sorted((e.step, e.recipient, e.detail) for e in await bus.read_trace(trace(spool_id)))


async def test_a_message_goes_out_and_leaves_nothing(house: House, bus: Bus, carrier: Script) -> None:
    spool_id = await house.accept(
        Recipient("b@far.test", None, "FAILURE", "rfc822;x"), "c@far.test", "d@else.test", envid="QQ", ret="FULL"
    )
    async with relaying(house, bus, carrier):
        await until(lambda: house.rows("SELECT 1 WHERE NOT EXISTS (SELECT FROM spool)"))

    assert carrier.to("far.test") == [["b@far.test", "c@far.test"]]
    assert carrier.to("else.test") == [["d@else.test"]]
    letter = next(letter for route, letter in carrier.carried if route.domain == "far.test")
    assert letter.octets.startswith(b"Received: from somewhere\r\nSubject: ")
    assert (letter.sender, letter.envid, letter.ret) == ("alice@posta.test", "QQ", "FULL")
    assert (letter.addressees[0].notify, letter.addressees[0].orcpt) == ("FAILURE", "rfc822;x")
    said = "250 2.0.0 Queued, by mx.far.test"
    await until(lambda: _told(bus, spool_id, 3))
    assert await steps(bus, spool_id) == [("relayed", f"{who}.test", said) for who in ("b@far", "c@far", "d@else")]


async def test_each_attempt_is_a_step_of_the_messages_trace(house: House, bus: Bus, carrier: Script) -> None:
    kept: list[Span] = []
    door, carrier.says["far.test"] = Spans(kept.append).begin(), LATER
    await house.accept("b@far.test", traceparent=door.traceparent)
    async with relaying(house, bus, carrier, spans=Spans(kept.append)):
        await until(lambda: _tried(kept, 1))
        carrier.says.clear()
        await house.age(1)
        await until(lambda: _tried(kept, 2))
    assert [(each.name, each.parent, each.trace.trace_id) for each in kept] == [
        ("relay attempt", door.span_id, door.trace_id)
    ] * 2
    assert [each.facts["smtp.code"] for each in kept] == [LATER.code, SENT.code]


async def _tried(kept: list[Span], times: int) -> bool:
    return len(kept) == times


async def _told(bus: Bus, spool_id: str, count: int) -> bool:
    return len(await steps(bus, spool_id)) == count


async def test_a_ticket_begins_a_visit_at_once(house: House, bus: Bus, carrier: Script) -> None:
    async with relaying(house, bus, carrier) as relay:
        pulled = await bus.consume_work(work_remote(), "relay", Ticket, 8, relay.serve)
        spool_id = await house.accept("b@far.test")
        await bus.publish_work(work_remote(), Ticket(envelope={"spool_id": spool_id}), spool_id)
        await until(lambda: carrier.carried)
        await pulled.unsubscribe()


async def test_a_letter_whose_ticket_was_lost_does_not_wait_for_those_on_their_way(
    house: House, bus: Bus, carrier: Script
) -> None:
    async with relaying(house, bus, carrier) as relay:
        await house.accept("first@far.test")
        # It lives, so more than one may go there; and none is there, who would have the next letter before its ticket.
        await until(lambda: carrier.to("far.test") == [["first@far.test"]] and not relay._visits)
        carrier.hangs["far.test"] = asyncio.Event()
        pulled = await bus.consume_work(work_remote(), "relay", Ticket, 8, relay.serve)
        told = await house.accept("slow@far.test")
        await bus.publish_work(work_remote(), Ticket(envelope={"spool_id": told}), told)
        await until(lambda: carrier.at_once["far.test"] == 1)
        await house.accept("lost@far.test")
        await until(lambda: ["lost@far.test"] in carrier.to("far.test"))
        carrier.hangs["far.test"].set()
        await pulled.unsubscribe()


async def test_letters_that_found_no_room_go_with_the_visit_that_had_it(
    house: House, bus: Bus, carrier: Script
) -> None:
    async with relaying(house, bus, carrier, connections=1, poll_s=60) as relay:
        carrier.hangs["far.test"] = asyncio.Event()
        pulled = await bus.consume_work(work_remote(), "relay", Ticket, 8, relay.serve)
        for name in ("a", "b", "c"):
            spool_id = await house.accept(f"{name}@far.test")
            await bus.publish_work(work_remote(), Ticket(envelope={"spool_id": spool_id}), spool_id)
        await until(lambda: carrier.at_once["far.test"] == 1)
        await until(lambda: _all_told(bus))
        carrier.hangs["far.test"].set()
        await until(lambda: sorted(carrier.to("far.test")) == [["a@far.test"], ["b@far.test"], ["c@far.test"]])
        assert carrier.most["far.test"] == 1
        await pulled.unsubscribe()


async def _all_told(bus: Bus) -> bool:
    info = await bus.api("CONSUMER.INFO.WORK.relay", {})
    return (info["num_pending"], info["num_ack_pending"]) == (0, 0)


async def test_outcomes_of_one_transaction_make_one_notice(house: House, bus: Bus, carrier: Script) -> None:
    await house.alice()
    spool_id = await house.accept("sent@far.test", "bad@far.test", "worse@far.test", "later@far.test", ret="HDRS")
    carrier.says = {"bad@far.test": FAILED, "worse@far.test": FAILED, "later@far.test": LATER}

    async with relaying(house, bus, carrier):
        [notice] = await until(house.notices)

    assert await house.recipients("address, attempts, last_reply, last_host, leased_by") == [
        ("later@far.test", 1, "450 4.2.0 Greylisted", "mx.far.test", None)
    ]
    assert re.findall(r"Final-Recipient: rfc822; (\S+)\r\nAction: (\S+)\r\nStatus: (\S+)", notice) == [
        ("bad@far.test", "failed", "5.1.1"),
        ("worse@far.test", "failed", "5.1.1"),
    ]
    assert "Remote-MTA: dns; mx.far.test\r\nDiagnostic-Code: smtp; 550 5.1.1 No such user\r\n" in notice
    assert f"Subject: {spool_id}" in notice
    await until(lambda: _told(bus, spool_id, 4))
    assert [step for step, *_ in await steps(bus, spool_id)] == ["bounced", "bounced", "deferred", "relayed"]


async def test_who_waits_is_warned_about_once_and_given_up_in_the_end(house: House, bus: Bus, carrier: Script) -> None:
    await house.alice()
    await house.accept("b@far.test")
    carrier.says = {"far.test": LATER}

    async with relaying(house, bus, carrier):
        for hours, attempts, notices in [(0, 1, 0), (5, 2, 1), (20, 3, 1), (100, 0, 2)]:
            await house.age(hours)
            await until(lambda attempts=attempts: _attempted(house, attempts))
            assert len(await house.notices()) == notices

    warning, failure = await house.notices()
    assert "Action: delayed\r\nStatus: 4.2.0\r\n" in warning
    assert "Will-Retry-Until: " in warning
    assert "Action: failed\r\nStatus: 4.4.7\r\n" in failure
    assert "Diagnostic-Code: smtp; 450 4.2.0 Greylisted\r\n" in failure


async def _attempted(house: House, times: int) -> bool:
    found = await house.recipients("attempts, leased_by")
    return found == ([(times, None)] if times else [])


async def test_a_notice_that_fails_is_the_end_of_it(house: House, bus: Bus, carrier: Script) -> None:
    spool_id = await house.accept("b@far.test", sender="")
    carrier.says = {"far.test": FAILED}
    async with relaying(house, bus, carrier):
        await until(lambda: house.rows("SELECT 1 WHERE NOT EXISTS (SELECT FROM spool)"))
        await until(lambda: _told(bus, spool_id, 1))
    assert await steps(bus, spool_id) == [("failed", "b@far.test", "550 5.1.1 No such user, by mx.far.test")]


async def test_handing_on_is_told_where_the_next_hop_will_not_tell(house: House, bus: Bus, carrier: Script) -> None:
    await house.alice()
    await house.accept(Recipient("b@far.test", None, "SUCCESS"), Recipient("c@far.test", None))
    carrier.says = {"far.test": SENT._replace(relayed_dsn=False)}
    async with relaying(house, bus, carrier):
        [notice] = await until(house.notices)
    assert re.findall(r"Final-Recipient: rfc822; (\S+)\r\nAction: (\S+)", notice) == [("b@far.test", "relayed")]
    assert await house.recipients() == []


async def test_what_hangs_hangs_alone(house: House, bus: Bus, carrier: Script) -> None:
    """More dead hosts than there are slots, and a live one that has answered before."""
    async with relaying(house, bus, carrier, slots=8, retry_slots=2):
        await house.accept("first@alive.test")
        await until(lambda: carrier.to("alive.test"))
        for number in range(30):
            carrier.hangs[f"dead{number}.test"] = asyncio.Event()
            await house.accept(f"x@dead{number}.test")
        await until(lambda: carrier.at_once.total() == 6)

        for number in range(5):
            await house.accept(f"more{number}@alive.test")
            await until(lambda number=number: [f"more{number}@alive.test"] in carrier.to("alive.test"))

        assert carrier.at_once.total() == 6


async def test_a_retry_never_takes_the_slot_of_a_first_attempt(house: House, bus: Bus, carrier: Script) -> None:
    for number in range(10):
        carrier.hangs[f"dead{number}.test"] = asyncio.Event()
        await house.accept(f"x@dead{number}.test")
    await house.rows("UPDATE spool_recipients SET attempts = 1, due_at = now() - interval '1 h'")

    async with relaying(house, bus, carrier, slots=4, retry_slots=3):
        await until(lambda: carrier.at_once.total() == 3)
        await house.accept("b@far.test")
        await until(lambda: carrier.to("far.test"))
        assert carrier.at_once.total() == 3


async def test_a_dead_destination_is_tried_by_one_and_the_rest_is_put_off(
    house: House, bus: Bus, carrier: Script
) -> None:
    await house.alice()
    for number in range(40):
        await house.accept(f"x{number}@dead.test")
    carrier.says = {"dead.test": DEAD}

    async with relaying(house, bus, carrier, connections=3):
        await until(lambda: house.all_put_off(40))
        tried = len(carrier.carried)
        assert 1 <= tried <= 3 * 2
        # A newcomer is not tried either, nor is what has to be warned about.
        await house.accept("newcomer@dead.test")
        await until(lambda: house.all_put_off(41))
        await house.age(5)
        assert len(await until(house.notices)) >= 1
        await until(lambda: house.all_put_off(41))
        await until(lambda: _warned(house, 41))
        assert len(carrier.carried) == tried
    rows = await house.recipients("last_reply, last_host, leased_by")
    assert set(rows) == {("451 4.4.1 No answer from anybody", "", None)}


async def _warned(house: House, count: int) -> bool:
    notices = await house.notices()
    assert len(notices) <= count
    return len(notices) == count


async def test_what_one_pod_finds_out_the_others_need_not(
    house: House, bus: Bus, nats_server: NatsServer, carrier: Script
) -> None:
    other_bus = await Bus.connect(nats_server.url, "other")
    await up(other_bus)
    carrier.says = {"dead.test": DEAD}
    async with relaying(house, bus, carrier, pod="a") as a, relaying(house, other_bus, carrier, pod="b") as b:
        await house.accept("a@dead.test")
        await until(lambda: a._destinations.down("dead.test") and b._destinations.down("dead.test"))
        await house.accept("b@dead.test")
        await until(lambda: house.all_put_off(2))
        assert len(carrier.carried) == 1
        # An operator says that it is worth a try.
        bus.publish_hint(relay_destination(), RelayDestination(destination="dead.test"))
        await until(lambda: not a._destinations.down("dead.test") and not b._destinations.down("dead.test"))
    await other_bus.close()


async def test_a_destination_that_falls_under_many_visits_has_failed_once(
    house: House, bus: Bus, carrier: Script
) -> None:
    """A server that is restarted cuts all connections: counted singly, they would make its mail wait for an hour."""
    async with relaying(house, bus, carrier, connections=4) as relay:
        await _known(house, carrier, "dead.test")
        carrier.says = {"dead.test": DEAD}
        carrier.hangs["dead.test"] = asyncio.Event()
        for number in range(8):
            await house.accept(f"x{number}@dead.test")
        await until(lambda: carrier.at_once["dead.test"] == 4)
        carrier.hangs.pop("dead.test").set()
        await until(lambda: house.all_put_off(8))
        assert relay._destinations.failures("dead.test") == 1


async def _known(house: House, carrier: Script, domain: str) -> None:
    """It has answered of late."""
    await house.accept(f"first@{domain}")
    await until(lambda: house.rows("SELECT 1 WHERE NOT EXISTS (SELECT FROM spool)"))
    carrier.carried.clear()


async def test_so_many_at_once_and_no_more(house: House, bus: Bus, carrier: Script) -> None:
    async with relaying(house, bus, carrier, connections=4):
        await _known(house, carrier, "far.test")
        carrier.hangs["far.test"] = asyncio.Event()
        for number in range(30):
            await house.accept(f"x{number}@far.test")
        await until(lambda: carrier.at_once["far.test"] == 4)
        carrier.hangs.pop("far.test").set()
        await until(lambda: house.rows("SELECT 1 WHERE NOT EXISTS (SELECT FROM spool)"))
    assert carrier.most["far.test"] == 4
    assert sorted(who for [who] in carrier.to("far.test")) == sorted(f"x{n}@far.test" for n in range(30))


async def test_a_stranger_who_hangs_takes_one_visit(house: House, bus: Bus, carrier: Script) -> None:
    """Many of them, with a lot of mail each, would otherwise take all that there is for strangers."""
    carrier.hangs["far.test"] = asyncio.Event()
    for number in range(5):
        await house.accept(f"x{number}@far.test")
    async with relaying(house, bus, carrier, connections=4):
        await until(lambda: carrier.at_once["far.test"] == 1)
        await house.accept("y@else.test")
        await until(lambda: carrier.to("else.test"))
        assert carrier.most["far.test"] == 1
        carrier.hangs.pop("far.test").set()
        await until(lambda: house.rows("SELECT 1 WHERE NOT EXISTS (SELECT FROM spool)"))


async def test_two_relays_send_each_letter_once(house: House, bus: Bus, carrier: Script) -> None:
    for number in range(40):
        await house.accept(f"x{number}@far.test", f"y{number}@far.test")
    async with relaying(house, bus, carrier, pod="a"), relaying(house, bus, carrier, pod="b"):
        await until(lambda: house.rows("SELECT 1 WHERE NOT EXISTS (SELECT FROM spool)"))
    assert sorted(carrier.to("far.test")) == sorted([f"x{n}@far.test", f"y{n}@far.test"] for n in range(40))


async def test_a_killed_pod_leaves_nothing_behind(house: House, bus: Bus, carrier: Script) -> None:
    """RFC 1047: whether the remote has taken it the killed pod cannot say, so it is sent again, and by one only."""
    await house.accept("b@far.test")
    carrier.hangs["far.test"] = asyncio.Event()
    async with relaying(house, bus, carrier, pod="killed", lease_s=0.5):
        await until(lambda: carrier.carried)
    assert await house.recipients("leased_by") == ["killed"]

    carrier.hangs.clear()
    async with relaying(house, bus, carrier, pod="next", lease_s=0.5):
        await until(lambda: house.rows("SELECT 1 WHERE NOT EXISTS (SELECT FROM spool)"))
    assert carrier.to("far.test") == [["b@far.test"]] * 2


async def test_a_slow_remote_does_not_lose_us_the_lease(house: House, bus: Bus, carrier: Script) -> None:
    await house.accept("b@far.test")
    carrier.hangs["far.test"] = asyncio.Event()
    async with relaying(house, bus, carrier, pod="slow", lease_s=0.3):
        await until(lambda: carrier.carried)
        [before] = await house.recipients("due_at")
        await until(lambda: _later_than(house, before))
        carrier.hangs["far.test"].set()
        await until(lambda: house.rows("SELECT 1 WHERE NOT EXISTS (SELECT FROM spool)"))
    assert len(carrier.carried) == 1


async def _later_than(house: House, before: object) -> bool:
    return bool(
        await house.rows(
            "SELECT 1 FROM spool_recipients WHERE due_at > CAST(:b AS timestamptz) + interval '0.5 s'", b=before
        )
    )


async def test_a_drain_finishes_the_letter_and_gives_back_the_rest(house: House, bus: Bus, carrier: Script) -> None:
    carrier.hangs["far.test"] = asyncio.Event()
    for number in range(20):
        await house.accept(f"x{number}@far.test")
    async with relaying(house, bus, carrier, connections=1) as relay:
        await until(lambda: carrier.carried)
        draining = asyncio.create_task(relay.drain(10))
        await asyncio.sleep(0)
        carrier.hangs["far.test"].set()
        await draining
    assert len(carrier.carried) == 1
    assert await house.recipients("attempts, leased_by") == [(0, None)] * 19


async def test_a_hundred_recipients_at_a_time(house: House, bus: Bus, carrier: Script) -> None:
    await house.accept(*(f"x{number:03}@far.test" for number in range(250)))
    async with relaying(house, bus, carrier):
        await until(lambda: house.rows("SELECT 1 WHERE NOT EXISTS (SELECT FROM spool)"))
    assert sorted(len(part) for part in carrier.to("far.test")) == [50, 100, 100]


class Broken(Script):
    async def carry(self, route: Route, letter: Letter) -> list[Outcome]:
        await super().carry(route, letter)
        raise RuntimeError("a fault of ours")


async def test_a_fault_of_ours_costs_nobody_mail(house: House, bus: Bus) -> None:
    carrier = Broken()
    await house.accept("b@far.test")
    async with relaying(house, bus, carrier):
        await until(lambda: _attempted(house, 1))
    assert await house.recipients("last_reply") == ["451 4.3.0 Something went wrong here"]


async def test_while_the_store_is_away_what_was_sent_is_remembered(
    house: House, bus: Bus, carrier: Script, postgres_url: str
) -> None:
    await house.accept("b@far.test")
    carrier.hangs["far.test"] = asyncio.Event()
    async with relaying(house, bus, carrier):
        await until(lambda: carrier.carried)
        async with house.store.begin("test") as conn:
            # Whoever asks next finds its connection gone, as after a restart of Postgres.
            await conn.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        carrier.hangs["far.test"].set()
        await until(lambda: _gone(house))
    assert len(carrier.carried) == 1


async def _gone(house: House) -> bool:
    try:
        return not await house.recipients()
    except Exception:
        return False
