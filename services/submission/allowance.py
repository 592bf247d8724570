"""What an account may send, and what happens to one that suddenly sends what nobody would.

Counted in Postgres, so any number of doors count together. Of those that find an account out at the same moment one
pauses it, and its commit keeps the one mail that tells of it.
"""

from __future__ import annotations

from datetime import UTC, datetime

from services.contracts.v1.mail_pb2 import DirectoryChanged, Verdict
from services.core.auth.login import Login
from services.core.bus import Bus, directory_changed
from services.core.cache import Cache
from services.core.directory import announce
from services.core.ids import AccountId, new_spool_id
from services.core.ownmail import OwnMail
from services.core.settings import Settings
from services.core.smtp import replies
from services.core.smtp.hooks import Refused, TryLater
from services.core.spool import TICKET_LOST_S
from services.core.store import sending
from services.core.store.engine import Store, StoreUnavailable
from services.core.store.sending import PAUSED, Limits, NotThere, State
from services.core.telemetry import Logger, Metrics
from services.submission import outbreak

_SIZE, _TTL_S = 50_000, 60.0


class Allowance:
    """One per process."""

    def __init__(
        self, store: Store, bus: Bus, mail: OwnMail, settings: Settings, log: Logger, metrics: Metrics
    ) -> None:
        self._store, self._bus, self._mail, self._log = store, bus, mail, log
        self._host, self._junk_score, self._set = settings.hostname, settings.filter.junk_score, settings.submission
        self._limits = Limits(self._set.recipients_per_hour, self._set.recipients_per_day)
        self._states: Cache[AccountId, State] = Cache(_SIZE, _TTL_S)
        self._paused = metrics.counter("accounts_paused", "Accounts paused for sending, by why.", ["cause"])
        self._over = metrics.counter("messages_over_limit", "Messages put off because their account sent too much.")

    async def start(self) -> None:
        """Listen for changes; to be awaited once before the first question."""
        await self._bus.subscribe_hint(directory_changed(), DirectoryChanged, self._changed)

    async def ask(self, login: Login) -> None:
        """At MAIL: raises `Refused` for an account that is paused, `TryLater` where the store is away."""
        if (await self._state(login)).sending == PAUSED:
            raise Refused(replies.SENDING_PAUSED)

    async def charge(self, login: Login, recipients: int) -> None:
        """At DATA: count the message. Raises `TryLater` past a limit and `Refused` for an account that is paused."""
        state = await self._state(login)
        own = Limits(
            self._limits.hour if state.hour is None else state.hour,
            self._limits.day if state.day is None else state.day,
        )
        if not (any(own) or self._set.pause_recipients or state.sending == PAUSED):
            return
        try:
            charged = await sending.charge(self._store, login.account_id, recipients, self._limits)
            if charged.sending == PAUSED:
                raise Refused(replies.SENDING_PAUSED)
            if 0 < self._set.pause_recipients < charged.tried:
                await self._pause(login, "recipients", f"it offered mail for {charged.tried} recipients in an hour")
                raise Refused(replies.SENDING_PAUSED)
        except StoreUnavailable as error:
            raise TryLater(replies.STORE_GONE) from error
        except NotThere:
            raise Refused(replies.SENDING_PAUSED) from None
        if not charged.fits:
            self._over.inc()
            if any(0 < limit < recipients for limit in charged.limits):
                raise Refused(replies.TOO_MANY_AT_ONCE)
            raise TryLater(replies.TOO_MUCH_SENT.about(f"try again after {charged.again_at:%d %b %H:%M} UTC"))

    async def refund(self, login: Login, recipients: int) -> None:
        """After a reply of 4xx to a message that was counted: it comes again, and is to count once."""
        try:
            await sending.refund(self._store, login.account_id, recipients)
        except StoreUnavailable as error:
            # The counts of a store that is away do not outlive it.
            self._log.warning("recipients not taken back", account=login.account_id, reason=str(error))

    async def hear(self, login: Login, verdict: Verdict) -> None:
        """Count what the filters found in a message of the account. Raises `StoreUnavailable`."""
        if not self._set.pause_bad or not outbreak.is_bad(verdict, self._junk_score):
            return
        count = await sending.bad(self._store, login.account_id)
        if count >= self._set.pause_bad:
            await self._pause(login, "content", f"{count} of its messages in an hour were spam or carried a virus")

    async def _pause(self, login: Login, cause: str, why: str) -> None:
        name, told = new_spool_id(), [login.address]
        for host in (login.address.rpartition("@")[2], self._host):
            if await self._mail.reaches(postmaster := f"postmaster@{host}"):
                told.append(postmaster)
                break
        octets = outbreak.notice(login.address, why, self._host, told, datetime.now(UTC), f"{name}@{self._host}")
        entry = await self._mail.entry(name, told, octets, smtputf8=not login.address.isascii())
        if await sending.pause(self._store, login.account_id, entry, TICKET_LOST_S):
            if entry is not None:
                self._mail.committed(entry)
            self._paused.labels(cause).inc()
            self._log.warning("account paused for sending", account=login.account_id, reason=why)
            await announce(self._bus, account_id=login.account_id)
        self._states.forget(lambda account_id, _: account_id == login.account_id)

    async def _state(self, login: Login) -> State:
        try:
            return await self._states.get(login.account_id, lambda: sending.state(self._store, login.account_id))
        except StoreUnavailable as error:
            raise TryLater(replies.STORE_GONE) from error
        except NotThere:
            raise Refused(replies.SENDING_PAUSED) from None

    def _changed(self, hint: DirectoryChanged) -> None:
        one = hint.account_id
        self._states.forget((lambda account_id, _: account_id == one) if one else None)
