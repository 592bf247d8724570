"""The MX door: mail for our domains from any server. One hook per stage; what is decided is decided in `policy`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from time import monotonic

from services.core.crowd import Pace
from services.core.dns import DnsUnavailable, NoSuchName
from services.core.ends import network_of
from services.core.intake import Intake
from services.core.smtp import replies
from services.core.smtp.hooks import Ask
from services.core.smtp.replies import Reply
from services.core.smtp.session import Recipient, Sender, Session
from services.mxrouter.greylist import Greylist
from services.mxrouter.policy import Facts, Rules, SenderDomain, goes_round, refusal
from services.mxrouter.reverse import Names, Reverse, reverse


@dataclass(slots=True)
class _Visit:
    """What is found out about the client while it talks; None for servers of our own, of whom nothing is asked."""

    reverse: asyncio.Task[Reverse] | None
    sender_domain: SenderDomain = SenderDomain.UNASKED


class Door:
    """Hooks of the MX listener."""

    def __init__(
        self,
        intake: Intake,
        names: Names,
        *,
        host: str,
        rules: Rules,
        exempt: Sequence[IPv4Network | IPv6Network] = (),
        greylist: Greylist | None = None,
        per_minute: int = 0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`per_minute`: messages that a client's network may send, 0: no limit."""
        self._intake, self._names, self._host, self._rules = intake, names, host, rules
        self._exempt, self._greylist = exempt, greylist
        self._pace, self._clock = Pace(per_minute), clock

    async def connect(self, session: Session) -> Reply | None:
        if self._is_exempt(session):
            session.facts = _Visit(None)
        else:
            # The greeting does not wait for it: the answer is there when it is needed.
            session.facts = _Visit(asyncio.create_task(reverse(self._names, session.peer.host), name="reverse"))
        return None

    async def helo(self, session: Session, name: str) -> Reply | None:
        return None

    def mechanisms(self, session: Session) -> tuple[str, ...]:
        return ()

    async def authenticate(self, session: Session, mechanism: str, initial: bytes | None, ask: Ask) -> Reply:
        return replies.AUTH_NOT_OFFERED

    async def mail(self, session: Session, sender: Sender) -> Reply | None:
        visit = _visit(session)
        if visit.reverse is not None and not self._pace.allows(network_of(session.peer.host), self._clock()):
            return replies.TOO_MANY_MESSAGES
        visit.sender_domain = SenderDomain.UNASKED
        if self._rules.sender_domain and visit.reverse is not None and sender.mailbox is not None:
            visit.sender_domain = await self._sender_domain(sender.mailbox.domain)
        return None

    async def rcpt(self, session: Session, recipient: Recipient) -> Reply | None:
        visit = _visit(session)
        if visit.reverse is None:
            await self._intake.recipient(session, recipient, replies.RELAY_DENIED)
            return None
        iprev = (await visit.reverse).result if self._rules.rdns else ""
        facts = Facts(session.helo or "", iprev, visit.sender_domain, recipient.mailbox.local)
        if (refused := refusal(facts, self._rules, self._host)) is not None:
            return refused
        await self._intake.recipient(
            session, recipient, replies.RELAY_DENIED, unless=lambda: self._too_early(session, recipient)
        )
        return None

    async def data(self, session: Session, message: bytes) -> Reply:
        if goes_round(message, self._host):
            return replies.LOOP
        found = _visit(session).reverse
        session.rdns, session.iprev = await found if found is not None else Reverse()
        return await self._intake.take(session, message)

    async def disconnect(self, session: Session) -> None:
        found = _visit(session).reverse
        if found is not None:
            found.cancel()

    def _is_exempt(self, session: Session) -> bool:
        try:
            address = ip_address(session.peer.host)
        except ValueError:
            return False
        return any(address in network for network in self._exempt)

    async def _too_early(self, session: Session, recipient: Recipient) -> Reply | None:
        if self._greylist is None or session.transaction is None:
            return None
        return await self._greylist.refusal(session.peer.host, session.transaction.sender.address, recipient.address)

    async def _sender_domain(self, domain: str) -> SenderDomain:
        if domain.startswith("["):
            return SenderDomain.TAKES_MAIL
        try:
            exchanges = (await self._names.query(domain, "MX")).records
            if exchanges:
                # RFC 7505 3: one record, of the root.
                none = len(exchanges) == 1 and exchanges[0].to_text().split()[-1] == "."
                return SenderDomain.TAKES_NONE if none else SenderDomain.TAKES_MAIL
            for kind in ("A", "AAAA"):
                if (await self._names.query(domain, kind)).records:
                    return SenderDomain.TAKES_MAIL
        except NoSuchName:
            return SenderDomain.UNKNOWN
        except DnsUnavailable:
            return SenderDomain.NO_ANSWER
        return SenderDomain.UNKNOWN


def _visit(session: Session) -> _Visit:
    if not isinstance(session.facts, _Visit):
        session.facts = _Visit(None)
    return session.facts
