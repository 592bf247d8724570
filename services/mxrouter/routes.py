"""Which way a letter goes: the rules of the table `relay_routes`, the most specific one first. Pure.

What a rule says of the recipient's domain weighs more than what it says of the sender, as an operator who sends one
domain elsewhere means it for everybody. Of the recipient: the domain, then the nearest domain above it, then all; of
the sender: the address, then its domain, then everybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from services.core.store.routes import Rule
from services.mxrouter.carriage import Route, Smarthost

Rules = Mapping[tuple[str, str], Rule]  # by (recipient, sender)


def table(rules: Iterable[Rule]) -> Rules:
    """The rules, to be looked up."""
    return {(rule.recipient, rule.sender): rule for rule in rules}


def pick(rules: Rules, sender: str, domain: str) -> Route:
    """The way for a letter of `sender` (empty: the null reverse-path) to recipients of `domain`."""
    if rules:
        for recipient in _recipients(domain):
            for author in _senders(sender):
                if (rule := rules.get((recipient, author))) is not None:
                    return Route(domain, _smarthost(rule))
    return Route(domain)


def destination(route: Route) -> str:
    """The name of where a route leads first: what is limited, and what is found to be dead."""
    return route.domain if route.smarthost is None else f"{route.smarthost.host}:{route.smarthost.port}"


def _recipients(domain: str) -> Iterator[str]:
    yield domain
    above = domain.partition(".")[2]
    while above:
        yield f".{above}"
        above = above.partition(".")[2]
    yield ""


def _senders(sender: str) -> Iterator[str]:
    local, at, domain = sender.rpartition("@")
    if at:
        yield f"{local.lower()}@{domain}"
        yield f"@{domain}"
    yield ""


def _smarthost(rule: Rule) -> Smarthost | None:
    if not rule.host:
        return None  # an exception from a wider rule: by MX
    return Smarthost(rule.host, rule.port, rule.implicit_tls, rule.username, rule.password or "", rule.password is None)
