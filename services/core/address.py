"""Mailbox addresses as RFC 5321 and RFC 6531 write them in MAIL and RCPT. Pure.

An `Address` holds what the words mean, not how they were written: the local part without its quoting, the domain in
lower case with A-labels (what DNS and our tables hold). `str()` writes it back in wire form.
"""

import re
import unicodedata
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

import idna

# RFC 5321 4.5.3.1.1 to 4.5.3.1.3, in octets of UTF-8 (RFC 6531 3.2 counts so too).
LOCAL_OCTETS, DOMAIN_OCTETS, PATH_OCTETS = 64, 255, 256
LABEL_OCTETS = 63

_ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-"
_DOT_STRING = re.compile(rf"[{_ATEXT}]+(?:\.[{_ATEXT}]+)*")
_QUOTED_STRING = re.compile(r'"((?:[ !#-\[\]-~\u0080-\U0010ffff]|\\[ -~])*)"')
_QUOTED_PAIR = re.compile(r"\\(.)")
# RFC 5321 4.1.2 has no underscore in a domain; hosts that send mail do, and no one else is harmed by it.
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?")
# RFC 5321 4.1.1.3: a source route must be accepted and should be ignored.
_SOURCE_ROUTE = re.compile(r"@[^\s<>:@,]+(?:,@[^\s<>:@,]+)*:")


class BadAddress(ValueError):
    """Not an address; the text says why, in words fit for a reply."""


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox. Made by `parse`; build one directly only from parts known to be canonical."""

    local: str
    domain: str

    @property
    def key(self) -> str:
        """What equal mailboxes share: `bob@example.org` for `Bob@EXAMPLE.org`. Local parts compare without case."""
        return f"{unicodedata.normalize('NFC', self.local).lower()}@{self.domain}"

    @property
    def unicode_domain(self) -> str:
        """The domain for people: U-labels where it has A-labels that decode."""
        if "xn--" not in self.domain:
            return self.domain
        try:
            return idna.decode(self.domain)
        except idna.IDNAError:
            return self.domain

    @property
    def needs_smtputf8(self) -> bool:
        """True when no ASCII form exists (RFC 6531 3.2): the local part has other characters."""
        return not self.local.isascii()

    def subaddress(self, delimiter: str = "+") -> tuple["Address", str]:
        """The mailbox without its detail, and the detail: `bob+a+b` is `bob` and `a+b`; no detail is ""."""
        user, found, detail = self.local.partition(delimiter)
        return (Address(user, self.domain), detail) if found and user else (self, "")

    def __str__(self) -> str:
        local = self.local
        if _DOT_STRING.fullmatch(local) is None:
            local = '"' + re.sub(r'(["\\])', r"\\\1", local) + '"'
        return f"{local}@{self.domain}"


def parse(text: str, longest_local: int = LOCAL_OCTETS) -> Address:
    """The address that `text` is, without angle brackets. Raises BadAddress.

    RFC 5321 4.5.3.1 asks receivers for at least 64 octets of local part; `longest_local` allows a foreign sender more.
    """
    address, end = _mailbox(text, 0, longest_local)
    if end != len(text):
        raise BadAddress("unexpected characters after the domain")
    return address


def parse_path(text: str, postmaster_at: str = "", longest_local: int = LOCAL_OCTETS) -> tuple[Address | None, str]:
    """The path at the start of `text` and what follows it: `<bob@example.org> SIZE=5` gives the address and ` SIZE=5`.

    `<>` gives None (RFC 5321 4.5.5). `<postmaster>` is that of the domain `postmaster_at` where one is given
    (RFC 5321 4.1.1.3). A source route is dropped. Raises BadAddress.
    """
    if not text.startswith("<"):
        raise BadAddress("the address must stand in angle brackets")
    if text.startswith("<>"):
        return None, text[2:]
    start = 1
    if (route := _SOURCE_ROUTE.match(text, 1)) is not None:
        start = route.end()
    if postmaster_at and text[start : start + 11].lower() == "postmaster>":
        return Address("postmaster", domain(postmaster_at)), text[start + 11 :]
    address, end = _mailbox(text, start, longest_local)
    if text[end : end + 1] != ">":
        raise BadAddress("the closing angle bracket is missing")
    # The path counts its punctuation, so the brackets too (RFC 5321 4.5.3.1.3).
    if len(text[start:end].encode()) + 2 > PATH_OCTETS + max(0, longest_local - LOCAL_OCTETS):
        raise BadAddress(f"the path is longer than {PATH_OCTETS} octets")
    return address, text[end + 1 :]


def domain(text: str) -> str:
    """The canonical form of a domain or an address literal: lower case, A-labels. Raises BadAddress."""
    if text.startswith("["):
        return _literal(text)
    name = text.lower()
    if not name:
        raise BadAddress("the domain is missing")
    if not name.isascii() and len(name) <= DOMAIN_OCTETS:
        try:
            # RFC 5891 5: lookup takes the mapped form; UTS 46 is the mapping the field uses.
            name = idna.encode(name, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise BadAddress("the domain is not a valid internationalised name") from error
    if len(name) > DOMAIN_OCTETS:
        raise BadAddress(f"the domain is longer than {DOMAIN_OCTETS} octets")
    for label in name.split("."):
        if len(label) > LABEL_OCTETS:
            raise BadAddress(f"a part of the domain is longer than {LABEL_OCTETS} octets")
        if _LABEL.fullmatch(label) is None:
            raise BadAddress("the domain has an empty part or a character that domains do not have")
    return name


def _mailbox(text: str, start: int, longest_local: int) -> tuple[Address, int]:
    local, at = _local(text, start)
    if text[at : at + 1] != "@":
        raise BadAddress(
            "the domain is missing" if at in (len(text), text.find(">")) else "the local part is not valid"
        )
    if len(local.encode("utf-8", "surrogatepass")) > longest_local:
        raise BadAddress(f"the local part is longer than {longest_local} octets")
    if not local.isascii():
        _printable(local)
    begin = at + 1
    if text[begin : begin + 1] == "[":
        end = text.find("]", begin) + 1
        if not end:
            raise BadAddress("the address literal is not closed")
    else:
        end = begin
        while end < len(text) and text[end] not in "> \t":
            end += 1
    return Address(local, domain(text[begin:end])), end


def _local(text: str, start: int) -> tuple[str, int]:
    if (quoted := _QUOTED_STRING.match(text, start)) is not None:
        return _QUOTED_PAIR.sub(r"\1", quoted[1]), quoted.end()
    if (plain := _DOT_STRING.match(text, start)) is not None:
        return plain[0], plain.end()
    raise BadAddress("the local part is not valid")


def _printable(local: str) -> None:
    for character in local:
        # RFC 6532 3.1: no controls, no lone surrogates; a separator other than the space cannot be seen or typed.
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or (character > "\x7f" and character.isspace()):
            raise BadAddress("the local part has a character that addresses do not have")


def _literal(text: str) -> str:
    # RFC 5321 4.1.3; no other tag than IPv6 has ever been registered.
    inner = text[1:-1]
    if not text.endswith("]"):
        raise BadAddress("the address literal is not closed")
    try:
        if inner[:5].lower() == "ipv6:":
            return f"[ipv6:{IPv6Address(inner[5:])}]"
        return f"[{IPv4Address(inner)}]"
    except AddressValueError as error:
        raise BadAddress("the address literal is not an IPv4 or IPv6 address") from error
