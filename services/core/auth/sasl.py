"""SASL mechanisms as pure exchanges: octets of the client in, what must happen next out.

One mechanism is one class and one line in `MECHANISMS`. A door adds base64 and its own words around this, no more.
"""

from __future__ import annotations

import binascii
import secrets
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias


@dataclass(frozen=True, slots=True)
class Challenge:
    """Send this and give the answer to `answer`."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class Attempt:
    """The client claims to be `username` with this password. The exchange is over."""

    username: str
    password: str
    authzid: str


@dataclass(frozen=True, slots=True)
class KeysWanted:
    """Find salt and iteration count for `username`; `go_on` with them gives the next challenge."""

    username: str
    authzid: str
    go_on: Callable[[bytes, int], Challenge]


@dataclass(frozen=True, slots=True)
class ProofGiven:
    """Check the proof; if it holds, `go_on` with the server's signature gives the next challenge."""

    auth_message: bytes
    proof: bytes
    go_on: Callable[[bytes], Challenge]


@dataclass(frozen=True, slots=True)
class Accepted:
    """The client has taken the server's last word. The exchange is over."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The client does not follow the mechanism. The exchange is over."""

    reason: str


Step: TypeAlias = Challenge | Attempt | KeysWanted | ProofGiven | Accepted | Broken


class Exchange(Protocol):
    """One login by one mechanism, used once."""

    def start(self, initial: bytes | None) -> Step:
        """Begin with the client's initial response; None: it gave none (b"" is one, RFC 4954 4)."""
        ...

    def answer(self, octets: bytes) -> Step:
        """Go on with the client's answer to the last challenge."""
        ...


class Plain:
    """PLAIN (RFC 4616)."""

    def start(self, initial: bytes | None) -> Step:
        return Challenge(b"") if initial is None else self.answer(initial)

    def answer(self, octets: bytes) -> Step:
        words = octets.split(b"\0")
        if len(words) != 3:
            return Broken("PLAIN needs two NULs")
        try:
            authzid, username, password = (word.decode() for word in words)
        except UnicodeDecodeError:
            return Broken("PLAIN needs UTF-8")
        if not username or not password:
            return Broken("PLAIN needs a name and a password")
        return Attempt(username, password, authzid)


class Plaintext:
    """LOGIN: never standardised, spoken by old clients; the name, then the password."""

    def __init__(self) -> None:
        self._username: str | None = None

    def start(self, initial: bytes | None) -> Step:
        return Challenge(b"Username:") if initial is None else self.answer(initial)

    def answer(self, octets: bytes) -> Step:
        try:
            word = octets.decode()
        except UnicodeDecodeError:
            return Broken("LOGIN needs UTF-8")
        if not word:
            return Broken("LOGIN needs a name and a password")
        if self._username is None:
            self._username = word
            return Challenge(b"Password:")
        return Attempt(self._username, word, "")


class Scram:
    """SCRAM-SHA-256 without channel binding (RFC 5802, RFC 7677)."""

    def __init__(self, nonce: Callable[[], str] = lambda: secrets.token_urlsafe(18)) -> None:
        self._nonce = nonce
        self._take = self._client_first
        self._gs2 = b""
        self._bare = b""
        self._both = ""
        self._server_first = b""

    def start(self, initial: bytes | None) -> Step:
        return Challenge(b"") if initial is None else self.answer(initial)

    def answer(self, octets: bytes) -> Step:
        return self._take(octets)

    def _client_first(self, octets: bytes) -> Step:
        flag, _, rest = octets.partition(b",")
        authz, _, bare = rest.partition(b",")
        # RFC 5802 6: "y" is a client that could bind the channel and saw no -PLUS offered, which is so.
        if flag not in (b"n", b"y"):
            return Broken("channel binding is not offered")
        try:
            words = bare.decode().split(",")
            authzid = _name(authz.decode().removeprefix("a="))
            username = _name(words[0].removeprefix("n="))
        except (UnicodeDecodeError, ValueError):
            return Broken("the name is not encoded as RFC 5802 says")
        # RFC 5802 5.1: an extension that is not understood ("m=") must fail the exchange.
        if len(words) < 2 or not words[0].startswith("n=") or not words[1].startswith("r=") or len(words[1]) < 3:
            return Broken("SCRAM needs a name and a nonce")
        if authz and not authz.startswith(b"a="):
            return Broken("the authorization identity is malformed")
        if not username or len(bare) > 1024:
            return Broken("SCRAM needs a name of moderate length")
        self._gs2, self._bare = octets[: len(octets) - len(bare)], bare
        self._both = words[1][2:] + self._nonce()
        return KeysWanted(username, authzid, self._server_says)

    def _server_says(self, salt: bytes, iterations: int) -> Challenge:
        self._server_first = f"r={self._both},s={b64encode(salt).decode()},i={iterations}".encode()
        self._take = self._client_final
        return Challenge(self._server_first)

    def _client_final(self, octets: bytes) -> Step:
        without, found, proof = octets.rpartition(b",p=")
        words = without.split(b",")
        if not found or len(words) < 2 or words[0] != b"c=" + b64encode(self._gs2):
            return Broken("the channel binding is not the one that was begun with")
        if words[1] != b"r=" + self._both.encode():
            return Broken("the nonce is another")
        try:
            octets_of_proof = b64decode(proof, validate=True)
        except binascii.Error:
            return Broken("the proof is not base64")
        return ProofGiven(b",".join((self._bare, self._server_first, without)), octets_of_proof, self._accepted)

    def _accepted(self, signature: bytes) -> Challenge:
        # RFC 4954 4, RFC 9051 6.2.2 and RFC 5034 4 carry no data with success: it goes as one more challenge.
        self._take = self._client_done
        return Challenge(b"v=" + b64encode(signature))

    def _client_done(self, octets: bytes) -> Step:
        return Broken("nothing may follow the server's signature") if octets else Accepted()


def _name(text: str) -> str:
    # RFC 5802 5.1: "=" stands only in "=2C" and "=3D".
    if text.count("=") != text.count("=2C") + text.count("=3D"):
        raise ValueError(text)
    return text.replace("=2C", ",").replace("=3D", "=")


class Mechanism(NamedTuple):
    """One way to log in, as it is offered."""

    name: str
    begin: Callable[[], Exchange]
    needs_tls: bool


# SCRAM as well: without TLS whoever listens could try passwords against the exchange at leisure, and read the mail.
MECHANISMS = (
    Mechanism("SCRAM-SHA-256", Scram, needs_tls=True),
    Mechanism("PLAIN", Plain, needs_tls=True),
    Mechanism("LOGIN", Plaintext, needs_tls=True),
)


def offered(*, tls: bool, plaintext_auth: bool = False) -> tuple[str, ...]:
    """The names to announce on this connection, best first; `plaintext_auth` lifts the need for TLS."""
    return tuple(each.name for each in MECHANISMS if tls or plaintext_auth or not each.needs_tls)
