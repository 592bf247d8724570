"""What registers an extension: one record, from which dispatch, states, CAPABILITY and ENABLE are derived."""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from services.imap.wire.cursor import Cursor
from services.imap.wire.responses import Response

if TYPE_CHECKING:
    from services.imap.session import Session


class State(enum.Enum):
    """Where a session stands (RFC 9051 3)."""

    NOT_AUTHENTICATED = enum.auto()
    AUTHENTICATED = enum.auto()
    SELECTED = enum.auto()
    LOGOUT = enum.auto()


# The sets of states that commands are allowed in.
NOT_AUTHENTICATED = frozenset({State.NOT_AUTHENTICATED})
AUTHENTICATED = frozenset({State.AUTHENTICATED, State.SELECTED})
SELECTED = frozenset({State.SELECTED})
ANY = NOT_AUTHENTICATED | AUTHENTICATED


class Named(Protocol):
    """Anything that is looked up by the name the client writes."""

    @property
    def name(self) -> str:
        """In capitals."""


T = TypeVar("T")
N = TypeVar("N", bound=Named)


@dataclass(frozen=True, slots=True)
class Command:
    """One command; a UID command is one of its own, "UID FETCH"."""

    name: str
    states: frozenset[State]
    parse: Callable[[Cursor], Any]
    """Reads all behind the name, its first space and its end included; raises `BadSyntax`."""
    run: Callable[[Session, Any], AsyncGenerator[Response, None]]
    """Yields responses; the first `Ok`, `No` or `Bad` that is not untagged completes the command."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One RFC's worth of protocol. `names` are what CAPABILITY tells of it, none where it is part of the base."""

    names: tuple[str, ...]
    rfc: int
    commands: tuple[Command, ...] = ()
    fetch_items: tuple[Named, ...] = ()
    search_keys: tuple[Named, ...] = ()
    status_items: tuple[Named, ...] = ()
    parameters: tuple[Named, ...] = ()
    """Of SELECT and LIST."""
    enable: str | None = None
    """The name ENABLE takes (RFC 5161)."""


class Registry:
    """Everything a server speaks, by name. Built once; raises ValueError where two features claim one name."""

    __slots__ = ("capabilities", "commands", "enables", "fetch_items", "parameters", "search_keys", "status_items")

    def __init__(self, features: Iterable[Feature]) -> None:
        features = tuple(features)
        self.capabilities = tuple(_unique((name, name) for each in features for name in each.names))
        self.commands = _by_name(command for each in features for command in each.commands)
        # Each slot's owner knows what it registered: items, keys, columns are its own types.
        self.fetch_items: dict[str, Any] = _by_name(item for each in features for item in each.fetch_items)
        self.search_keys: dict[str, Any] = _by_name(key for each in features for key in each.search_keys)
        self.status_items: dict[str, Any] = _by_name(item for each in features for item in each.status_items)
        self.parameters: dict[str, Any] = _by_name(parameter for each in features for parameter in each.parameters)
        self.enables = frozenset(_unique((each.enable, each) for each in features if each.enable is not None))


def _by_name(named: Iterable[N]) -> dict[str, N]:
    return _unique((each.name, each) for each in named)


def _unique(pairs: Iterable[tuple[str, T]]) -> dict[str, T]:
    found: dict[str, T] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name} is registered twice")
        found[name] = value
    return found
