"""One certificate for each domain: a client is shown the one that has the name it asked for (RFC 6066 3).

Each lies in a folder of its own, as a mounted secret does. Folders that are empty yet, or broken, cost their own names
alone: those clients are shown the first certificate until the files are good.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from services.core.telemetry import Logger
from services.core.tls import LOOK_S, BadCertificate, Certificate

CERT, KEY = "tls.crt", "tls.key"  # as in a Kubernetes secret of type tls


class Certificates:
    """The certificate of everybody, and those of further domains. `context` is what listeners are given."""

    def __init__(
        self,
        first: Certificate,
        folders: Sequence[Path],
        log: Logger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first, self._folders, self._log, self._clock = first, folders, log, clock
        self._held: dict[Path, Certificate] = {}
        self._by_name: dict[str, Certificate] = {}
        self._said: dict[Path, str] = {}
        self._next_look = 0.0
        self._look()

    def context(self) -> ssl.SSLContext:
        """The context for a new connection; it moves on to the certificate that the client's name asks for."""
        context = self._first.context()
        if self._folders:
            context.sni_callback = self._choose
        return context

    def ends_at(self) -> float:
        """When the first of them to end does, as a Unix timestamp."""
        self._look()
        return min(each.ends_at() for each in (self._first, *self._held.values()))

    def _choose(self, tls: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        self._look()
        asked = (name or "").lower()
        found = self._by_name.get(asked) or self._by_name.get("*." + asked.partition(".")[2])
        # Of the first as well: whoever listens may have kept a context from before a renewal.
        tls.context = (found or self._first).context()

    def _look(self) -> None:
        """Read the folders, at most every five seconds: which names there are changes with a certificate."""
        now = self._clock()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_S
        by_name: dict[str, Certificate] = {}
        for folder in self._folders:
            if (held := self._held.get(folder) or self._begun(folder)) is not None:
                by_name |= dict.fromkeys(held.names(), held)
        self._by_name = by_name

    def _begun(self, folder: Path) -> Certificate | None:
        """The folder's certificate, once it can be served; from then on it minds itself. What is wrong is said once."""
        try:
            held = self._held[folder] = Certificate(folder / CERT, folder / KEY, self._log, clock=self._clock)
        except BadCertificate as error:
            if self._said.get(folder) != str(error):
                self._said[folder] = str(error)
                self._log.error("a domain's certificate cannot be served", reason=str(error))
            return None
        return held
