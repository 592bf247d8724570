"""Built-in signatures: YARA rules over the message, its decoded parts and what its archives hold.

Examines where no clamd is configured. The rules are in `rules/`; each names its virus in the meta value `symbol`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import yara_x

from services.core.settings import Filter
from services.filter.archive import walk
from services.filter.engine import Engine, Finding, Stage
from services.filter.examined import Examined
from services.filter.heavy import looked_at

NAME = "virus_signatures"
# YARA holds the interpreter while it scans. What a rule combines must lie within one window of a larger file.
_WINDOW, _OVERLAP = 8 * 1024 * 1024, 4096
RULES = Path(__file__).with_name("rules")


def engine(settings: Filter) -> Engine | None:
    """The engine, unless a clamd is configured, which knows more."""
    if settings.clamd:
        return None
    signatures = Signatures()

    return Engine(
        NAME, Stage.CONTENT, settings.engine_deadline_s, lambda examined: looked_at(examined, signatures.look)
    )


class Signatures:
    """The rules, compiled once.

    A scanner that is used again is 20 us cheaper than a new one, yet bound to the thread that made it, dead or alive:
    the thread of the loop has one, the others, which look at large messages, do without.
    """

    def __init__(self, rules: Path = RULES) -> None:
        compiler = yara_x.Compiler(includes_enabled=False)
        for path in sorted(rules.glob("*.yar")):
            compiler.add_source(path.read_text(), path.name)
        self._rules = compiler.build()
        self._scanner = yara_x.Scanner(self._rules)
        self._thread = threading.get_ident()

    def look(self, examined: Examined) -> list[Finding]:
        """Whatever the rules know in the message; blocks for as long as it takes."""
        found: dict[str, Finding] = {}
        for place, octets in self._contents(examined, found):
            for symbol in self._scan(octets):
                found.setdefault(symbol, Finding(NAME, symbol, "virus", detail=place))
        return list(found.values())

    def _contents(self, examined: Examined, found: dict[str, Finding]) -> Iterator[tuple[str, bytes]]:
        yield "message", examined.plain
        bounds = examined.bounds()
        for number, leaf in enumerate(examined.leaves, 1):
            place = leaf.names[0] if leaf.names else f"part {number}"
            # A rule may want the start of a file, which the message as a whole has not; plain text was seen above.
            if leaf.encoded or leaf.part.type != "text":
                yield place, leaf.content
            if leaf.is_archive:
                for member in walk(leaf.content, bounds):
                    if member.content is not None:
                        yield f"{place}/{member.name}", member.content
                if bounds.exceeded:
                    found["ARCHIVE_LIMIT"] = Finding(
                        NAME, "ARCHIVE_LIMIT", "policy", detail=f"{place}: {bounds.exceeded}"
                    )
                    return

    def _scan(self, octets: bytes) -> list[str]:
        here = threading.get_ident() == self._thread
        scan = self._scanner.scan if here else self._rules.scan
        return [
            _symbol(rule)
            for start in range(0, len(octets), _WINDOW)
            for rule in scan(octets[start : start + _WINDOW + _OVERLAP]).matching_rules
        ]


def _symbol(rule: yara_x.Rule) -> str:
    return next((str(value) for key, value in rule.metadata if key == "symbol"), rule.identifier)
