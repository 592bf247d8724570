"""One platform of pods for all tests of this folder."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from functools import partial

import pytest

from services.core.tls import ensure_dev_certificate
from tests.containers.pods import DOMAIN, SERVICES, USER, Platform, doors, eventually, podman


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Postgres, NATS, the migration, and a pod of every service; ready, with the domain posta.test."""
    assert shutil.which("podman"), "run this as `make test-containers`"
    folder = tmp_path_factory.mktemp("tls")
    tls = ensure_dev_certificate(folder, ["localhost"])
    for path in folder.iterdir():
        # As a mounted secret is: the service's own, and nobody else's.
        os.chown(path, USER, USER)
    os.chown(folder, USER, USER)
    platform = Platform(f"posta-{secrets.token_hex(3)}", tls)
    podman("network", "create", platform.network)
    try:
        _start(platform)
        yield platform
    finally:
        platform.down()


def _start(platform: Platform) -> None:
    password = secrets.token_urlsafe(16)
    postgres, nats = platform.host("postgres"), platform.host("nats")
    told = {"POSTGRES_USER": "posta", "POSTGRES_PASSWORD": password, "POSTGRES_DB": "posta"}
    platform.play(
        platform.pod("postgres", "posta-test/postgres", env=[{"name": k, "value": v} for k, v in told.items()]),
        platform.pod("nats", "posta-test/nats", args=["-js", "-sd", "/data/jetstream"]),
    )
    platform.env = {
        "POSTA_HOSTNAME": "localhost",
        "POSTA_GRACE_S": "3",
        "POSTA_DATABASE_URL": f"postgresql://posta:{password}@{postgres}:5432/posta",
        "POSTA_NATS_URL": f"nats://{nats}:4222",
        "POSTA_TLS_CERT": "/etc/posta/tls/cert.pem",
        "POSTA_TLS_KEY": "/etc/posta/tls/key.pem",
        "POSTA_SYNC_ADMIN_TOKEN": platform.token,
    }
    said = partial(platform.log, "postgres")
    eventually("postgres answers", lambda: "ready to accept" in said(), last_words=said)
    # What the migration Job runs, in the image of any service.
    migration = platform.service("migrate", image="delivery", args=["services.core.store.migrate"])
    migration["spec"]["restartPolicy"] = "Never"
    platform.play(migration)
    assert podman("wait", platform.container("migrate")).stdout.strip() == "0", platform.log("migrate")
    platform.play(*(platform.service(name, ports) for name, ports in doors().items()))
    for name in SERVICES:
        platform.until_ready(name)
    platform.admin("domains", {"domain": DOMAIN})
