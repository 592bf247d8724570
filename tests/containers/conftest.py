"""One install of the chart, as pods, for all tests of this folder."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from typing import Any

import helm_python
import pytest

from tests.chart.conftest import CHART, Rendered
from tests.containers.pods import DOMAIN, Platform

# How somebody would install it who has these images, and no load balancer: Services have the ports of their pods.
VALUES: dict[str, Any] = {
    "domain": DOMAIN,
    "hostname": "localhost",
    "image": {"registry": "localhost/", "tag": "test", "pullPolicy": "Never"},
    "postgres": {"image": "localhost/posta-test/postgres"},
    "nats": {"image": "localhost/posta-test/nats"},
    "exposure": {"type": "ClusterIP"},
    "defaults": {"replicas": 1, "graceSeconds": 3},
    "services": {
        "submission": {"ports": {"submission": 2587, "submissions": 2465}},
        "mx": {"ports": {"smtp": 2525}},
        "imap": {"replicas": 2, "graceSeconds": 3, "ports": {"imap": 2143, "imaps": 2993}},
        "pop": {"ports": {"pop3": 2110, "pop3s": 2995}},
        "sync": {"ports": {"http": 2080, "https": 2443}},
    },
    # Spam is for a person to look at, so `helm test` finds it in quarantine.
    "settings": {"filter": {"hold_score": 8}},
}


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The chart's Postgres, NATS and Jobs, and the pods of every service, two of imap; ready."""
    assert shutil.which("podman"), "run this as `make test-containers`"
    release = f"posta-{secrets.token_hex(3)}"
    with helm_python.Chart.load(CHART) as chart:
        chart.validate_schema(VALUES)
        rendered = Rendered(chart.render(VALUES, name=release, namespace="mail", is_install=True, revision=1))
    platform = Platform(release, rendered, tmp_path_factory.mktemp("volumes"))
    try:
        platform.install()
        yield platform
    finally:
        platform.down()
