"""Tells domains daily how TLS with them went (RFC 8460), once for all pods.

The mark that a day is done and the mail are one commit: of two pods one sends it, and one that dies has sent it or not
begun. What is posted is marked before: of two pods one posts it, and one that dies has perhaps not. Whoever is named by
mail and by HTTPS is told both ways. Where nobody could be told, as a web server, the DNS or the store is away, it is
tried at the next look, for as long as the figures are kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from random import random
from typing import Final

from services.core.dns import DnsError, DnsUnavailable, NoSuchName
from services.core.ids import new_spool_id
from services.core.ownmail import OwnMail
from services.core.spool import TICKET_LOST_S
from services.core.store import tlsresults
from services.core.store.engine import Store, StoreUnavailable
from services.core.store.tlsresults import TlsResult
from services.core.telemetry import Logger, Metrics
from services.mxrouter import tlsreport
from services.mxrouter.https import Https, HttpsError
from services.mxrouter.mtasts import Policy
from services.mxrouter.resolve import Asks

_EVERY_S: Final = 900.0
_SETTLED: Final = timedelta(minutes=15)  # after midnight every pod has put its figures of the day before into the store
_AT_ONCE: Final = 500


def _now() -> datetime:
    return datetime.now(UTC)


class Reporter:
    """One per pod."""

    def __init__(
        self, store: Store, mail: OwnMail, dns: Asks, https: Https, policy: Callable[[str], Awaitable[Policy | None]],
        log: Logger, metrics: Metrics, *, host: str, port: int, clock: Callable[[], datetime] = _now,
    ) -> None:  # fmt: skip
        """`policy`: the MTA-STS policy that holds for a domain; `port`: where hosts have TLSA records."""
        self._store, self._mail, self._dns, self._https, self._policy = store, mail, dns, https, policy
        self._log = log
        self._host, self._port, self._clock = host, port, clock
        self._sent = metrics.counter("tls_reports", "Reports on TLS that were sent to other domains.")

    async def report_forever(self) -> None:
        """Look again and again, pods at different times."""
        while True:
            await asyncio.sleep(_EVERY_S * (0.5 + random()))
            try:
                await self.look()
            except StoreUnavailable as error:
                self._log.warning("TLS reports put off", reason=str(error))

    async def look(self) -> None:
        """Report on every day that is over and is not reported on. Raises `StoreUnavailable`."""
        before = (self._clock() - _SETTLED).date()
        async with self._store.query("relay.tls_unreported") as conn:
            owed = await tlsresults.unreported(conn, before, _AT_ONCE)
        for domain, day in owed:
            try:
                await self._report(domain, day)
            except DnsUnavailable as error:
                self._log.info("TLS report put off", domain=domain, reason=str(error))
            except StoreUnavailable:
                raise
            except Exception:
                # One domain's trouble is no other's.
                self._log.exception("TLS report not made", domain=domain)

    async def _report(self, domain: str, day: date) -> None:
        to = await self._readers(domain)
        async with self._store.query("relay.tls_results") as conn:
            counts = await tlsresults.of_domain(conn, domain, day)
        if not any(to) or not counts:
            await tlsresults.report(self._store, domain, day, None, TICKET_LOST_S)
            return
        spool_id = new_spool_id()
        made = tlsreport.Report(
            hostname=self._host,
            domain=domain,
            day=day,
            now=self._clock(),
            name=f"{spool_id}@{self._host}",
            to=to.mail,
            counts=counts,
            published={kind: await self._published(kind, domain, counts) for kind in ("sts", "tlsa")},
        )
        entry = await self._mail.entry(spool_id, to.mail, tlsreport.compose(made)) if to.mail else None
        if not await tlsresults.report(self._store, domain, day, entry, TICKET_LOST_S):
            return
        if entry is not None:
            self._mail.committed(entry)
            self._sent.inc()
        await self._post_all(to.urls, made, withdraw=entry is None)

    async def _post_all(self, urls: Sequence[str], made: tlsreport.Report, *, withdraw: bool) -> None:
        """`withdraw` the mark that the domain is told where no URL takes the report, or we are cancelled before."""
        octets = tlsreport.packed(made)
        try:
            taken = await asyncio.gather(*(self._post(url, octets) for url in urls))
            withdraw = withdraw and bool(urls) and not any(taken)
        finally:
            if withdraw:
                async with self._store.query("relay.tls_withdraw") as conn:
                    await tlsresults.withdraw(conn, made.domain, made.day)

    async def _post(self, url: str, octets: bytes) -> bool:
        """Whether they take it (RFC 8460 5.4)."""
        try:
            status = await self._https.post(url, tlsreport.MEDIA_TYPE, octets)
        except HttpsError as error:
            reason = str(error)
        else:
            if 200 <= status < 300:
                self._sent.inc()
                return True
            reason = f"the answer is {status}"
        self._log.info("TLS report not taken", url=url, reason=reason)
        return False

    async def _readers(self, domain: str) -> tlsreport.Readers:
        try:
            answer = await self._dns.query(f"_smtp._tls.{domain}", "TXT")
        except NoSuchName:
            return tlsreport.Readers()
        return tlsreport.readers(answer.texts)

    async def _published(self, kind: str, domain: str, counts: dict[TlsResult, int]) -> list[str]:
        """The policy as it stands now: how it stood when it was used nobody has kept."""
        if all(session.policy != kind for session in counts):
            return []
        if kind == "sts":
            policy = await self._policy(domain)
            return list(policy.lines) if policy else []
        hosts = sorted({session.host for session in counts if session.policy == kind})
        found: list[str] = []
        for host in hosts:
            try:
                answer = await self._dns.query(f"_{self._port}._tcp.{host}", "TLSA")
            except DnsError:
                continue
            found += [record.to_text() for record in answer.records]
        return found
