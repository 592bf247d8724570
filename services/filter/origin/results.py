"""What the checks found, and the fields that tell it: Authentication-Results (RFC 8601), Received-SPF (RFC 7208 9.1).

Pure. What a stranger wrote is quoted so that it can neither end its value nor begin another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`{|}~]+")
# RFC 8601 2.2: pvalue is a value, or an address, or a domain.
_ADDRESS = re.compile(r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~.]*@?[A-Za-z0-9._\-\[\]:]+")
_COMMENT = re.compile(r"[()\\]")
_VALUE_LENGTH = 400


class Result(StrEnum):
    """RFC 8601 2.7."""

    NONE = "none"
    PASS = "pass"
    FAIL = "fail"
    SOFTFAIL = "softfail"
    NEUTRAL = "neutral"
    POLICY = "policy"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


@dataclass(frozen=True, slots=True)
class Told:
    """One result: method, outcome, why in a few words, and the properties it is about."""

    method: str
    result: Result
    reason: str = ""
    properties: tuple[tuple[str, str], ...] = ()


def authentication_results(host: str, results: Sequence[Told]) -> bytes:
    """The whole field. `host` is the authserv-id, a name of ours."""
    lines = [f"Authentication-Results: {host}"]
    lines += [_method(each) for each in results] or ["none"]
    return (";\r\n\t".join(lines) + "\r\n").encode("ascii")


def received_spf(host: str, result: Result, reason: str, pairs: Iterable[tuple[str, str]]) -> bytes:
    """The whole field (RFC 7208 9.1)."""
    said = "; ".join(f"{name}={_value(value, _TOKEN)}" for name, value in pairs if value)
    return f"Received-SPF: {result} ({host}: {_comment(reason)})\r\n\t{said}\r\n".encode("ascii")


def _method(told: Told) -> str:
    reason = f" ({_comment(told.reason)})" if told.reason else ""
    properties = "".join(f" {name}={_value(value, _ADDRESS)}" for name, value in told.properties if value)
    return f"{told.method}={told.result}{reason}{properties}"


def _value(value: str, plain: re.Pattern[str]) -> str:
    value = _visible(value)
    if plain.fullmatch(value) is not None:
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def _comment(text: str) -> str:
    return _COMMENT.sub("", _visible(text))


def _visible(text: str) -> str:
    if text.isascii() and text.isprintable() and len(text) <= _VALUE_LENGTH:
        return text
    return "".join(c if " " <= c <= "~" else "?" for c in text[:_VALUE_LENGTH])
