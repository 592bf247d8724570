"""The grammar of SPF records (RFC 7208 4.6, 5, 6, 7.1). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from services.filter.origin.results import Result

_VERSION: Final = "v=spf1"
_QUALIFIERS: Final = {"+": Result.PASS, "-": Result.FAIL, "~": Result.SOFTFAIL, "?": Result.NEUTRAL}
_MODIFIER: Final = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)=(.*)")
_DIRECTIVE: Final = re.compile(r"([+?~-]?)([A-Za-z][A-Za-z0-9_.-]*)(.*)")
_CIDR: Final = re.compile(r"(.*?)(?:/(0|[1-9][0-9]?))?(?://(0|[1-9][0-9]{0,2}))?")
_MACRO: Final = re.compile(r"%(?:[%_-]|\{[slodiphvSLODIPHV][0-9]*[rR]?[.\-+,/_=]*\})")
_LITERALS: Final = re.compile(r"[!-$&-~]*")
# RFC 7208 7.1: a domain ends in a macro or in a label that is no number.
_END: Final = re.compile(r".*(?:%\{[^{}]*\}|\.(?:[0-9]*[A-Za-z][A-Za-z0-9]*|[A-Za-z0-9]+-[A-Za-z0-9-]*[A-Za-z0-9])\.?)")
_ZERO_DIGITS: Final = re.compile(r"%\{[a-zA-Z]0+[^0-9]")


class BadRecord(ValueError):
    """A syntax error anywhere in a record: the whole of it is void (RFC 7208 4.6)."""


@dataclass(frozen=True, slots=True)
class Directive:
    """One mechanism with what it says when it matches. `domain` is empty where none is given."""

    result: Result
    mechanism: str
    domain: str = ""
    bits4: int = 32
    bits6: int = 128
    network: IPv4Network | IPv6Network | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One policy. `exp` is checked and not kept: an explanation by a stranger is shown to nobody."""

    directives: tuple[Directive, ...]
    redirect: str = ""


def is_record(text: str) -> bool:
    """RFC 7208 4.5: whether a TXT record is meant as one of ours."""
    return text[: len(_VERSION)].lower() == _VERSION and text[len(_VERSION) :][:1] in ("", " ")


def parse(text: str) -> Record:
    """The policy that a record states. Raises BadRecord."""
    if not text.isascii():
        raise BadRecord("characters other than ASCII")
    directives: list[Directive] = []
    modifiers: dict[str, str] = {}
    for term in text[len(_VERSION) :].split(" "):
        if not term:
            continue
        if (found := _MODIFIER.fullmatch(term)) is not None:
            _modify(modifiers, found[1].lower(), found[2])
        else:
            directives.append(_directive(term))
    return Record(tuple(directives), modifiers.get("redirect", ""))


def _modify(modifiers: dict[str, str], name: str, value: str) -> None:
    if name not in ("redirect", "exp"):
        _macros(value)  # RFC 7208 6: unknown ones are ignored, if they are well formed
        return
    if name in modifiers:
        raise BadRecord(f"{name}= comes twice")
    modifiers[name] = _domain(value)


def _directive(term: str) -> Directive:
    if (found := _DIRECTIVE.fullmatch(term)) is None:
        raise BadRecord(f"not a term: {term}")
    result, name, rest = _QUALIFIERS[found[1] or "+"], found[2].lower(), found[3]
    if name == "all":
        if rest:
            raise BadRecord(f"all takes nothing: {term}")
        return Directive(result, name)
    if name in ("ip4", "ip6"):
        return Directive(result, name, network=_network(name, rest))
    if name in ("include", "exists"):
        if rest[:1] != ":":
            raise BadRecord(f"{name} needs a domain")
        return Directive(result, name, _domain(rest[1:]))
    if name == "ptr":
        return Directive(result, name, _optional_domain(rest))
    if name in ("a", "mx"):
        domain, bits4, bits6 = _cidr(rest)
        return Directive(result, name, _optional_domain(domain), bits4, bits6)
    raise BadRecord(f"unknown mechanism: {name}")


def _cidr(rest: str) -> tuple[str, int, int]:
    found = _CIDR.fullmatch(rest)
    if found is None:
        raise BadRecord(f"bad prefix length: {rest}")
    bits4, bits6 = int(found[2] or 32), int(found[3] or 128)
    if bits4 > 32 or bits6 > 128:
        raise BadRecord(f"bad prefix length: {rest}")
    return found[1], bits4, bits6


def _network(name: str, rest: str) -> IPv4Network | IPv6Network:
    address, slash, bits = rest[1:].partition("/")
    if rest[:1] != ":" or (slash and not re.fullmatch("0|[1-9][0-9]{0,2}", bits)):
        raise BadRecord(f"{name} needs an address")
    try:
        network = ip_network(f"{address}/{bits}" if slash else address, strict=False)
    except ValueError as error:
        raise BadRecord(f"{name} needs an address: {rest[1:]}") from error
    if network.version != int(name[2]) or "%" in address:
        raise BadRecord(f"{name} needs an address of its kind: {rest[1:]}")
    return network


def _optional_domain(rest: str) -> str:
    if not rest:
        return ""
    if rest[0] != ":":
        raise BadRecord(f"not a domain: {rest}")
    return _domain(rest[1:])


def _domain(text: str) -> str:
    _macros(text)
    if _END.fullmatch(text) is None:
        raise BadRecord(f"not a domain: {text}")
    return text


def _macros(text: str) -> None:
    if _LITERALS.fullmatch(_MACRO.sub("", text)) is None or _ZERO_DIGITS.search(text) is not None:
        raise BadRecord(f"bad macro: {text}")
