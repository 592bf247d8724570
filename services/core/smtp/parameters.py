"""The arguments of MAIL and RCPT: paths, and the parameters of those extensions that have some. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypedDict

from services.core.address import BadAddress, parse_path
from services.core.smtp import replies
from services.core.smtp.hooks import Refused
from services.core.smtp.session import Recipient, Sender

# RFC 5321 4.1.2; RFC 6531 3.3 lets a value have any UTF-8. The text is printable already.
_KEYWORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_HEXCHAR: Final = re.compile(r"\+([0-9A-F]{2})")
_ADDR_TYPE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_NOTIFY: Final = frozenset({"SUCCESS", "FAILURE", "DELAY"})
_NEVER: Final = frozenset({"NEVER"})
# RFC 3461 4.4 and 4.2, in octets as sent.
_ENVID_OCTETS, _ORCPT_OCTETS = 100, 500
# RFC 1870 4: at most twenty digits.
_SIZE_DIGITS: Final = 20
# Bounce addresses of mailing lists and forwarders carry a whole address in their local part, and bounces come back to
# them; who refuses them loses mail.
_FOREIGN_LOCAL: Final = 250


class _MailFields(TypedDict, total=False):
    size: int
    body: str
    smtputf8: bool
    ret: str
    envid: str
    auth: str
    requiretls: bool


class _RcptFields(TypedDict, total=False):
    notify: frozenset[str]
    orcpt: str


def parse_mail(argument: str, esmtp: bool, max_size: int, *, tls: bool = False) -> Sender:
    """What follows `MAIL `. Raises Refused; more octets announced than `max_size` are refused here (RFC 1870 6.1).

    `tls`: whether what is offered under TLS alone is offered now.
    """
    path = _after("FROM:", argument)
    if path is None:
        raise Refused(replies.SYNTAX.about("MAIL FROM:<address>"))
    try:
        mailbox, rest = parse_path(path, longest_local=_FOREIGN_LOCAL)
    except BadAddress as error:
        raise Refused(replies.BAD_SENDER.about(str(error))) from error
    if not rest and path.isascii():
        return Sender(mailbox)
    fields = _MailFields()
    for keyword, value in _parameters(rest, esmtp):
        read = _MAIL.get(keyword)
        if read is None or (read is _requiretls and not tls):
            raise Refused(replies.UNKNOWN_PARAMETER.about(keyword))
        read(fields, value)
    if fields.get("size", 0) > max_size:
        raise Refused(replies.MESSAGE_TOO_BIG)
    if not path.isascii() and not fields.get("smtputf8"):
        raise Refused(replies.NEEDS_SMTPUTF8)
    return Sender(mailbox, **fields)


def parse_rcpt(argument: str, esmtp: bool, smtputf8: bool, postmaster_at: str) -> Recipient:
    """What follows `RCPT `. `<postmaster>` is that of the domain `postmaster_at`. Raises Refused."""
    path = _after("TO:", argument)
    if path is None:
        raise Refused(replies.SYNTAX.about("RCPT TO:<address>"))
    try:
        mailbox, rest = parse_path(path, postmaster_at, _FOREIGN_LOCAL)
    except BadAddress as error:
        raise Refused(replies.BAD_RECIPIENT.about(str(error))) from error
    if mailbox is None:
        raise Refused(replies.BAD_RECIPIENT.about("no address"))
    # RFC 6531 3.2: only within a transaction that asked for it.
    if not smtputf8 and not path.isascii():
        raise Refused(replies.NEEDS_SMTPUTF8)
    if not rest:
        return Recipient(mailbox)
    fields = _RcptFields()
    for keyword, value in _parameters(rest, esmtp):
        read = _RCPT.get(keyword)
        if read is None:
            raise Refused(replies.UNKNOWN_PARAMETER.about(keyword))
        read(fields, value)
    return Recipient(mailbox, **fields)


def _after(keyword: str, argument: str) -> str | None:
    if argument[: len(keyword)].upper() != keyword:
        return None
    # No space belongs after the colon (RFC 5321 3.3), yet some send one.
    return argument[len(keyword) :].lstrip(" ")


def _parameters(rest: str, esmtp: bool) -> list[tuple[str, str | None]]:
    found: dict[str, str | None] = {}
    if rest.strip(" ") and not (esmtp and rest.startswith(" ")):
        raise Refused(replies.BAD_PARAMETER.about("parameters need EHLO" if not esmtp else "space expected"))
    for word in rest.split(" "):
        if not word:
            continue
        keyword, equals, value = word.partition("=")
        keyword = keyword.upper()
        if _KEYWORD.fullmatch(keyword) is None or "=" in value or (equals and not value):
            raise Refused(replies.BAD_PARAMETER.about(word))
        if keyword in found:
            raise Refused(replies.BAD_PARAMETER.about(f"{keyword} given twice"))
        found[keyword] = value if equals else None
    return list(found.items())


def _bad(keyword: str) -> Refused:
    return Refused(replies.BAD_PARAMETER.about(keyword))


def _size(fields: _MailFields, value: str | None) -> None:
    if value is None or not (value.isascii() and value.isdigit()) or len(value) > _SIZE_DIGITS:
        raise _bad("SIZE")
    fields["size"] = int(value)


def _body(fields: _MailFields, value: str | None) -> None:
    body = (value or "").upper()
    if body == "BINARYMIME":
        # RFC 3030 3: not offered, so not implemented rather than misspelt. CR and LF alone mean something in such
        # content: no DKIM signature of it holds, POP has no way to serve it as it came, and most next hops refuse it.
        raise Refused(replies.UNKNOWN_PARAMETER.about("BODY=BINARYMIME"))
    if body not in ("7BIT", "8BITMIME"):
        raise _bad("BODY")
    fields["body"] = body


def _smtputf8(fields: _MailFields, value: str | None) -> None:
    if value is not None:
        raise _bad("SMTPUTF8")
    fields["smtputf8"] = True


def _ret(fields: _MailFields, value: str | None) -> None:
    ret = (value or "").upper()
    if ret not in ("FULL", "HDRS"):
        raise _bad("RET")
    fields["ret"] = ret


def _envid(fields: _MailFields, value: str | None) -> None:
    fields["envid"] = _xtext("ENVID", value, _ENVID_OCTETS)


def _auth(fields: _MailFields, value: str | None) -> None:
    # RFC 4954 5: `<>` says that the client vouches for nobody.
    fields["auth"] = "" if value == "<>" else _xtext("AUTH", value, _ORCPT_OCTETS)


def _requiretls(fields: _MailFields, value: str | None) -> None:
    if value is not None:
        raise _bad("REQUIRETLS")
    fields["requiretls"] = True


def _notify(fields: _RcptFields, value: str | None) -> None:
    words = (value or "").upper().split(",")
    notify = frozenset(words)
    if notify != _NEVER and not notify <= _NOTIFY:
        raise _bad("NOTIFY")
    fields["notify"] = notify


def _orcpt(fields: _RcptFields, value: str | None) -> None:
    kind, semicolon, address = (value or "").partition(";")
    if not semicolon or _ADDR_TYPE.fullmatch(kind) is None or len(value or "") > _ORCPT_OCTETS:
        raise _bad("ORCPT")
    # RFC 6533 3: a utf-8 address comes as UTF-8 or in an encoding of its own, which is kept as it is.
    fields["orcpt"] = f"{kind};{_xtext('ORCPT', address, _ORCPT_OCTETS, utf8=kind.lower() == 'utf-8')}"


def _xtext(keyword: str, value: str | None, longest: int, utf8: bool = False) -> str:
    """RFC 3461 4, undone. What is hidden in it may not be a control character: it ends up in header fields."""
    if not value or len(value.encode()) > longest:
        raise _bad(keyword)
    plain = _HEXCHAR.sub(lambda found: chr(int(found[1], 16)), value)
    if not plain.isprintable() or not (utf8 or plain.isascii()) or "+" in _HEXCHAR.sub("", value):
        raise _bad(keyword)
    return plain


_MAIL: Final[dict[str, Callable[[_MailFields, str | None], None]]] = {
    "SIZE": _size,
    "BODY": _body,
    "SMTPUTF8": _smtputf8,
    "RET": _ret,
    "ENVID": _envid,
    "AUTH": _auth,
    "REQUIRETLS": _requiretls,
}
_RCPT: Final[dict[str, Callable[[_RcptFields, str | None], None]]] = {"NOTIFY": _notify, "ORCPT": _orcpt}
