"""`posta domain dkim`: the keys that a domain's mail is signed with, and what its DNS has to show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.dev.provision_verbs import AsJson, provisioned, settings_of
from services.dev.trouble import Trouble

if TYPE_CHECKING:
    from services.core.store.dkim import Key

_OURS = ("POSTA_CONFIG", "POSTA_DKIM_", "POSTA_DNS_")
_VERBS = {"show": 2, "rotate": 2, "activate": 2, "remove": 2, "import": 4}  # and the words of each
_EXPECTED = "expected DOMAIN, rotate|activate|remove DOMAIN or import DOMAIN SELECTOR FILE"
Words = Annotated[
    list[str], typer.Argument(metavar="[VERB] DOMAIN", help="VERB: rotate, activate, remove or import; none: show.")
]
Force = Annotated[bool, typer.Option("--force", help="Activate without asking the DNS.")]


def dkim(words: Words, force: Force = False, as_json: AsJson = False) -> None:
    """Show a domain's DKIM keys as lines of its zone, making the first pair (RSA and Ed25519); or let others follow.

    rotate makes the next pair. activate signs with it once the DNS shows its records; the pair before retires, its
    records stay a week for mail that is on its way. remove deletes what has been retired for that long.
    import DOMAIN SELECTOR FILE takes the key of another signer, to be activated. What is shown is a zone file for the
    test DNS of `posta up` too: zones/_domainkey.DOMAIN.zone in its home.
    """
    verb, domain, *rest = words if len(words) > 1 else ["show", *words]
    if _VERBS.get(verb) != 2 + len(rest):
        raise Trouble(_EXPECTED, 2)
    settings = dkim_settings()
    adopt = (rest[0], _read(rest[1])) if rest else None
    keys = provisioned(lambda p: p.dkim(verb, domain, settings, force=force, adopt=adopt))
    if as_json:
        print(json.dumps([_row(key) for key in keys], indent=1, default=str))
    else:
        print("\n".join(_removed(keys) if verb == "remove" else _zone(keys)))


def _read(path: str) -> str:
    try:
        return Path(path).read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise Trouble(f"{path}: {getattr(error, 'strerror', None) or 'no private key'}", 2) from None


def dkim_settings() -> Any:
    """How keys are sealed and looked up."""
    return settings_of(_OURS)


def _row(key: Key) -> dict[str, object]:
    from services.core.dkim import zone

    return {
        "domain": key.domain,
        "selector": key.selector,
        "algorithm": key.algorithm,
        "state": key.state,
        "since": key.state_since.isoformat(timespec="seconds"),
        "name": zone.name(key.domain, key.selector),
        "value": zone.value(key.algorithm, key.public_key),
        "zone": zone.line(key.domain, key.selector, key.algorithm, key.public_key),
    }


def _zone(keys: list[Key]) -> Iterator[str]:
    """Lines for a zone file; what is said about them are comments in it."""
    for state in ("active", "published", "retired"):
        if held := [key for key in keys if key.state == state]:
            yield f"; {_said(held[0], any(key.state == 'active' for key in keys))}"
            yield from (str(_row(key)["zone"]) for key in held)


def _said(key: Key, others_sign: bool) -> str:
    from services.core.dkim.rotation import KEEP_DAYS

    match key.state:
        case "active":
            return f"active since {key.state_since:%Y-%m-%d}: mail is signed with these, keep their records"
        case "published":
            meanwhile = "the active ones sign" if others_sign else "nothing is signed"
            do = f"put these records into the zone, then `posta domain dkim activate {key.domain}`"
            return f"published: {do}; until then {meanwhile}"
        case _:
            until = key.state_since + timedelta(days=KEEP_DAYS)
            do = f"keep their records until {until:%Y-%m-%d}, then `posta domain dkim remove {key.domain}`"
            return f"retired {key.state_since:%Y-%m-%d}: mail on its way is signed with these, {do}"


def _removed(keys: list[Key]) -> Iterator[str]:
    yield "; removed: take these records out of the zone"
    yield from (f"; {_row(key)['name']}" for key in keys)
