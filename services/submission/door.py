"""The submission door: logins, whose addresses they may use, and the way in."""

from __future__ import annotations

from datetime import datetime

from services.contracts.v1.mail_pb2 import Verdict
from services.core.address import Address
from services.core.auth.authenticator import Authenticator
from services.core.auth.dialogue import authenticate
from services.core.auth.login import (
    AuthError,
    AuthThrottled,
    AuthUnavailable,
    Client,
    ExchangeBroken,
    Login,
    MechanismUnknown,
)
from services.core.auth.sasl import offered
from services.core.directory import Directory
from services.core.ids import SpoolId
from services.core.intake import Intake
from services.core.smtp import replies
from services.core.smtp.hooks import Ask, Refused, TryLater
from services.core.smtp.replies import Reply
from services.core.smtp.session import Recipient, Sender, Session
from services.core.store.engine import StoreUnavailable
from services.submission import policy
from services.submission.allowance import Allowance
from services.submission.stamp import missing

# Domain errors in the door's words: the one table. Order matters, the general one comes last.
_AUTH_REPLIES: tuple[tuple[type[AuthError], Reply], ...] = (
    (MechanismUnknown, replies.AUTH_UNKNOWN),
    (ExchangeBroken, replies.AUTH_FAILED),
    (AuthThrottled, replies.AUTH_TRY_LATER),
    (AuthUnavailable, replies.AUTH_TRY_LATER),
    (AuthError, replies.AUTH_FAILED),
)


class Door:
    """Hooks of the submission listeners."""

    def __init__(
        self, authenticator: Authenticator, directory: Directory, intake: Intake, allowance: Allowance, *, host: str,
        plaintext_auth: bool, require_known_from: bool,
    ) -> None:  # fmt: skip
        self._authenticator, self._directory, self._intake = authenticator, directory, intake
        self._allowance = allowance
        self._host, self._plaintext_auth, self._require_known_from = host, plaintext_auth, require_known_from

    async def connect(self, session: Session) -> Reply | None:
        return None

    async def helo(self, session: Session, name: str) -> Reply | None:
        return None

    def mechanisms(self, session: Session) -> tuple[str, ...]:
        return offered(tls=session.tls is not None, plaintext_auth=self._plaintext_auth)

    async def authenticate(self, session: Session, mechanism: str, initial: bytes | None, ask: Ask) -> Reply:
        client = Client(session.peer.host, "submission")
        try:
            session.login = await authenticate(self._authenticator, mechanism, initial, ask, client)
        except AuthError as error:
            return next(reply for kind, reply in _AUTH_REPLIES if isinstance(error, kind))
        return replies.AUTH_OK

    async def mail(self, session: Session, sender: Sender) -> Reply | None:
        login = _login(session)
        await self._allowance.ask(login)
        # A null reverse-path is allowed: programs send disposition notifications with it (RFC 8098 3).
        if sender.mailbox is not None and not await self._owns(login, sender.mailbox):
            return replies.SENDER_NOT_YOURS
        return None

    async def rcpt(self, session: Session, recipient: Recipient) -> Reply | None:
        _login(session)  # whoever has none is no user of ours, and mail for other domains goes out for users alone
        await self._intake.recipient(session, recipient)
        return None

    async def data(self, session: Session, message: bytes) -> Reply:
        login = _login(session)
        try:
            letter = policy.read(message)
        except policy.NotSent as error:
            return replies.NOT_ACCEPTED.saying(str(error))
        if self._require_known_from:
            for author in letter.authors:
                if not await self._owns(login, author):
                    return replies.FROM_NOT_YOURS

        def stamp(spool_id: SpoolId, now: datetime) -> bytes:
            return missing(letter, now, spool_id, self._host)

        async def hear(verdict: Verdict) -> None:
            await self._allowance.hear(login, verdict)

        recipients = len(session.transaction.recipients) if session.transaction is not None else 0
        await self._allowance.charge(login, recipients)
        reply = await self._intake.take(session, message, login=login, stamp=stamp, hear=hear)
        if not reply.positive and not reply.permanent:
            await self._allowance.refund(login, recipients)
        return reply

    async def disconnect(self, session: Session) -> None:
        return None

    async def _owns(self, login: Login, address: Address) -> bool:
        try:
            return await self._directory.may_send_as(login.account_id, address)
        except StoreUnavailable as error:
            raise TryLater(replies.DIRECTORY_GONE) from error


def _login(session: Session) -> Login:
    if not isinstance(session.login, Login):
        raise Refused(replies.AUTH_REQUIRED)
    return session.login
