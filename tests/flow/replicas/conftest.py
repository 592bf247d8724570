"""A platform with two processes of every service behind one port each."""

from __future__ import annotations

import smtplib
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.dev.plan import SERVICES
from tests.flow.conftest import TWICE, Platform

GRACE_S = 15
"""Long enough for two cores to bring five hundred clients back while they do everything else."""


class Doubled(Platform):
    """Knows which process serves whom, and what each has done."""

    def serving(self, service: str, client: Any) -> str:
        """The process of `service` that has the other end of this client's socket."""
        port = client.getsockname()[1]
        for number in (1, 2):
            name = f"{service}-{number}"
            ends = psutil.Process(self.pid(name)).net_connections("tcp")
            if any(each.raddr and each.raddr.port == port for each in ends):
                return name
        return pytest.fail(f"no process of {service} has this connection")

    def counted(self, process: str, metric: str) -> float:
        """What one process has counted, all labels together."""
        port = self.state["services"][process]["ports"]["health"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        return sum(sample.value for family in families for sample in family.samples if sample.name == metric)

    def apart(self, service: str, connect: Callable[[], Any]) -> tuple[Any, Any]:
        """Two connections that different processes serve. `connect()` gives what has its socket as `sock`."""
        first = connect()
        for _ in range(40):
            second = connect()
            if self.serving(service, second.sock) != self.serving(service, first.sock):
                return first, second
            second.sock.close()
        return pytest.fail(f"one process of {service} takes all connections")


@pytest.fixture(scope="package")
def doubled(lasting_platform: Callable[..., Platform]) -> Iterator[Doubled]:
    """Two of each. It forgives quickly: what was lost with a process is soon missed."""
    made = lasting_platform(
        {
            "POSTA_SPOOL_SWEEP_S": "1",
            "POSTA_DELIVERY_ACK_WAIT_S": "3",
            "POSTA_SCAN_DEADLINE_S": "5",
            "POSTA_GRACE_S": str(GRACE_S),
            "POSTA_SUBMISSION_RECIPIENTS_PER_HOUR": "0",
            "POSTA_SUBMISSION_RECIPIENTS_PER_DAY": "0",
            "POSTA_SUBMISSION_PAUSE_RECIPIENTS": "0",
        }
    )
    platform = Doubled(made.home, made.base, made.env)
    platform.posta("up", "--detach", "--replicas", TWICE)
    platform.state = platform.status()
    assert {f"{service.name}-{number}" for service in SERVICES for number in (1, 2)} < set(platform.state["services"])
    yield platform
    platform.posta("down")


def mx(platform: Platform) -> smtplib.SMTP:
    """A session of another mail server."""
    client = smtplib.SMTP("localhost", platform.ports["smtp"], timeout=60)
    client.ehlo()
    return client
