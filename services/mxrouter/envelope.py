"""MAIL, RCPT and the message as one peer can take them, or why it cannot. Pure.

Content outside US-ASCII is sent as it is to a server without 8BITMIME. RFC 6152 3 would have us convert or return it:
converting breaks DKIM signatures and the octets as they came, returning loses mail that a Postfix before us delivered,
and servers that do not say 8BITMIME have been clean for eight bits for decades.
"""

from __future__ import annotations

import re
from typing import Final

from services.core.smtp.wire import Newlines, newlines
from services.mxrouter.carriage import Addressee, Fate, Letter, Outcome
from services.mxrouter.dialogue import Peer
from services.mxrouter.heard import Reply

_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_TLS_NOT_REQUIRED = re.compile(rb"(?im)^TLS-Required[ \t]*:[ \t]*No[ \t]*\r?$")
_CONTROL = re.compile(r"[\x00-\x1f\x7f<>]")
_NOTIFY = re.compile(r"[A-Za-z,]+")
_KIND = re.compile(r"[A-Za-z0-9-]+")
_NO_CLASS: Final = {Fate.SENT: "2.0.0", Fate.LATER: "4.0.0", Fate.FAILED: "5.0.0"}


def heard(reply: Reply, host: str) -> Outcome:
    """What a server's refusal means for a recipient."""
    # Neither 2xx nor 3xx is a refusal: a server that says so where none fits is confused, perhaps not for long.
    fate = Fate.FAILED if reply.permanent else Fate.LATER
    return Outcome(fate, reply.code, reply.enhanced or _NO_CLASS[fate], reply.text, host)


def sent(reply: Reply, host: str, peer: Peer) -> Outcome:
    """What a server's 2xx after the message means."""
    enhanced = reply.enhanced or _NO_CLASS[Fate.SENT]
    return Outcome(Fate.SENT, reply.code, enhanced, reply.text, host, relayed_dsn=peer.offers("DSN"))


def later(enhanced: str, text: str, host: str = "", unreachable: bool = False) -> Outcome:
    """No remote spoke; another attempt may do."""
    return Outcome(Fate.LATER, 451, enhanced, text, host, unreachable=unreachable)


def failed(enhanced: str, text: str, host: str = "", code: int = 550) -> Outcome:
    """No remote need speak: it cannot be done."""
    return Outcome(Fate.FAILED, code, enhanced, text, host)


def wants_utf8(letter: Letter) -> bool:
    """Whether the letter needs SMTPUTF8 whoever its recipients are.

    One that was handed in with it and has nothing outside US-ASCII in address and header does not.
    """
    return not letter.sender.isascii() or (letter.smtputf8 and not _header(letter.octets).isascii())


def waives_tls(letter: Letter) -> bool:
    """Whether its author would rather have it arrive than arrive in safety (RFC 8689 5; REQUIRETLS counts for more)."""
    return not letter.requiretls and _TLS_NOT_REQUIRED.search(_header(letter.octets)) is not None


def refusal(peer: Peer, letter: Letter, host: str) -> Outcome | None:
    """Why this peer cannot be given the letter at all, None where it can."""
    if _CONTROL.search(letter.sender):
        return failed("5.1.7", "the sender address cannot be sent", code=553)
    if wants_utf8(letter) and not peer.offers("SMTPUTF8"):
        return failed("5.6.7", f"SMTPUTF8 is needed for this message and {host} does not offer it", host)
    if letter.requiretls and not peer.offers("REQUIRETLS"):
        # RFC 8689 4.2.1
        return failed("5.7.30", f"REQUIRETLS is asked for and {host} does not offer it", host)
    if peer.largest is not None and len(letter.octets) > peer.largest:
        said = f"the message has {len(letter.octets)} octets, {host} takes {peer.largest}"
        return failed("5.3.4", said, host, code=552)
    return None


def unaddressable(peer: Peer, addressee: Addressee, host: str) -> Outcome | None:
    """Why this peer cannot be told this recipient, None where it can."""
    if _CONTROL.search(addressee.address):
        return failed("5.1.3", "the address cannot be sent", code=553)
    if not addressee.address.isascii() and not peer.offers("SMTPUTF8"):
        return failed("5.6.7", f"the address needs SMTPUTF8 and {host} does not offer it", host, code=553)
    return None


def mail(peer: Peer, letter: Letter, utf8: bool) -> bytes:
    """The MAIL command; `utf8`: something in the transaction needs SMTPUTF8."""
    words = [f"MAIL FROM:<{letter.sender}>"]
    if peer.offers("SIZE"):
        words.append(f"SIZE={len(letter.octets)}")
    if peer.offers("8BITMIME") and not letter.octets.isascii():
        words.append("BODY=8BITMIME")
    if utf8 or (letter.smtputf8 and peer.offers("SMTPUTF8")):
        words.append("SMTPUTF8")
    if peer.offers("DSN"):
        words += [f"RET={letter.ret}"] if letter.ret in ("FULL", "HDRS") else []
        words += [f"ENVID={_xtext(letter.envid)}"] if letter.envid else []
    if letter.requiretls:
        words.append("REQUIRETLS")
    return _line(words)


def rcpt(peer: Peer, addressee: Addressee, utf8: bool) -> bytes:
    """The RCPT command."""
    words = [f"RCPT TO:<{addressee.address}>"]
    if peer.offers("DSN"):
        # What could not be read as one is left out: a notice may be lost by it, the message is not.
        words += [f"NOTIFY={addressee.notify}"] if _NOTIFY.fullmatch(addressee.notify or "") else []
        kind, semicolon, original = (addressee.orcpt or "").partition(";")
        if semicolon and _KIND.fullmatch(kind):
            raw = utf8 and kind.lower() == "utf-8"
            words.append(f"ORCPT={kind};{_xtext(original, raw)}")
    return _line(words)


def stuffed(octets: bytes) -> tuple[bytes, ...]:
    """The message for DATA, its end included (RFC 5321 4.5.2).

    CR or LF alone goes out as CRLF: a careless reader must not find an end of message that we did not write.
    """
    if newlines(octets) is not Newlines.CLEAN:
        octets = _BARE.sub(b"\r\n", octets)
    if octets.startswith(b"."):
        octets = b"." + octets
    if b"\r\n." in octets:
        octets = octets.replace(b"\r\n.", b"\r\n..")
    return octets, b".\r\n" if octets.endswith(b"\r\n") or not octets else b"\r\n.\r\n"


def _header(octets: bytes) -> bytes:
    end = octets.find(b"\r\n\r\n")
    return octets if end < 0 else octets[:end]


def _xtext(text: str, raw: bool = False) -> str:
    """RFC 3461 4; `raw`: what is outside US-ASCII stays as it is (RFC 6533 3), for commands that have SMTPUTF8."""
    return "".join(c if ("!" <= c <= "~" and c not in "+=") or (raw and c > "\x7f") else _hex(c) for c in text)


def _hex(character: str) -> str:
    return f"+{ord(character):02X}" if character <= "\x7f" else f"\\x{{{ord(character):X}}}"


def _line(words: list[str]) -> bytes:
    return " ".join(words).encode("utf-8", "replace") + b"\r\n"
