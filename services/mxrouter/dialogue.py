"""The client's side of SMTP, without a socket: replies in, commands out. Pure.

What a client does is an *act*: a generator that yields what to say and which replies it then waits for, is sent those
replies, and returns what came of it. `Exchange` runs one act over what `Replies` makes of the peer's octets; whoever
has the socket writes `take()`, feeds what it reads, waits as long as `stage` may take, and calls `fail` when the
connection does not go on. An act sees that as `Broken`, which is the only thing a peer can make it raise besides
`Declined`.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Collection, Generator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

from services.mxrouter.heard import NotSmtp, Replies, Reply

T = TypeVar("T")

_NOT_KNOWN: Final = frozenset({500, 501, 502, 503, 504})  # whoever says 5xx of another kind means us, not the command
_OLD_AUTH = re.compile(r"(?i)\Aauth=")


class Stage(Enum):
    """What a reply is awaited to; the value says it to a person."""

    GREETING = "the greeting"
    EHLO = "EHLO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    RSET = "RSET"
    MAIL = "MAIL FROM"
    RCPT = "RCPT TO"
    DATA = "DATA"
    MESSAGE = "the message"
    QUIT = "QUIT"


class Broken(Exception):
    """The conversation cannot go on: the connection is gone, the peer too slow, or it does not speak SMTP.

    `heard`: the replies of the unfinished group that came before. `unsent`: not all of what was said last had left
    this machine, so the peer cannot have acted on its end.
    """

    def __init__(self, why: str, heard: tuple[Reply, ...] = (), unsent: bool = False) -> None:
        super().__init__(why)
        self.heard, self.unsent = heard, unsent


class Declined(Exception):
    """The server does not want to talk to us; its words are in `reply`."""

    def __init__(self, stage: Stage, reply: Reply) -> None:
        super().__init__(f"{stage.value}: {reply.code} {reply.text}")
        self.stage, self.reply = stage, reply


class Say(NamedTuple):
    """Octets to send, in parts, and what the replies that are awaited answer, in order."""

    parts: tuple[bytes, ...]
    awaiting: tuple[Stage, ...]


Act: TypeAlias = Generator[Say, tuple[Reply, ...], T]


class Exchange(Generic[T]):
    """One act on its way, over the replies of one connection."""

    __slots__ = ("_act", "_awaiting", "_heard", "_out", "_replies", "_result", "heard")

    def __init__(self, act: Act[T], replies: Replies) -> None:
        """Raises Broken where the peer spoke when nothing was asked: nothing it says can then be told apart."""
        self._act, self._replies = act, replies
        self._awaiting: tuple[Stage, ...] = ()
        self._heard: list[Reply] = []
        self._out: tuple[bytes, ...] = ()
        self._result: list[T] = []
        self.heard = 0  # replies so far
        self._step(None)
        # A greeting may have come before anybody waited for it: it is the one reply that answers nothing.
        if replies.pending and self._out:
            act.close()
            raise Broken(_out_of_turn(replies))

    @property
    def stage(self) -> Stage | None:
        """What the reply answers that is awaited now; None: the act has come to its end."""
        return None if self._result else self._awaiting[len(self._heard)]

    @property
    def result(self) -> T:
        """What came of it, once `stage` is None."""
        return self._result[0]

    def take(self) -> tuple[bytes, ...]:
        """What is to be sent now, once."""
        out, self._out = self._out, ()
        return out

    def hear(self) -> None:
        """Go on with whatever has been fed. Raises what the act makes of it."""
        while not self._result:
            try:
                reply = self._replies.take()
            except NotSmtp as error:
                return self.fail(f"the peer does not speak SMTP: {error}")
            if reply is None:
                return None
            self._heard.append(reply)
            self.heard += 1
            if len(self._heard) == len(self._awaiting):
                heard, self._heard = tuple(self._heard), []
                self._step(heard)
        return None

    def fail(self, why: str, unsent: bool = False) -> None:
        """End the act: the connection does not go on, because `why`. Raises what the act makes of it."""
        stage = self.stage
        if stage is None:
            return
        broken = Broken(f"{why} (waiting for the reply to {stage.value})", tuple(self._heard), unsent)
        try:
            self._act.throw(broken)
        except StopIteration as end:
            self._result.append(end.value)
        else:
            self._act.close()
            raise broken  # an act that wants to go on over a connection that is gone

    def _step(self, heard: tuple[Reply, ...] | None) -> None:
        try:
            said = next(self._act) if heard is None else self._act.send(heard)
        except StopIteration as end:
            self._result.append(end.value)
        else:
            self._out += said.parts
            self._awaiting = said.awaiting


@dataclass(frozen=True, slots=True)
class Peer:
    """What a server said of itself in its answer to EHLO: keywords in capitals, and what followed them."""

    keywords: Mapping[str, str] = field(default_factory=dict)

    def offers(self, keyword: str) -> bool:
        return keyword in self.keywords

    @property
    def largest(self) -> int | None:
        """Octets of the largest message it takes, None where it does not say (RFC 1870 4: nor does SIZE 0)."""
        return _number(self.keywords.get("SIZE", "")) or None

    @property
    def mechanisms(self) -> frozenset[str]:
        return frozenset(self.keywords.get("AUTH", "").upper().split())

    def limit(self, name: str) -> int | None:
        """One of its LIMITS (RFC 9422), None where it has none of that name."""
        for word in self.keywords.get("LIMITS", "").upper().split():
            key, _, value = word.partition("=")
            if key == name and (number := _number(value)):
                return number
        return None


def greeting() -> Act[None]:
    """Wait to be spoken to. Raises Declined, Broken."""
    (reply,) = yield Say((), (Stage.GREETING,))
    if not reply.positive:
        raise Declined(Stage.GREETING, reply)


def hello(name: str, without: Collection[str] = ()) -> Act[Peer]:
    """Say who we are and learn what the server can; `without`: keywords that we do not want to see.

    Raises Declined, Broken.
    """
    (reply,) = yield Say((b"EHLO %b\r\n" % name.encode("ascii"),), (Stage.EHLO,))
    if reply.code in _NOT_KNOWN:
        # RFC 5321 3.2: a server of before 1995 does not know EHLO.
        (reply,) = yield Say((b"HELO %b\r\n" % name.encode("ascii"),), (Stage.EHLO,))
        if reply.positive:
            return Peer()
    if not reply.positive:
        raise Declined(Stage.EHLO, reply)
    keywords: dict[str, str] = {}
    for line in reply.lines[1:]:
        # Servers of before RFC 2554 wrote AUTH=PLAIN, and many still say it both ways.
        keyword, _, words = _OLD_AUTH.sub("AUTH ", line).partition(" ")
        if keyword.upper() not in without:
            keywords.setdefault(keyword.upper(), words.strip())
    return Peer(keywords)


def start_tls() -> Act[bool]:
    """Ask for TLS; whether the handshake may begin. Raises Broken."""
    (reply,) = yield Say((b"STARTTLS\r\n",), (Stage.STARTTLS,))
    return reply.positive


def login(peer: Peer, username: str, password: str) -> Act[None]:
    """Authenticate by PLAIN (RFC 4616), or by LOGIN where that is all there is. Raises Declined, Broken."""
    user, secret = username.encode(), password.encode()
    if "PLAIN" in peer.mechanisms or "LOGIN" not in peer.mechanisms:
        steps = [b"AUTH PLAIN " + b64encode(b"\0".join((b"", user, secret)))]
    else:
        steps = [b"AUTH LOGIN", b64encode(user), b64encode(secret)]
    for step in steps:
        (reply,) = yield Say((step + b"\r\n",), (Stage.AUTH,))
        if reply.positive:
            return
        if reply.code != 334:
            raise Declined(Stage.AUTH, reply)
    raise Declined(Stage.AUTH, reply)


def farewell() -> Act[None]:
    """Say QUIT. Raises Broken."""
    yield Say((b"QUIT\r\n",), (Stage.QUIT,))


_LONGEST_NUMBER: Final = 20


def _number(text: str) -> int:
    digits = text.partition(" ")[0]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _LONGEST_NUMBER else 0


def _out_of_turn(replies: Replies) -> str:
    try:
        reply = replies.take()
    except NotSmtp as error:
        return f"the peer spoke out of turn: {error}"
    return "the peer spoke out of turn" + (f": {reply.code} {reply.text}" if reply is not None else "")
