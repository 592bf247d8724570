"""One POP session: who is logged in, which state it is in, what it holds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from services.contracts.v1.mail_pb2 import Changed
from services.core.auth.authenticator import Authenticator
from services.core.auth.login import AuthFailed, Client, Login
from services.core.auth.sasl import offered
from services.core.bus import changed as changed_subject
from services.core.directory import Hints
from services.core.ids import AccountId, Uid
from services.core.store import messages, numbers
from services.core.store.engine import Store
from services.core.store.locks import AccountLocks
from services.pop import queries
from services.pop.ahead import Ahead
from services.pop.maildrop import Body, Maildrop, NoSuchMessage

# A client whose connection broke comes back faster than its old session notices.
_PATIENCE_S = (0.05, 0.1, 0.2)


class State(Enum):
    """RFC 1939 3. UPDATE is not a state to be in: QUIT does it and ends the session."""

    AUTHORIZATION = auto()
    TRANSACTION = auto()


class InUse(Exception):
    """Another session has the maildrop."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all sessions of a process use."""

    store: Store
    bus: Hints
    locks: AccountLocks
    authenticator: Authenticator
    plaintext_auth: bool = False


@dataclass(slots=True)
class Session:
    """One connection's session. `ask` sends a challenge and returns the client's answer, decoded."""

    shared: Shared
    client: Client
    ask: Callable[[bytes], Awaitable[bytes]]
    tls: bool = False
    stls: bool = False  # STLS is offered as long as `tls` is not on
    username: str = ""
    login: Login | None = None
    drop: Maildrop | None = None
    ahead: Ahead | None = None
    begins_tls: bool = False  # the reply just given promises a handshake
    over: bool = False
    served: int = 0  # messages and octets that RETR and TOP gave
    served_octets: int = 0
    deleted: int = 0

    @property
    def state(self) -> State:
        """Where it is."""
        return State.TRANSACTION if self.drop is not None else State.AUTHORIZATION

    @property
    def maildrop(self) -> Maildrop:
        """The maildrop; only in TRANSACTION."""
        if self.drop is None:
            raise NoSuchMessage
        return self.drop

    def mechanisms(self) -> tuple[str, ...]:
        """SASL mechanisms offered now; empty: TLS first."""
        return offered(tls=self.tls, plaintext_auth=self.shared.plaintext_auth)

    def secured(self) -> None:
        """TLS is on: what was said before it counts for nothing (RFC 2595 4)."""
        self.tls, self.begins_tls, self.username = True, False, ""

    async def enter(self, login: Login) -> None:
        """Lock the maildrop and look at it; on failure nothing is held. Raises `InUse`, `AuthFailed`,
        `StoreUnavailable`.
        """
        await self._lock(login.account_id)
        try:
            inbox = await queries.inbox(self.shared.store, login.account_id)
            if inbox is None:
                raise AuthFailed("the account has been deleted")
        except BaseException:
            await self.shared.locks.release(login.account_id)
            raise
        self.login, self.drop = login, Maildrop(inbox)
        self.ahead = Ahead(self.drop, self._read)

    async def body(self, number: int) -> Body:
        """The message; raises `NoSuchMessage`, also when another session expunged it, and `StoreUnavailable`."""
        if self.ahead is None:
            raise NoSuchMessage(number)
        return await self.ahead.body(number)

    async def _read(self, uids: Sequence[Uid]) -> dict[Uid, Body]:
        if self.login is None or self.drop is None:
            return {}
        account, fid = self.login.account_id, self.drop.inbox.fid
        return await queries.bodies(self.shared.store, account, fid, uids)

    async def _lock(self, account_id: AccountId) -> None:
        for pause_s in _PATIENCE_S:
            if await self.shared.locks.acquire(account_id):
                return
            await asyncio.sleep(pause_s)
        if not await self.shared.locks.acquire(account_id):
            raise InUse

    async def update(self) -> int:
        """Expunge what is marked, in one transaction, and tell the other readers; returns how many. RFC 1939 6."""
        if self.drop is None or self.login is None or not (uids := self.drop.marked()):
            return 0
        account, fid = self.login.account_id, self.drop.inbox.fid
        try:
            async with self.shared.store.begin("pop.update") as conn:
                gone = await messages.expunge(conn, account, fid, uids)
        except numbers.NoSuchAccount:
            return 0  # the account was deleted meanwhile, and its mail with it
        if gone:
            self.shared.bus.publish_hint(
                changed_subject(account), Changed(account_id=account, fid=fid, cn=max(g.cn for g in gone))
            )
        self.deleted = len(gone)
        return len(gone)

    async def close(self) -> None:
        """Let the maildrop go. Nothing is expunged here."""
        if self.login is None or self.drop is None:
            return
        login, ahead, self.ahead, self.drop = self.login, self.ahead, None, None
        try:
            if ahead is not None:
                await ahead.stop()
        finally:
            await self.shared.locks.release(login.account_id)
