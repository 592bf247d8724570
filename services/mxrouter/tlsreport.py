"""The daily report on how TLS with a domain went (RFC 8460): who wants it, what it says, how it looks. Pure."""

from __future__ import annotations

import gzip
import json
import re
from base64 import encodebytes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from email.utils import format_datetime
from itertools import groupby
from typing import Final, NamedTuple
from urllib.parse import unquote

from services.core.store.tlsresults import TlsResult
from services.mxrouter.tally import SUCCESS

# A domain must not have us write to the whole world.
_MOST_READERS: Final = 5
_VERSION = re.compile(r"v=TLSRPTv1[ \t]*;", re.I)
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+")
# No user and no password; what is a host is found out when it is asked for.
_URL = re.compile(r"https://[A-Za-z0-9.:\[\]-]+(?:[/?][!-~]*)?", re.I)
MEDIA_TYPE: Final = "application/tlsrpt+gzip"


class Readers(NamedTuple):
    """Who wants a report: by mail, and by HTTPS at these URLs."""

    mail: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """Everything one report is made of. `published`: the lines of each policy, by its type."""

    hostname: str
    domain: str
    day: date
    now: datetime
    name: str  # unique among our reports
    to: Sequence[str]
    counts: Mapping[TlsResult, int]
    published: Mapping[str, Sequence[str]]


def readers(texts: Sequence[str]) -> Readers:
    """Those whom a domain's TXT records name (RFC 8460 3); nobody where there is not one record."""
    found = [text for text in texts if _VERSION.match(text)]
    if len(found) != 1:
        return Readers()
    tags = (tag.partition("=") for tag in found[0].split(";"))
    uris = next((value for name, _, value in tags if name.strip().lower() == "rua"), "")
    named: dict[str, bool] = {}  # by mail or not
    for uri in map(str.strip, uris.split(",")):
        scheme, _, rest = uri.partition(":")
        address = unquote(rest.partition("?")[0])
        if scheme.lower() == "mailto" and _ADDRESS.fullmatch(address):
            named[address] = True
        elif _URL.fullmatch(uri):
            named[uri] = False
    heard = list(named.items())[:_MOST_READERS]
    return Readers(tuple(n for n, by_mail in heard if by_mail), tuple(n for n, by_mail in heard if not by_mail))


def document(report: Report) -> dict[str, object]:
    """RFC 8460 4.4."""
    rows = sorted(report.counts.items())
    policies = [_policy(report, kind, list(several)) for kind, several in groupby(rows, key=lambda row: row[0].policy)]
    return {
        "organization-name": report.hostname,
        "date-range": {
            "start-datetime": f"{report.day}T00:00:00Z",
            "end-datetime": f"{report.day}T23:59:59Z",
        },
        "contact-info": f"postmaster@{report.hostname}",
        "report-id": report.name,
        "policies": policies,
    }


def _policy(report: Report, kind: str, rows: Sequence[tuple[TlsResult, int]]) -> dict[str, object]:
    good = sum(sessions for session, sessions in rows if session.result == SUCCESS)
    bad = [(session, sessions) for session, sessions in rows if session.result != SUCCESS]
    policy: dict[str, object] = {"policy-type": kind, "policy-domain": report.domain}
    if lines := report.published.get(kind):
        policy["policy-string"] = list(lines)
    if hosts := sorted({session.host for session, _ in rows if session.host}):
        policy["mx-host"] = hosts
    failures = []
    for session, sessions in bad:
        failure: dict[str, object] = {"result-type": session.result, "failed-session-count": sessions}
        if session.host:
            failure["receiving-mx-hostname"] = session.host
        failures.append(failure)
    summary = {
        "total-successful-session-count": good,
        "total-failure-session-count": sum(sessions for _, sessions in bad),
    }
    return {"policy": policy, "summary": summary, **({"failure-details": failures} if failures else {})}


def packed(report: Report) -> bytes:
    """The report as octets of `MEDIA_TYPE` (RFC 8460 5.2)."""
    return gzip.compress(json.dumps(document(report), indent=1).encode(), mtime=0)


def compose(report: Report) -> bytes:
    """The report as a whole message with CRLF line ends, to be sent with a null reverse-path (RFC 8460 5.3)."""
    begin = int(datetime(report.day.year, report.day.month, report.day.day, tzinfo=report.now.tzinfo).timestamp())
    file = f"{report.hostname}!{report.domain}!{begin}!{begin + 86_399}!{report.name.partition('@')[0]}.json.gz"
    boundary = f"report-{report.name.partition('@')[0]}"
    lines = [
        f"From: TLS reports <postmaster@{report.hostname}>",
        f"To: {', '.join(f'<{address}>' for address in report.to)}",
        f"Subject: Report Domain: {report.domain} Submitter: {report.hostname} Report-ID: <{report.name}>",
        f"Date: {format_datetime(report.now)}",
        f"Message-ID: <{report.name}>",
        f"TLS-Report-Domain: {report.domain}",
        f"TLS-Report-Submitter: {report.hostname}",
        "TLS-Required: No",  # RFC 8460 5.3: what fails is not to keep the report of it from arriving
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type="tlsrpt"; boundary="{boundary}"',
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        f"How TLS with the mail hosts of {report.domain} went on {report.day} (UTC),",
        f"as {report.hostname} saw it. You get this because _smtp._tls.{report.domain} asks for it.",
        f"--{boundary}",
        f"Content-Type: {MEDIA_TYPE}",
        f'Content-Disposition: attachment; filename="{file}"',
        "Content-Transfer-Encoding: base64",
        "",
        *encodebytes(packed(report)).decode("ascii").splitlines(),
        f"--{boundary}--",
        "",
    ]
    return "\r\n".join(lines).encode("ascii")
