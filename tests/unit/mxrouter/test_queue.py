"""The queue on a real Postgres: leases, several claimers, those that were killed, and many rows for dead hosts."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from services.core.ids import BlobId, SpoolId
from services.core.store import spool
from services.core.store.engine import Driver
from services.core.store.spool import Entry, Recipient
from services.mxrouter import queue
from services.mxrouter.queue import Claim, Kind, Postponed, PutOff
from tests.unit.mxrouter.house import House

LEASE_S = 60.0
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


async def claim(
    house: House,
    domain: str = "far.test",
    kind: Kind = Kind.FRESH,
    letters: int = 10,
    pod: str = "a",
    lease_s: float = 60,
) -> list[Claim]:
    return await queue.claim(house.store, pod, domain, kind, letters, lease_s)


async def end_leases(house: House) -> None:
    """As `Leases.free_forever` does with those of a pod that is dead."""
    await queue.free(house.store, await queue.leases(house.store))


async def postpone(house: House, one: Claim, wait_s: float, pod: str = "a") -> bool:
    later = [Postponed(r.n, r.attempts, wait_s, NOON, "450 4.2.0 Later", "mx.far.test") for r in one.recipients]
    return await queue.settle(house.store, pod, one.spool_id, sent=(), failed=(), later=later, notices=(), due_in_s=20)


async def put_off(house: House, kind: Kind) -> PutOff:
    reply = "450 4.4.1 dead"
    return await queue.put_off(house.store, "dead.test", kind, wait_s=600, warn_after_s=3600, reply=reply, host="")


def addresses(claims: list[Claim]) -> list[str]:
    return [r.address for c in claims for r in c.recipients]


async def test_a_letter_is_leased_with_all_its_recipients_of_the_domain(house: House) -> None:
    spool_id = await house.accept(
        "a@far.test",
        "b@other.test",
        Recipient("c@far.test", None, "SUCCESS", "rfc822;c@posta.test"),
        ret="HDRS",
        envid="QQ",
        smtputf8=True,
        requiretls=True,
        traceparent="00-aa",
    )

    [one] = await claim(house)

    assert (one.spool_id, one.domain, one.sender) == (spool_id, "far.test", "alice@posta.test")
    assert (one.ret, one.envid, one.smtputf8, one.requiretls, one.traceparent) == ("HDRS", "QQ", True, True, "00-aa")
    assert one.prefix == b"Received: from somewhere\r\n"
    assert [(r.n, r.address, r.notify, r.orcpt, r.attempts) for r in one.recipients] == [
        (0, "a@far.test", None, None, 1),
        (2, "c@far.test", "SUCCESS", "rfc822;c@posta.test", 1),
    ]
    assert await claim(house) == []
    assert addresses(await claim(house, "other.test")) == ["b@other.test"]


@pytest.mark.parametrize("letters", [1, 4])
async def test_of_many_claimers_each_letter_has_one(house: House, letters: int) -> None:
    for number in range(12):
        await house.accept(*(f"{name}{number}@far.test" for name in "abc"))

    found = await asyncio.gather(*(claim(house, pod=f"pod{n}", letters=letters) for n in range(12)))
    while more := await claim(house, letters=letters):
        found.append(more)

    claims = [one for several in found for one in several]
    assert all(len(one.recipients) == 3 for one in claims)
    assert len(claims) == len({one.spool_id for one in claims}) == 12


async def test_what_a_killed_pod_had_in_hand_comes_back(house: House) -> None:
    await house.accept("a@far.test")
    [first] = await claim(house, pod="killed")
    await end_leases(house)

    assert await claim(house, kind=Kind.FRESH, pod="b") == []
    [second] = await claim(house, kind=Kind.RETRY, pod="b")
    assert second.recipients[0].attempts == 2

    # It was not dead, only slow: what it says of the attempt is not for it to say any more.
    assert not await postpone(house, first, 600, "killed")
    assert await house.recipients("leased_by, attempts, last_reply") == [("b", 2, None)]
    assert await postpone(house, second, 600, "b")


async def test_who_was_overtaken_still_takes_out_what_it_has_sent(house: House) -> None:
    await house.accept("a@far.test", "b@far.test")
    [slow] = await claim(house, pod="slow")
    await end_leases(house)
    await claim(house, kind=Kind.RETRY, pod="b")

    sent, failed = slow.recipients
    kept = await queue.settle(
        house.store, "slow", slow.spool_id, sent=[sent], failed=[failed], later=(), notices=(), due_in_s=20
    )

    assert not kept
    assert await house.recipients() == ["b@far.test"]


@pytest.mark.parametrize("days", [-3, -0.1, 0.1, 3])
async def test_a_clock_that_jumps_gives_nobody_what_another_has_in_hand(house: House, days: float) -> None:
    await house.accept("a@far.test")
    [one] = await claim(house)
    await house.jump(days)

    assert await claim(house, kind=Kind.RETRY, pod="b") == []
    assert await queue.hasten(house.store, 5 * 3600, 1) == 0

    [seen] = await queue.leases(house.store)
    await queue.renew(house.store, "a", [(one.spool_id, 0, 1)], LEASE_S)
    assert await queue.free(house.store, [seen]) == 0, "it has been renewed since it was seen"
    assert await claim(house, kind=Kind.RETRY, pod="b") == []
    assert await postpone(house, one, 600)


async def test_what_was_to_wait_does_not_wait_for_the_old_time(house: House) -> None:
    for number in range(20):
        await house.accept(f"a{number}@far.test")
    for one in await claim(house, letters=20):
        await postpone(house, one, 3600)
    assert await queue.hasten(house.store, 5 * 3600, 600) == 0
    await house.jump(-2)

    assert await queue.hasten(house.store, 5 * 3600, 600) == 20

    waits = [row[0] for row in await house.rows("SELECT extract(epoch FROM due_at - now()) FROM spool_recipients")]
    assert max(waits) <= 600
    assert max(waits) - min(waits) > 60, "not all at once"


async def test_a_lease_is_renewed_as_long_as_it_is_ours(house: House) -> None:
    await house.accept("a@far.test")
    await house.accept("b@far.test")
    one, other = await claim(house, lease_s=-1)
    await queue.free(house.store, (await queue.leases(house.store))[:1])
    await claim(house, kind=Kind.RETRY, pod="b", letters=1)
    held = [(c.spool_id, r.n, r.attempts) for c in (one, other) for r in c.recipients]

    await queue.renew(house.store, "a", held, LEASE_S)

    assert await house.recipients("leased_by, due_at > now()") == [("b", True), ("a", True)]
    assert await claim(house, kind=Kind.RETRY, pod="c") == []


async def test_what_was_not_attempted_goes_back_as_it_was(house: House) -> None:
    await house.accept("a@far.test")
    [one] = await claim(house)

    await queue.give_back(house.store, "a", [(one.spool_id, r.n, r.attempts) for r in one.recipients])

    assert await house.recipients("leased_by, attempts") == [(None, 0)]
    assert addresses(await claim(house)) == ["a@far.test"]


async def test_the_last_one_takes_the_message_with_it(house: House) -> None:
    await house.accept("a@far.test", "b@far.test")
    [one] = await claim(house)
    a, b = one.recipients

    await queue.settle(house.store, "a", one.spool_id, sent=[a], failed=(), later=(), notices=(), due_in_s=20)
    assert len(await house.rows("SELECT 1 FROM spool")) == 1
    await queue.settle(house.store, "a", one.spool_id, sent=(), failed=[b], later=(), notices=(), due_in_s=20)
    assert await house.rows("SELECT 1 FROM spool") == []


async def test_a_notice_and_what_it_tells_of_are_one_commit(house: House) -> None:
    await house.accept("a@far.test")
    [one] = await claim(house)
    recipient = Recipient("alice@posta.test", None)
    broken = Entry(SpoolId("0" * 26), cast(BlobId, None), b"", 0, "", None, "posta", "", False, (recipient,))

    with pytest.raises(Exception, match="null value"):
        await queue.settle(
            house.store, "a", one.spool_id, sent=(), failed=one.recipients, later=(), notices=[broken], due_in_s=20
        )

    assert await house.recipients() == ["a@far.test"]


async def test_held_ones_are_nobodys(house: House) -> None:
    await house.accept("a@far.test", "b@far.test")
    await house.rows("UPDATE spool_recipients SET held = true WHERE address = 'a@far.test'")

    [[spool_id]] = await house.rows("SELECT spool_id FROM spool")
    assert await queue.offered(house.store, [spool_id]) == [(spool_id, "far.test")]
    assert addresses(await claim(house)) == ["b@far.test"]
    assert await queue.due(house.store, Kind.FRESH, 10) == []


async def test_due_domains_come_in_the_order_of_waiting(house: House) -> None:
    for name in ("late", "early", "busy"):
        await house.accept(f"a@{name}.test")
    await house.rows("UPDATE spool_recipients SET due_at = now() - interval '9 s' WHERE domain = 'early.test'")

    assert await queue.due(house.store, Kind.FRESH, 10, but=["busy.test"]) == ["early.test", "late.test"]
    assert await queue.due(house.store, Kind.FRESH, 1) == ["early.test"]
    assert await queue.due(house.store, Kind.FRESH, 9, of=["late.test"]) == ["late.test"]
    assert await queue.due(house.store, Kind.RETRY, 10) == []


async def test_a_dead_domain_is_put_off_at_once(house: House) -> None:
    for number in range(5):
        await house.accept(f"a{number}@dead.test")
    await house.accept("b@far.test")
    await claim(house, "dead.test", letters=1)  # in hand: not to be touched

    assert await put_off(house, Kind.FRESH) == PutOff(4, more=False, told=False)
    assert await put_off(house, Kind.FRESH) == PutOff(0, more=False, told=False)
    found = await house.recipients("domain, attempts, last_reply, due_at > now() + interval '9 min', notice_at > now()")
    assert found.count(("dead.test", 1, "450 4.4.1 dead", True, True)) == 4
    assert found.count(("dead.test", 1, None, False, False)) == 1
    assert await queue.due(house.store, Kind.FRESH, 10) == ["far.test"]
    # Those whose sender must be told are left for a closer look.
    await house.age(0)
    assert await put_off(house, Kind.RETRY) == PutOff(4, more=False, told=False)
    await house.age(2)
    assert await put_off(house, Kind.RETRY) == PutOff(0, more=False, told=True)


async def test_who_would_come_due_at_a_dead_domain_is_put_off_with_those_who_are(house: House) -> None:
    """One by one they would cost a statement each, as often as their number, for as long as the domain is dead."""
    for who, wait_s in {"due": -1, "soon": 540, "late": 660}.items():
        await house.accept(f"{who}@dead.test")
        await house.rows(
            "UPDATE spool_recipients SET attempts = 3, due_at = now() + make_interval(secs => :wait_s),"
            " notice_at = now() + interval '1 day' WHERE address = :address",
            wait_s=wait_s,
            address=f"{who}@dead.test",
        )
    await house.accept("hand@dead.test")
    await claim(house, "dead.test")  # its lease ends in a minute: that is no appointment

    assert await put_off(house, Kind.RETRY) == PutOff(2, more=False, told=False)

    found = await house.recipients("address, attempts, leased_by, due_at > now() + interval '9.9 min'")
    assert sorted(found) == [
        ("due@dead.test", 4, None, True),
        ("hand@dead.test", 1, "a", False),
        ("late@dead.test", 3, None, True),
        ("soon@dead.test", 3, None, True),
    ]


async def test_a_small_message_comes_with_its_claim(house: House) -> None:
    await house.accept("a@far.test", "b@far.test")
    [one] = await claim(house)
    assert one.content is not None
    assert one.content.startswith(b"Subject: ")

    await house.accept("c@far.test")
    await house.rows("UPDATE spool SET size = 33 * 1024")
    [large] = await claim(house)
    assert large.content is None


async def test_the_queue_in_figures(house: House) -> None:
    await house.accept("fresh@a.test", "held@b.test", "sending@c.test", "waiting@d.test", "due@e.test")
    await house.rows("UPDATE spool_recipients SET held = true WHERE domain = 'b.test'")
    await house.rows(
        "UPDATE spool_recipients SET attempts = 1, due_at = now() + interval '1 h' WHERE domain = 'd.test'"
    )
    await house.rows(
        "UPDATE spool_recipients SET attempts = 1, due_at = now() - interval '1 h' WHERE domain = 'e.test'"
    )
    await claim(house, "c.test")
    await house.rows("UPDATE spool SET received_at = now() - interval '1 hour'")

    depth = await queue.depth(house.store)

    assert {d.state: d.recipients for d in depth} == {"fresh": 1, "held": 1, "sending": 1, "waiting": 1, "due": 1}
    assert all(timedelta(seconds=d.oldest_s) >= timedelta(hours=1) for d in depth)


async def test_a_hundred_thousand_rows_are_never_read_through(house: House) -> None:
    await house.rows(
        "INSERT INTO spool (spool_id, blob_id, prefix, size, sender, door)"
        " SELECT 's' || g, ''::bytea, ''::bytea, 1, 'a@b', 'mx' FROM generate_series(1, 100000) g"
    )
    await house.rows(
        "INSERT INTO spool_recipients (spool_id, n, address, attempts, due_at)"
        " SELECT 's' || g, 0, 'x@dead' || g % 1000 || '.test', g % 50, now() + make_interval(secs => 60 + g)"
        " FROM generate_series(1, 100000) g"
    )
    await house.accept("a@alive.test")
    await house.rows("ANALYZE spool_recipients, spool")
    asked: list[tuple[str, tuple[object, ...]]] = [
        (queue._DUE_OF[Kind.RETRY], ([], None, 10)),
        (queue._DUE_OF[Kind.FRESH], ([], None, 10)),
        (queue._CLAIM_OF[Kind.FRESH], ("alive.test", 4, "a", 60.0, 100, 1024)),
        (queue._CLAIM_OF[Kind.RETRY], ("dead7.test", 4, "a", 60.0, 100, 1024)),
        (queue._PUT_OFF_OF[Kind.RETRY], ("dead7.test", 60.0, 60.0, "", "", 100)),
    ]
    async with house.store.driver("test") as conn:
        for statement, values in asked:
            plan = "\n".join(line for (line,) in await conn.fetch(f"EXPLAIN {statement}", *values))
            assert "Seq Scan on spool" not in plan, plan


_SIXTEEN = "'{{{}}}', '{{{}}}'".format(",".join(f"s{g}" for g in range(1, 17)), ",".join("0" * 16))


_DOMAINS = "'{{{}}}'".format(",".join(["busy.test"] * 16))
_SIXTEEN_TO_BUSY = f"{_SIXTEEN.partition(', ')[0]}, {_DOMAINS}"


@pytest.mark.parametrize("before", ["empty", "full of others"])
@pytest.mark.parametrize(
    ("statement", "values", "attempts", "most"),
    [
        (queue._OFFERED, _SIXTEEN.partition(", ")[0], 0, 1000),
        (queue._CLAIM_THESE, f"{_SIXTEEN_TO_BUSY}, 'a', 60, 100, 1024", 0, 2000),
        (queue._CLAIM_OF[Kind.FRESH], "'busy.test', 16, 'a', 60, 100, 1024", 0, 2000),
        (queue._CLAIM_OF[Kind.RETRY], "'busy.test', 16, 'a', 60, 100, 1024", 1, 2000),
        (queue._PUT_OFF_OF[Kind.FRESH], "'busy.test', 60, 60, '', '', 1000", 0, 60_000),
        (queue._PUT_OFF_OF[Kind.RETRY], "'busy.test', 60, 60, '', '', 1000", 1, 60_000),
        (spool._FINISH, _SIXTEEN, 0, 2000),
        (spool._DUE_LOCAL, _SIXTEEN.partition(", ")[0], 0, 1000),
    ],
    ids=["offered", "claim these", "claim fresh", "claim retry", "put off fresh", "put off retry", "finish", "local"],
)
async def test_a_burst_is_read_by_plans_made_before_it(
    house: House, statement: str, values: str, attempts: int, most: int, before: str
) -> None:
    """To look at all of it for each letter would be millions of rows: nothing is read but what is asked for."""
    local = "1" if statement == spool._DUE_LOCAL else "NULL"
    async with house.store.driver("test") as conn:
        if before != "empty":
            await _fill(conn, "x", "x@others.test", 1 - attempts, "NULL" if local == "1" else "1")
        await conn.execute("VACUUM ANALYZE spool, spool_recipients")
        await conn.execute(f"PREPARE asked AS {statement}")
        await conn.execute(f"EXECUTE asked({values})")
        await _fill(conn, "s", "x@busy.test", attempts, local)
        explained = await conn.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE asked({values})")
        await conn.execute("DEALLOCATE asked")
    plan = json.loads(explained)[0]["Plan"]
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < most, explained


async def _fill(conn: Driver, prefix: str, address: str, attempts: int, account_id: str) -> None:
    await conn.execute(
        "INSERT INTO spool (spool_id, blob_id, prefix, size, sender, door)"
        " SELECT $1 || g, ''::bytea, ''::bytea, 1, 'a@b', 'mx' FROM generate_series(1, 2000) g",
        prefix,
    )
    await conn.execute(
        "INSERT INTO spool_recipients (spool_id, n, address, attempts, notice_at, account_id)"
        f" SELECT $1 || g, 0, $2, $3, now() + interval '1 hour', {account_id} FROM generate_series(1, 2000) g",
        prefix,
        address,
        attempts,
    )
