"""What follows from the outcomes of an attempt."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from services.core.ids import BlobId, SpoolId
from services.mxrouter.carriage import Fate, Outcome
from services.mxrouter.plan import Plan, plan, said
from services.mxrouter.queue import Claim, Waiting
from services.mxrouter.schedule import Patience

THEN = datetime(2026, 11, 25, 12, tzinfo=UTC)
PATIENCE = Patience(timedelta(hours=4), timedelta(days=5))
SENT = Outcome(Fate.SENT, 250, "2.0.0", "Queued", "mx.far.test")
DSN = SENT._replace(relayed_dsn=True)
LATER = Outcome(Fate.LATER, 450, "4.2.0", "Greylisted", "mx.far.test")
FAILED = Outcome(Fate.FAILED, 550, "5.1.1", "No such user", "mx.far.test")


def decide(*outcomes: Outcome, after_h: float = 0, notify: str | None = None, sender: str = "alice@posta.test") -> Plan:
    waiting = tuple(Waiting(n, f"r{n}@far.test", notify, f"rfc822;o{n}", 1, THEN, None) for n in range(len(outcomes)))
    claim = Claim(
        SpoolId("s"),
        "far.test",
        BlobId(b""),
        b"",
        sender,
        None,
        "mxrouter",
        None,
        None,
        False,
        False,
        THEN,
        THEN,
        "",
        0,
        waiting,
    )
    return plan(claim, outcomes, THEN + timedelta(hours=after_h), PATIENCE, 0)


def told(made: Plan) -> list[list[tuple[str, str, str]]]:
    return [[(r.recipient, r.action, r.status) for r in notice] for notice in made.told]


def test_each_recipient_for_itself() -> None:
    made = decide(SENT, LATER, FAILED, FAILED)
    assert [s.recipient.n for s in made.sent] == [0]
    assert [(each.recipient.n, each.again.wait_s) for each in made.later] == [(1, 150)]
    assert [s.recipient.n for s in made.failed] == [2, 3]
    assert told(made) == [[("r2@far.test", "failed", "5.1.1"), ("r3@far.test", "failed", "5.1.1")]]
    assert made.told[0][0].diagnostic == "550 5.1.1 No such user"
    assert (made.told[0][0].remote, made.told[0][0].orcpt) == ("mx.far.test", "rfc822;o2")


def test_success_is_told_where_the_next_hop_will_not() -> None:
    assert told(decide(SENT)) == []
    assert told(decide(SENT, notify="SUCCESS,FAILURE")) == [[("r0@far.test", "relayed", "2.0.0")]]
    assert told(decide(DSN, notify="SUCCESS,FAILURE")) == []
    assert told(decide(SENT, notify="NEVER")) == []


def test_a_warning_after_four_hours_says_until_when() -> None:
    assert told(decide(LATER, after_h=3)) == []
    made = decide(LATER, after_h=4)
    assert told(made) == [[("r0@far.test", "delayed", "4.2.0")]]
    assert made.told[0][0].retry_until == THEN + timedelta(days=5)
    assert told(decide(LATER, after_h=4, notify="FAILURE")) == []
    assert told(decide(LATER, after_h=4, notify="DELAY")) == told(made)


def test_after_five_days_what_was_to_come_later_has_failed() -> None:
    made = decide(LATER, after_h=120)
    assert made.later == ()
    assert told(made) == [[("r0@far.test", "failed", "4.4.7")]]
    assert made.told[0][0].diagnostic == "450 4.2.0 Greylisted"


def test_nothing_is_told_of_a_message_with_a_null_sender() -> None:
    made = decide(FAILED, LATER, SENT, after_h=200, sender="", notify="SUCCESS,FAILURE,DELAY")
    assert told(made) == []
    assert len(made.failed) == 2


def test_trouble_of_several_kinds_is_told_by_kind() -> None:
    made = decide(FAILED, LATER, SENT, after_h=5, notify="SUCCESS,FAILURE,DELAY")
    assert [[action for _, action, _ in notice] for notice in told(made)] == [["failed"], ["delayed"], ["relayed"]]


def test_an_outcome_in_one_line() -> None:
    assert said(FAILED) == "550 5.1.1 No such user"
    assert said(FAILED._replace(enhanced="")) == "550 No such user"
