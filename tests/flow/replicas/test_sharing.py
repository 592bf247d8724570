"""Two processes of every service are one service: news crosses between them, work is shared, either may be killed."""

from __future__ import annotations

import poplib
import threading
from typing import Any

import pytest

from services.dev.plan import SERVICES
from tests.flow.clients import Imap, arrived, drop, letter, message_id, offer, submission, submit
from tests.flow.replicas.conftest import mx
from tests.flow.test_kill import BACK_S, Books, Session, names, once

pytestmark = pytest.mark.timeout(300)  # a platform of two of each starts

SENDERS = 4
BETWEEN = 25  # messages accepted from one kill to the next


@pytest.fixture
def carol(doubled: Any) -> Any:
    return doubled.add_user()


def put(platform: Any, user: Any) -> bytes:
    """A message from `user` to itself, delivered."""
    message = letter(user.address, user.address)
    assert submit(platform, user, user.address, message)[0] == 250
    arrived(platform, user, message_id(message))
    return message


def test_what_one_imap_process_does_the_other_one_tells(doubled: Any, carol: Any) -> None:
    put(doubled, carol)
    here, there = doubled.apart("imap", lambda: Imap(doubled, carol))
    with here, there:
        for actor, watcher in ((here, there), (there, here)):
            watcher.idle()
            actor.command("STORE 1 +FLAGS (\\Flagged)")
            watcher.heard(rb"1 FETCH \(.*\\Flagged")
            actor.command("STORE 1 -FLAGS (\\Flagged)")
            watcher.heard(rb"1 FETCH \((?!.*Flagged)")
            watcher.done()
        there.idle()
        assert submit(doubled, carol, carol.address, letter(carol.address, carol.address))[0] == 250
        there.heard(rb"2 EXISTS")
        here.command("STORE 1 +FLAGS (\\Deleted)")
        here.command("EXPUNGE")
        there.heard(rb"1 EXPUNGE")
        there.done()
        assert there.exists() == 1


def test_what_is_deleted_by_pop_leaves_every_imap_process(doubled: Any, carol: Any) -> None:
    put(doubled, carol)
    kept = put(doubled, carol)
    here, there = doubled.apart("imap", lambda: Imap(doubled, carol))
    with here, there:
        for each in (here, there):
            each.idle()
        pop = drop(doubled, carol)
        pop.dele(1)
        pop.quit()
        for each in (here, there):
            each.heard(rb"1 EXPUNGE")
            each.done()
            assert each.fetch(1).endswith(kept)


def test_a_maildrop_that_one_pop_process_has_is_in_use_at_the_other(doubled: Any, carol: Any) -> None:
    def connect() -> poplib.POP3_SSL:
        return poplib.POP3_SSL("localhost", doubled.ports["pop3s"], timeout=60, context=doubled.tls())

    one, another = doubled.apart("pop", connect)
    for each in (one, another):
        each.user(carol.address)
    one.pass_(carol.password)
    with pytest.raises(poplib.error_proto, match="IN-USE"):
        another.pass_(carol.password)
    one.quit()
    another.close()


DONE_BY = {
    "submission": "posta_submission_messages_total",
    "mxrouter": "posta_mxrouter_messages_total",
    "filter": "posta_filter_scans_total",
    "delivery": "posta_delivery_recipients_delivered_total",
}


def test_work_is_shared(doubled: Any, carol: Any) -> None:
    def idle() -> set[str]:
        return {
            f"{service}-{number}"
            for service, metric in DONE_BY.items()
            for number in (1, 2)
            if not doubled.counted(f"{service}-{number}", metric)
        }

    clients = [
        *doubled.apart("submission", lambda: submission(doubled, carol)),
        *doubled.apart("mxrouter", lambda: mx(doubled)),
    ]
    # Who asks the bus for work is given some in turn, so a few rounds are many.
    for _ in range(20):
        for client in clients:
            assert offer(client, carol.address, [carol.address], letter(carol.address, carol.address))[0] == 250
        if not idle():
            break
    doubled.eventually("every process has done some of the work", lambda: not idle())
    for client in clients:
        client.close()


def test_one_process_of_each_service_is_killed_under_load(doubled: Any, carol: Any) -> None:
    books, enough = Books(carol), threading.Event()
    sessions = [Session(doubled, books, by_mx=n % 2 == 1) for n in range(SENDERS)]

    def work(session: Session) -> None:
        # A few of a connection: new ones find their way to whichever process there is.
        while not enough.is_set():
            session.send_all(5)

    senders = [threading.Thread(target=work, args=(session,)) for session in sessions]
    for each in senders:
        each.start()
    try:
        for turn, service in enumerate(SERVICES):
            wanted = len(books.accepted) + BETWEEN
            doubled.eventually("mail is accepted", lambda wanted=wanted: len(books.accepted) >= wanted, BACK_S)
            doubled.kill(f"{service.name}-{turn % 2 + 1}")
    finally:
        enough.set()
        for each in senders:
            each.join(BACK_S + 30)

    for turn, service in enumerate(SERVICES):
        doubled.until_ready(f"{service.name}-{turn % 2 + 1}")
    assert not books.wrong, books.wrong[:3]
    assert len(books.cut) <= SENDERS * 2, "only what a door that was killed had in hand"
    doubled.eventually(
        "all that was accepted is there", lambda: len(names(doubled, books)) >= len(books.accepted), BACK_S
    )
    once(doubled, books)
