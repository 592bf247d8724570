"""MTA-STS (RFC 8461): which hosts a domain says take its mail, and that they must be trusted.

A policy is fetched when the domain's TXT record names one that is not known here, and holds as long as it says,
also when the record or the web server has gone since: an attacker could make either of them go. Processes do not
share policies; each fetches for itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from services.core.cache import Cache
from services.core.dns import DnsError
from services.mxrouter.https import Https, HttpsError
from services.mxrouter.names import covers
from services.mxrouter.resolve import Asks

_SIZE: Final = 10_000
_LONGEST_S: Final = 31_557_600.0  # RFC 8461 3.2: max_age is at most a year
_AGAIN_S: Final = 300.0  # RFC 8461 5.1: a fetch that failed is not repeated with each message
_LARGEST: Final = 64 * 1024  # RFC 8461 3.3
_RECORD = re.compile(r"v=STSv1\s*;\s*(?:.*;\s*)?id=([A-Za-z0-9]{1,32})\s*(?:;.*)?")
_MODES: Final = ("enforce", "testing", "none")


class BadPolicy(Exception):
    """A domain has a policy that cannot be had. `result` is the name that TLS-RPT has for it (RFC 8460 4.3)."""

    def __init__(self, result: str, text: str) -> None:
        super().__init__(text)
        self.result = result


@dataclass(frozen=True, slots=True)
class Policy:
    """What one domain asks for."""

    mode: str  # enforce | testing | none
    hosts: tuple[str, ...]
    max_age_s: float

    @property
    def lines(self) -> tuple[str, ...]:
        """As it is published (RFC 8461 3.2)."""
        hosts = (f"mx: {host}" for host in self.hosts)
        return ("version: STSv1", f"mode: {self.mode}", *hosts, f"max_age: {self.max_age_s:.0f}")

    def names(self, host: str) -> bool:
        """Whether the host is one of those that take the domain's mail."""
        return any(covers(pattern, host) for pattern in self.hosts)


def parse(text: str) -> Policy:
    """The policy that a file is (RFC 8461 3.2). Raises BadPolicy."""
    pairs: list[tuple[str, str]] = []
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            pairs.append((key.strip(), value.strip()))
        elif line.strip():
            raise BadPolicy("sts-policy-invalid", f"the policy has the line {line[:60]!r}")
    # RFC 8461 3.2: of keys that may stand once the first one counts.
    facts = dict(reversed(pairs))
    hosts = tuple(value for key, value in pairs if key == "mx")
    age = facts.get("max_age", "")
    if facts.get("version") != "STSv1" or facts.get("mode") not in _MODES or re.fullmatch("[0-9]{1,10}", age) is None:
        raise BadPolicy("sts-policy-invalid", "the policy lacks version, mode or max_age")
    if not hosts and facts["mode"] != "none":
        raise BadPolicy("sts-policy-invalid", "the policy names no host")
    return Policy(facts["mode"], hosts, min(float(age), _LONGEST_S))


class Policies:
    """The policies of every domain. `failed(domain, result)` hears of those that could not be had."""

    def __init__(
        self,
        dns: Asks,
        https: Https,
        failed: Callable[[str, str], None],
        *,
        port: int = 443,
    ) -> None:
        self._dns, self._https, self._failed, self._port = dns, https, failed, port
        self._named: Cache[tuple[str, str], Policy | None] = Cache(_SIZE, _AGAIN_S)
        self._last: Cache[str, Policy] = Cache(_SIZE, _AGAIN_S)

    async def of(self, domain: str) -> Policy | None:
        """The policy that holds for a domain now, None where it has none. Raises nothing."""
        name = await self._id(domain)
        if name is not None:
            found = await self._named.get((domain, name), lambda: self._load(domain), _how_long)
            if found is not None:
                return found
        return self._last.peek(domain)

    async def _id(self, domain: str) -> str | None:
        try:
            answer = await self._dns.query(f"_mta-sts.{domain}", "TXT")
        except DnsError:
            return None
        found = [text for text in answer.texts if text.startswith("v=STSv1")]
        # RFC 8461 3.1: not one record is as good as none.
        match = _RECORD.fullmatch(found[0].strip()) if len(found) == 1 else None
        return match[1] if match else None

    async def _load(self, domain: str) -> Policy | None:
        age = self._last.age
        try:
            policy = parse(await self._fetch(f"mta-sts.{domain}"))
        except BadPolicy as error:
            self._failed(domain, error.result)
            return None
        self._last.put(domain, policy, age, policy.max_age_s)
        return policy

    async def _fetch(self, host: str) -> str:
        try:
            answer = await self._https.get(f"https://{host}:{self._port}/.well-known/mta-sts.txt", _LARGEST)
        except HttpsError as error:
            # RFC 8461 3.3: the certificate has to be valid for the policy host.
            result = "sts-webpki-invalid" if error.untrusted else "sts-policy-fetch-error"
            raise BadPolicy(result, str(error)) from error
        if answer.status != 200:  # RFC 8461 3.3: a redirect is a failure too
            raise BadPolicy("sts-policy-fetch-error", f"{host} answers {answer.status}")
        if len(answer.octets) > _LARGEST:
            raise BadPolicy("sts-policy-invalid", f"the policy is longer than {_LARGEST} octets")
        return answer.octets.decode("utf-8", "replace")


def _how_long(policy: Policy | None) -> float:
    return _AGAIN_S if policy is None else policy.max_age_s
