"""How far a bearer of the admin API reaches.

A route whose handler does not ask for the bearer's reach (`Within`) is the platform's: `guard` lets no bearer of a
token for some domains come to it. A handler that asks keeps to it: it hands `domains` to what lists, and has `check`
look at every name it was given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant

from services.core.address import domain, parse
from services.core.store.accounts import NoSuchDomain


@dataclass(frozen=True, slots=True)
class Reach:
    """What a token is good for. `domains` None: the platform."""

    token: str
    domains: list[str] | None

    def holds(self, address: str) -> bool:
        """Whether the canonical `address` is of a domain in reach."""
        return self.domains is None or address.rpartition("@")[2] in self.domains

    def check(self, address: str) -> None:
        """Raises `NoSuchDomain`, as for one that is not ours, where `address` or "@domain" is not in reach.

        Raises `BadAddress`.
        """
        name = domain(address[1:]) if address.startswith("@") else parse(address).domain
        if not self.holds(name):
            raise NoSuchDomain(name)


def reach_of(request: Request) -> Reach:
    """The bearer's reach, which `guard` found."""
    found: Reach = request.state.reach
    return found


Within = Annotated[Reach, Depends(reach_of)]


def keeps_within(dependant: Dependant) -> bool:
    """Whether the handler asks for the bearer's reach."""
    return any(each.call is reach_of or keeps_within(each) for each in dependant.dependencies)
