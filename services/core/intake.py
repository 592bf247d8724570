"""What both doors do: route each recipient, then stage, scan and accept the message - or say why not."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from services.contracts.v1 import mail_pb2 as pb
from services.core import held
from services.core.auth.login import Login
from services.core.bus import Bus
from services.core.directory import Directory, Expanded, Local, NoSuchAccount, Remote, Suspended, Unknown
from services.core.ids import AccountId, SpoolId, new_spool_id
from services.core.mime.words import clean
from services.core.received import Hop, received, without_forged_results
from services.core.scan import ask
from services.core.smtp import replies, session
from services.core.smtp.hooks import Refused, TryLater
from services.core.smtp.replies import Reply
from services.core.spans import OFF, Facts, Spans
from services.core.spool import Spool, routed
from services.core.store.blobs import blob_id
from services.core.store.engine import StoreUnavailable
from services.core.store.quarantine import Held
from services.core.store.spool import Entry, Recipient
from services.core.telemetry import Logger, Metrics, tracing

Stamp = Callable[[SpoolId, datetime], bytes]
Hear = Callable[[pb.Verdict], Awaitable[None]]
Unless = Callable[[], Awaitable[Reply | None]]
_ACTIONS = pb.Verdict.Action


@dataclass(slots=True)
class _Ways:
    """Where the recipients of a transaction lead, kept with it."""

    routes: dict[tuple[AccountId | None, str], Recipient] = field(default_factory=dict)
    quotas: dict[AccountId, int] = field(default_factory=dict)  # of the accounts among them that have one


class Intake:
    """One per door process."""

    def __init__(
        self,
        spool: Spool,
        bus: Bus,
        directory: Directory,
        log: Logger,
        metrics: Metrics,
        *,
        door: str,
        host: str,
        deadline_s: float,
        spans: Spans = OFF,
    ) -> None:
        """`door`: the service's name; `host`: the name in Received; `deadline_s`: how long a verdict may take."""
        self._spool, self._bus, self._directory, self._log = spool, bus, directory, log
        self._door, self._host, self._deadline_s, self._spans = door, host, deadline_s, spans
        self._answers = metrics.counter("messages", "Messages offered, by the code of the reply.", ["code"])
        self._seconds = metrics.histogram("message_seconds", "From the final dot to the reply.")

    async def recipient(
        self,
        talk: session.Session,
        recipient: session.Recipient,
        elsewhere: Reply | None = None,
        unless: Unless | None = None,
    ) -> None:
        """Route one RCPT and remember where to. `elsewhere`: what refuses recipients of other domains; None: welcome.

        `unless` is asked once it is known that mail could be delivered; what it replies refuses it all the same.

        Raises `Refused` or `TryLater`: refuse at the door what could not be delivered.
        """
        if talk.transaction is None:
            raise Refused(replies.MAIL_FIRST)
        notify = ",".join(sorted(recipient.notify)) or None
        try:
            targets = await self._targets(recipient, talk.transaction.size or 0, elsewhere)
            refusal = await unless() if unless is not None else None
        except StoreUnavailable as error:
            raise TryLater(replies.DIRECTORY_GONE) from error
        if refusal is not None:
            raise Refused(refusal) if refusal.permanent else TryLater(refusal)
        ways = _ways(talk.transaction)
        for target in targets:
            named = isinstance(target, Remote) and target.address == recipient.mailbox
            route = routed(target, notify, recipient.orcpt, None if named else recipient.mailbox.domain)
            if route.orcpt is None and route.address != recipient.address and recipient.mailbox.local.isascii():
                # RFC 3461 5.2.1: a notice names the address that the sender wrote, not only where it led.
                route = route._replace(orcpt=f"rfc822;{recipient.address}")
            ways.routes.setdefault((route.account_id, route.address), route)  # two aliases of one mailbox: one copy
            if isinstance(target, Local) and target.quota_octets is not None:
                ways.quotas[target.account_id] = target.quota_octets

    async def take(
        self,
        talk: session.Session,
        message: bytes,
        *,
        login: Login | None = None,
        stamp: Stamp = lambda _id, _now: b"",
        hear: Hear | None = None,
    ) -> Reply:
        """Decide about the message; a 250 means that it is committed (DESIGN: 250 means kept).

        `stamp` makes header lines of the door's own; `hear` is told the verdict before anything is kept. Never raises
        for a missing store, bus or filter: those answer 451 and keep nothing.
        """
        if talk.transaction is None:
            return replies.MAIL_FIRST
        start, began_ns = time.perf_counter(), self._spans.now()
        octets = without_forged_results(message, self._host)
        entry = self._entry(talk, talk.transaction, octets, login, stamp)
        message_id = _message_id(entry.prefix, octets)
        self._trace("received", entry, message_id, f"{len(message)} octets from {talk.peer.host}, {talk.protocol}")
        with tracing(entry.traceparent):
            try:
                refusal = await self._nobody_has_room(_ways(talk.transaction), len(entry.prefix) + len(octets))
                reply = refusal or await self._decide(entry, octets, talk, login, hear)
            except StoreUnavailable as error:
                self._log.error("store unavailable", spool_id=entry.spool_id, reason=str(error))
                reply = replies.STORE_GONE
        took = time.perf_counter() - start
        self._answers.labels(str(reply.code)).inc()
        self._seconds.observe(took, self._spans.exemplar(entry.traceparent))
        facts: Facts = {"posta.spool_id": entry.spool_id, "posta.octets": len(message), "smtp.code": reply.code}
        self._spans.first(entry.traceparent, f"{self._door} message", began_ns, facts)
        self._trace("accepted" if reply.positive else "refused", entry, message_id, str(reply), took)
        return reply

    async def _targets(
        self, recipient: session.Recipient, size: int, elsewhere: Reply | None
    ) -> tuple[Local | Remote, ...]:
        match await self._directory.resolve(recipient.mailbox):
            case Local(account_id=account_id, quota_octets=quota) as local:
                if quota is not None and (refusal := await self._no_room(account_id, quota, size)) is not None:
                    raise Refused(refusal) if refusal.permanent else TryLater(refusal)
                return (local,)
            case Expanded(targets=several):
                return several  # one full mailbox of several is delivery's to report, not the sender's to mend
            case Remote() as remote:
                if elsewhere is not None:
                    raise Refused(elsewhere)
                return (remote,)
            case Suspended():
                raise Refused(replies.RECIPIENT_DISABLED)
            case Unknown():
                raise Refused(replies.UNKNOWN_RECIPIENT)

    async def _no_room(self, account_id: AccountId, quota: int, size: int) -> Reply | None:
        """What is said of a mailbox that a message of that size does not fit into."""
        if size > quota:
            return replies.MAILBOX_NEVER_FITS
        try:
            room = await self._directory.room(account_id)
        except NoSuchAccount:
            return replies.UNKNOWN_RECIPIENT
        return replies.MAILBOX_FULL if room is not None and (room < size or room == 0) else None

    async def _nobody_has_room(self, ways: _Ways, size: int) -> Reply | None:
        """Refuse what fits nowhere, SIZE not given or not true; while one has room, delivery tells of the others."""
        refusal = None
        for account_id, _ in ways.routes:
            if account_id is None or account_id not in ways.quotas:
                return None
            if (refusal := await self._no_room(account_id, ways.quotas[account_id], size)) is None:
                return None
        return refusal

    def _entry(
        self, talk: session.Session, envelope: session.Transaction, octets: bytes, login: Login | None, stamp: Stamp
    ) -> Entry:
        spool_id, now = new_spool_id(), datetime.now(UTC)
        recipients = tuple(_ways(envelope).routes.values())
        hop = Hop(
            helo=talk.helo or "",
            address=talk.peer.host,
            host=self._host,
            spool_id=spool_id,
            at=now,
            tls=_tls(talk),
            protocol=talk.protocol,
            rdns=talk.rdns if talk.iprev == "pass" else "",
            recipient=recipients[0].address if len(recipients) == 1 else None,
        )
        return Entry(
            spool_id=spool_id,
            blob_id=blob_id(octets),
            prefix=received(hop) + stamp(spool_id, now),
            size=len(octets),
            sender=envelope.sender.address,
            sender_account_id=login.account_id if login else None,
            door=self._door,
            client=talk.peer.host,
            junk=False,
            recipients=recipients,
            ret=envelope.ret,
            envid=envelope.envid,
            smtputf8=envelope.smtputf8,
            traceparent=self._spans.begin().traceparent,
            requiretls=envelope.requiretls,
        )

    async def _decide(
        self, entry: Entry, octets: bytes, talk: session.Session, login: Login | None, hear: Hear | None
    ) -> Reply:
        began_ns = self._spans.now()
        await self._spool.stage(entry.blob_id, octets)
        self._spans.step(entry.traceparent, "spool stage", began_ns)
        verdict = await ask(self._bus, self._request(entry, talk, login), self._deadline_s)
        if hear is not None:
            await hear(verdict)
        if verdict.action == _ACTIONS.QUARANTINE:
            return await self._hold(entry, octets, verdict, login)
        if verdict.action not in (_ACTIONS.ACCEPT, _ACTIONS.JUNK):
            return Reply(verdict.code, verdict.enhanced, (verdict.text,))
        prefix, began_ns = verdict.headers + entry.prefix, self._spans.now()
        await self._spool.accept(
            entry._replace(prefix=prefix, size=len(prefix) + len(octets), junk=verdict.action == _ACTIONS.JUNK)
        )
        self._spans.step(entry.traceparent, "spool commit", began_ns)
        return replies.KEPT.saying(f"kept as {entry.spool_id}")

    def _request(self, entry: Entry, talk: session.Session, login: Login | None) -> pb.ScanRequest:
        return pb.ScanRequest(
            envelope=pb.Envelope(spool_id=entry.spool_id, traceparent=entry.traceparent),
            blob_id=entry.blob_id,
            size=entry.size,
            sender=entry.sender,
            recipients=[pb.Recipient(address=r.address, account_id=r.account_id or 0) for r in entry.recipients],
            client=pb.ClientFacts(
                address=talk.peer.host,
                helo=talk.helo or "",
                tls=_tls(talk),
                login=login.address if login else "",
                account_id=login.account_id if login else 0,
                door=self._door,
                rdns=talk.rdns,
                iprev=talk.iprev,
                host=self._host,
            ),
            deadline_ms=int(self._deadline_s * 1000),
        )

    async def _hold(self, entry: Entry, octets: bytes, verdict: pb.Verdict, login: Login | None) -> Reply:
        """Keep the message for review, then say so: a message is held in one commit, or the sender hears 451."""
        domains = held.concerned(
            ((r.address, r.account_id is not None) for r in entry.recipients), login.address if login else ""
        )
        policies = held.domain_policies(await self._spool.held_policies(domains), domains)
        accepted = held.accepted(policies, held.tellable(entry.sender, login is not None, verdict.findings))
        message_id = _message_id(entry.prefix, octets)
        head, size = held.letterhead(octets), len(verdict.headers) + len(entry.prefix) + len(octets)
        await self._spool.hold(
            Held(
                entry=entry._replace(size=size),
                headers=verdict.headers,
                accepted=accepted,
                notice_due=accepted and any(policy.notify_sender for policy in policies),
                kind=verdict.kind,
                reason=held.reason(verdict),
                score=verdict.score,
                findings=held.plain(verdict.findings),
                from_text=head.from_text,
                subject=head.subject,
                message_id=message_id,
                secret=os.urandom(16),
            )
        )
        self._trace("held", entry, message_id, f"{verdict.kind}: {held.reason(verdict)}, score {verdict.score:.1f}")
        if accepted:
            return replies.KEPT.saying(f"kept as {entry.spool_id}")
        refusal = Reply(verdict.code or 550, verdict.enhanced or "5.7.1", (verdict.text or "Message refused",))
        return refusal.saying(f"{refusal.lines[0]}; held for review, id {entry.spool_id}")

    def _trace(self, step: str, entry: Entry, message_id: str, detail: str, took_s: float = 0.0) -> None:
        self._bus.publish_trace(
            pb.TraceEvent(
                envelope=pb.Envelope(spool_id=entry.spool_id, traceparent=entry.traceparent),
                step=step,
                service=self._door,
                host=self._host,
                at_us=time.time_ns() // 1000,
                took_us=int(took_s * 1_000_000),
                sender=entry.sender,
                recipient=", ".join(r.address for r in entry.recipients[:10]),
                message_id=message_id,
                detail=detail,
            )
        )


def _ways(envelope: session.Transaction) -> _Ways:
    """Where the recipients so far lead."""
    if not isinstance(envelope.facts, _Ways):
        envelope.facts = _Ways()
    return envelope.facts


def _tls(talk: session.Session) -> str:
    return f"{talk.tls.version} {talk.tls.cipher}" if talk.tls else ""


_MESSAGE_ID = re.compile(rb"(?im)^message-id:\s*<?([^\s>]+)")


def _message_id(prefix: bytes, octets: bytes) -> str:
    """The Message-ID as its sender knows it; empty where there is none."""
    end = octets.find(b"\r\n\r\n")
    found = _MESSAGE_ID.search(prefix) or _MESSAGE_ID.search(octets, 0, end if end >= 0 else len(octets))
    return clean(found[1].decode("utf-8", "replace")[:998]) if found else ""
