"""From an address to a connection that is ready for mail: greeting, EHLO, TLS, login."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, replace

from services.mxrouter import dialogue, envelope
from services.mxrouter.carriage import Fate, Outcome, Smarthost
from services.mxrouter.dialogue import Broken, Declined, Peer
from services.mxrouter.link import Link, Patience, TlsFailed
from services.mxrouter.security import Demand, Level, Security


class Missed(Exception):
    """This address cannot be used now. `spoke`: the server said so itself."""

    def __init__(self, outcome: Outcome, spoke: bool = False) -> None:
        super().__init__(outcome.text)
        self.outcome, self.spoke = outcome, spoke


@dataclass(frozen=True, slots=True)
class Door:
    """One address of one host, for the mail of one domain."""

    domain: str
    host: str
    address: str
    port: int
    demand: Demand
    smarthost: Smarthost | None = None


@dataclass(frozen=True, slots=True)
class Opener:
    """Opens connections under our name."""

    hostname: str
    security: Security
    patience: Patience
    without: Collection[str] = ()

    async def open(self, door: Door) -> Link:
        """A connection that has said EHLO and is as safe as was demanded. Raises Missed."""
        link, refused = await self._attempt(door, tls=True)
        if refused is None:
            return link
        if door.demand.level > Level.MAY and not door.demand.testing:
            text = f"TLS with {door.host}: {refused}"
            raise Missed(envelope.later("4.7.5", text, door.host, unreachable=True))
        # Clear text, or a certificate nobody vouches for, is what it would have been without our asking.
        relaxed = replace(door, demand=Demand(Level.MAY, door.demand.names, waived=door.demand.waived))
        if door.demand.testing:
            link, refused = await self._attempt(relaxed, tls=True, counted=True)
        return link if refused is None else (await self._attempt(relaxed, tls=False))[0]

    async def _attempt(self, door: Door, tls: bool, counted: bool = False) -> tuple[Link, TlsFailed | None]:
        """A link, or why TLS came to nothing on one that is cut by then. Raises Missed.

        `counted`: the tally has this attempt already.
        """
        link = await self._connect(door)
        demand, security = door.demand, self.security
        try:
            secured = await self._greet(link, door, tls)
            if door.smarthost is not None and door.smarthost.username:
                await link.perform(dialogue.login(link.peer, door.smarthost.username, door.smarthost.password))
        except Declined as declined:
            link.abort()
            raise Missed(_declined(declined, door.host), spoke=True) from declined
        except Broken as broken:
            link.abort()
            raise Missed(envelope.later("4.4.2", str(broken), door.host, unreachable=True)) from broken
        except TlsFailed as error:
            link.abort()
            if not counted:
                security.count(door.domain, door.host, demand, error.result)
            return link, error
        except BaseException:
            link.abort()
            raise
        if secured:
            link.trusted = demand.level >= Level.PKIX
            security.count(door.domain, door.host, demand)
        return link, None

    async def _connect(self, door: Door) -> Link:
        where = f"{door.host} ({door.address}:{door.port})"
        try:
            async with asyncio.timeout(self.patience.connect_s):
                _, link = await asyncio.get_running_loop().create_connection(
                    lambda: Link(door.host, self.patience), door.address, door.port
                )
        except TimeoutError as error:
            text = f"{where} does not answer within {self.patience.connect_s:g} s"
            raise Missed(envelope.later("4.4.1", text, unreachable=True)) from error
        except OSError as error:
            text = f"{where} cannot be reached: {error.strerror or error}"
            raise Missed(envelope.later("4.4.1", text, unreachable=True)) from error
        return link

    async def _greet(self, link: Link, door: Door, tls: bool) -> bool:
        """Greeting, EHLO and TLS; whether TLS is on. Raises Declined, Broken, TlsFailed."""
        implicit = door.smarthost is not None and door.smarthost.implicit_tls
        if implicit:
            await self._secure(link, door)
        await link.perform(dialogue.greeting())
        link.peer = await self._hello(link)
        if implicit or not tls:
            return implicit
        if not link.peer.offers("STARTTLS"):
            return self._in_the_clear(door, "the server does not offer it")
        if not await link.perform(dialogue.start_tls()):
            # RFC 3207 4: 454 is "not now"; the session goes on as if it had never been offered.
            return self._in_the_clear(door, "the server offers it and refuses it")
        await self._secure(link, door)
        link.peer = await self._hello(link)  # RFC 3207 4.2: what was said in the clear is forgotten
        return True

    def _in_the_clear(self, door: Door, why: str) -> bool:
        if door.demand.level > Level.MAY:
            raise TlsFailed("starttls-not-supported", why)
        self.security.count(door.domain, door.host, door.demand, "starttls-not-supported")
        return False

    async def _hello(self, link: Link) -> Peer:
        return await link.perform(dialogue.hello(self.hostname, self.without))

    async def _secure(self, link: Link, door: Door) -> None:
        tls = await link.secure(self.security.context(door.demand.level), door.demand.names[0])
        self.security.judge(door.demand, tls)


def _declined(declined: Declined, host: str) -> Outcome:
    reply = declined.reply
    # Whoever does not let us in has said nothing about the mail: its 5xx too may be another tomorrow, and another
    # host's may differ. So does a Postfix before us (smtp_skip_5xx_greeting, smtp_sasl_auth_soft_bounce).
    enhanced = f"4{reply.enhanced[1:]}" if reply.enhanced else "4.0.0"
    return Outcome(Fate.LATER, reply.code, enhanced, f"{declined.stage.value}: {reply.text}", host, unreachable=True)
