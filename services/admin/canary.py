"""The canary: mails itself through the whole path, again and again, and shows what that took.

What it shows is what a person would notice: not that each part is well, but that mail arrives.
"""

from __future__ import annotations

import asyncio
import time
from ipaddress import ip_address

from services.admin.clients import Failed, Way
from services.admin.journey import letter, submit, tidy, wait_for
from services.core.dns import Dns, DnsUnavailable, NoSuchName
from services.core.settings import Probe
from services.core.telemetry import Logger, Metrics

_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_LISTS_EVERY = 15  # journeys between two looks at the block lists


class Canary:
    """One per install, as the user `login`."""

    def __init__(self, probe: Probe, way: Way, login: tuple[str, str], log: Logger, metrics: Metrics, dns: Dns) -> None:
        self._probe, self._way, self._login, self._log, self._dns = probe, way, login, log, dns
        self._seconds = metrics.histogram("journey_seconds", "From handing in to seeing it in INBOX.", (), _BUCKETS)
        self._journeys = metrics.counter("journeys", "Messages sent to itself, by how it went.", ["result"])
        self._last = metrics.gauge("last_success_timestamp_seconds", "When a message last arrived.")
        self._listed = metrics.gauge("address_listed", "1 where a block list names an address of ours.", ["blocklist"])
        for result in ("arrived", "failed"):
            self._journeys.labels(result)

    async def run(self) -> None:
        """Until cancelled."""
        turn = 0
        while True:
            began = time.monotonic()
            await self.once()
            if turn % _LISTS_EVERY == 0:
                await self.look_at_lists()
            turn += 1
            await asyncio.sleep(max(0.0, self._probe.every_s - (time.monotonic() - began)))

    async def once(self) -> bool:
        """One message; whether it arrived."""
        message = letter(self._login[0], "Is the mail going?\r\n")
        start = time.monotonic()
        try:
            _, code, text = await asyncio.to_thread(submit, self._probe, self._way, self._login, message)
            if code != 250:
                raise Failed(f"submission answered {code} {text}")
            await asyncio.to_thread(wait_for, self._probe, self._way, self._login, message["Message-ID"])
            took_s = time.monotonic() - start
            await asyncio.to_thread(tidy, self._probe, self._way, self._login)
        except Failed as error:
            self._journeys.labels("failed").inc()
            self._log.error("the canary's message did not arrive", reason=str(error))
            return False
        self._journeys.labels("arrived").inc()
        self._seconds.observe(took_s)
        self._last.set_to_current_time()
        return True

    async def look_at_lists(self) -> None:
        """Ask each block list for each of our public addresses (RFC 5782). What cannot be asked is left as it was."""
        for blocklist in self._probe.blocklists:
            answers = [await self._is_listed(address, blocklist) for address in self._probe.public_addresses]
            if True in answers:
                self._log.error("an address of ours is on a block list", blocklist=blocklist)
            if None not in answers:
                self._listed.labels(blocklist).set(float(True in answers))

    async def _is_listed(self, address: str, blocklist: str) -> bool | None:
        name = ip_address(address).reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")
        try:
            answer = await self._dns.query(f"{name}.{blocklist}", "A")
        except NoSuchName:
            return False
        except DnsUnavailable as error:
            self._log.warning("a block list cannot be asked", blocklist=blocklist, reason=str(error))
            return None
        # RFC 5782 2.1: listings are within 127.0.0.0/8; 127.255.255.0/24 is how lists refuse whoever asks.
        texts = [record.to_text() for record in answer.records]
        return any(text.startswith("127.") and not text.startswith("127.255.255.") for text in texts)
