"""Spam by rspamd: the message and its whole envelope to `/checkv2` of one of several servers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from services.core.endpoint import Endpoint, endpoint
from services.core.settings import Filter
from services.filter.engine import PASSED_OVER, Engine, Finding, Stage
from services.filter.examined import Examined
from services.filter.http import Answer, post
from services.filter.servers import Servers

NAME = "spam_rspamd"
_DEFAULT_PORT = 11333
_SYMBOLS = 200
_LARGEST = 1e9

# "greylist" is what a score between two thresholds is called, not a wish to delay: rspamd's own milter lets it pass,
# and says "soft reject" while its greylisting module wants the message to come again. Nothing is dropped unseen, so a
# "discard" is refused. Actions that an operator has named himself let the message pass.
JUDGEMENTS = {
    "no action": "JUDGED_CLEAN",
    "greylist": "JUDGED_CLEAN",
    "add header": "JUDGED_JUNK",
    "rewrite subject": "JUDGED_JUNK",
    "quarantine": "JUDGED_JUNK",
    "soft reject": "JUDGED_LATER",
    "reject": "JUDGED_SPAM",
    "discard": "JUDGED_SPAM",
}


def engine(settings: Filter) -> Engine | None:
    """The engine, if a server is configured."""
    if not settings.rspamd:
        return None
    servers = [endpoint(word, _DEFAULT_PORT, "POSTA_FILTER_RSPAMD") for word in settings.rspamd]
    rspamd = Rspamd(servers, settings)
    return Engine(NAME, Stage.JUDGEMENT, settings.engine_deadline_s, rspamd.examine)


class Rspamd:
    """The servers of one setting."""

    def __init__(self, servers: Sequence[Endpoint], settings: Filter) -> None:
        self._servers = Servers(servers, settings.engine_deadline_s)
        self._most = settings.rspamd_max_size

    async def examine(self, examined: Examined) -> Sequence[Finding]:
        """What one of the servers says. Raises NoServer, with every reason, where none could say anything."""
        octets, sent = examined.octets, fields(examined)
        if len(octets) > self._most:
            return [Finding(NAME, PASSED_OVER, "fault", detail=f"larger than {self._most} octets")]

        async def question(where: Endpoint) -> list[Finding]:
            return list(findings(await post(where, "/checkv2", sent, octets)))

        return await self._servers.ask(question)


def fields(examined: Examined) -> list[tuple[bytes, bytes]]:
    """The envelope as header fields of rspamd's protocol; those it can say nothing about are left out."""
    request, client = examined.request, examined.request.client
    version, _, cipher = client.tls.partition(" ")
    recipients = [each.address for each in request.recipients]
    named = [
        ("From", request.sender or "<>"),
        *(("Rcpt", each) for each in recipients),
        # Whose statistics and settings count: with several recipients, nobody's in particular.
        ("Deliver-To", recipients[0] if len(recipients) == 1 else ""),
        ("IP", client.address),
        ("Helo", client.helo),
        ("Hostname", client.rdns),
        ("User", client.login),
        ("Queue-Id", request.envelope.spool_id),
        ("TLS-Version", version),
        ("TLS-Cipher", cipher),
    ]
    return [(name.encode(), octets) for name, value in named if (octets := _field(value))]


def _field(value: str) -> bytes:
    """The value without what could end the field: HELO is the peer's own words."""
    return "".join(c for c in value if c >= " " and c != "\x7f").strip().encode("utf-8", "replace")


def findings(answer: Answer) -> Iterator[Finding]:
    """What rspamd found, and then its judgement. Raises ValueError for an answer that is none."""
    action, score = answer.value.get("action"), _number(answer.value.get("score"))
    if answer.status != 200 or not isinstance(action, str) or score is None:
        raise ValueError(f"unexpected answer {answer.status} {answer.reason[:100]} {answer.value.get('error', '')}")
    rest = score
    for symbol in _symbols(answer.value.get("symbols")):
        rest -= symbol.score
        yield symbol
    yield Finding(
        NAME,
        JUDGEMENTS.get(action, "JUDGED_CLEAN"),
        "spam",
        # What the symbols do not add up to: limits of groups, and scores that an action brings with it.
        score=round(rest, 3),
        detail=_words(answer.value.get("messages")) or action,
        required=_number(answer.value.get("required_score")) or math.inf,
    )


def _symbols(symbols: object) -> list[Finding]:
    """Those that weigh anything, the heaviest first."""
    found = []
    for name, facts in symbols.items() if isinstance(symbols, dict) else ():
        score = _number(facts.get("score")) if isinstance(facts, dict) else None
        if score:
            found.append(Finding(NAME, name, "spam", score, _options(facts.get("options"))))
    return sorted(found, key=lambda each: -abs(each.score))[:_SYMBOLS]


def _options(options: object) -> str:
    return ", ".join(str(each) for each in options[:20]) if isinstance(options, list) else ""


def _words(messages: Any) -> str:
    said = messages.get("smtp_message") if isinstance(messages, dict) else None
    return said if isinstance(said, str) else ""


def _number(value: object) -> float | None:
    # JSON knows numbers of any length.
    return float(value) if isinstance(value, int | float) and abs(value) < _LARGEST else None
