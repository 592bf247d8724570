"""Secrets: generated once, kept on an upgrade, derived where nothing can be looked up, or the operator's own."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import helm_python
import pytest
import yaml
from cryptography import x509

from tests.chart.cluster import cluster
from tests.chart.conftest import MINIMAL, NAMESPACE, Render, Rendered, merged


def opened(install: Rendered, name: str = "posta-generated") -> dict[str, str]:
    data = install.kind("Secret")[name]["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def upgraded(chart: helm_python.Chart, secrets: Mapping[str, Mapping[str, Any]], values: Mapping[str, Any]) -> Rendered:
    """The chart rendered as an upgrade on a cluster that has these secrets."""
    with cluster(secrets) as address:
        kubeconfig = yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": address}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "current-context": "c",
            }
        )
        with helm_python.Config(kubeconfig_content=kubeconfig, namespace=NAMESPACE) as config:
            files = config.render(chart, merged(MINIMAL, values), name="posta", namespace=NAMESPACE, is_upgrade=True)
    return Rendered(files)


def test_an_upgrade_keeps_what_was_generated(chart: helm_python.Chart, render: Render) -> None:
    first = render()
    again = upgraded(chart, first.kind("Secret"), {})
    assert again.kind("Secret")["posta-generated"]["data"] == first.kind("Secret")["posta-generated"]["data"]
    assert again.kind("Secret")["posta-tls"]["data"] == first.kind("Secret")["posta-tls"]["data"]


def test_an_upgrade_to_more_nats_members_keeps_the_passwords_and_changes_the_url(
    chart: helm_python.Chart, render: Render
) -> None:
    first = render()
    before, after = opened(first), opened(upgraded(chart, first.kind("Secret"), {"nats": {"members": 3}}))
    assert {key for key in before if before[key] != after[key]} == {"nats-url"}
    assert after["nats-url"].count("nats://posta:") == 3


def test_two_installs_share_no_secret(render: Render) -> None:
    one, other = opened(render()), opened(render())
    assert not set(one.values()) & set(other.values())


def test_a_seed_gives_the_same_secrets_where_nothing_can_be_looked_up(render: Render) -> None:
    values = {"secrets": {"seed": "correct horse battery staple"}}
    assert opened(render(values)) == opened(render(values, upgrade=True))
    assert opened(render(values)) != opened(render({"secrets": {"seed": "another"}}))
    assert len(set(opened(render(values)).values())) == len(opened(render(values)))


def test_generated_passwords_survive_the_release_as_its_volumes_do(rendered: dict[str, Rendered]) -> None:
    secret = rendered["minimal"].kind("Secret")["posta-generated"]
    assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_passwords_are_words_to_nats_and_to_urls(render: Render) -> None:
    for key, value in opened(render()).items():
        if not key.endswith("url"):
            assert value.isalnum(), key
            assert value[0].isalpha(), key
            assert len(value) >= 32, key


def test_the_self_signed_certificate_is_for_the_names_that_clients_use(rendered: dict[str, Rendered]) -> None:
    certificate = x509.load_pem_x509_certificate(opened(rendered["minimal"], "posta-tls")["tls.crt"].encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [
        "mail.example.org", "autoconfig.example.org", "autodiscover.example.org",
    ]  # fmt: skip


def test_cert_manager_is_asked_for_the_same_names(rendered: dict[str, Rendered]) -> None:
    made = rendered["scaled"]
    certificate = made.kind("Certificate")["posta-tls"]["spec"]
    assert certificate["dnsNames"][0] == "mail.example.org"
    assert "posta-tls" not in made.kind("Secret")
    volumes = made.kind("Deployment")["posta-imap"]["spec"]["template"]["spec"]["volumes"]
    assert {"name": "tls", "secret": {"secretName": certificate["secretName"], "defaultMode": 288}} in volumes


def test_each_domain_may_have_a_certificate_of_its_own(rendered: dict[str, Rendered]) -> None:
    made = rendered["scaled"]
    asked = made.kind("Certificate")
    assert asked.keys() == {"posta-tls", "posta-tls-com-tls"}  # who gives no names has a secret already
    assert asked["posta-tls-com-tls"]["spec"]["secretName"] == "com-tls"
    for name in ("posta-imap", "posta-mx"):
        spec = made.kind("Deployment")[name]["spec"]["template"]["spec"]
        (volume,) = (v for v in spec["volumes"] if v["name"] == "tls-domains")
        folders = made.environment(name)["POSTA_TLS_DOMAINS"].split(",")
        for folder, source, secret in zip(folders, volume["projected"]["sources"], ("com-tls", "net-tls"), strict=True):
            assert (source["secret"]["name"], source["secret"]["optional"]) == (secret, True)
            assert [f"/tls-domains/{each['path']}" for each in source["secret"]["items"]] == [
                f"{folder}/tls.crt", f"{folder}/tls.key",
            ]  # fmt: skip
        assert {"name": "tls-domains", "mountPath": "/tls-domains", "readOnly": True} in spec["containers"][0][
            "volumeMounts"
        ]


def test_every_secret_may_be_the_operators_own(rendered: dict[str, Rendered]) -> None:
    made = rendered["external"]
    references = {
        each["name"]: each["valueFrom"]["secretKeyRef"]
        for _, spec in made.pods().values()
        for container in spec["containers"]
        for each in container["env"]
        if "valueFrom" in each
    }
    assert references == {
        "POSTA_DATABASE_URL": {"name": "db-app", "key": "uri"},
        "POSTA_DATABASE_DIRECT_URL": {"name": "db-app", "key": "direct-uri"},
        "POSTA_DATABASE_READ_ONLY_URL": {"name": "db-app", "key": "ro-uri"},
        "POSTA_NATS_URL": {"name": "nats", "key": "url"},
        "POSTA_DKIM_KEY_SECRET": {"name": "dkim", "key": "dkim-key-secret"},
        "POSTA_SRS_SECRET": {"name": "dkim", "key": "srs-secret"},
        "POSTA_SEAL_SECRET": {"name": "seal", "key": "seal-secret"},
        "POSTA_SEAL_FORMER": {"name": "seal", "key": "former"},
        "POSTA_SYNC_ADMIN_TOKEN": {"name": "admin", "key": "token"},
    }
    assert not made.kind("StatefulSet")


def test_every_secret_that_is_read_is_made_here_or_named_by_the_operator(install: Rendered) -> None:
    made = {
        (name, key)
        for name, s in install.kind("Secret").items()
        for key in {**s.get("data", {}), **s.get("stringData", {})}
    }
    for name, (_, spec) in install.pods().items():
        for container in spec["containers"] + spec.get("initContainers", []):
            for each in container.get("env", []):
                reference = each.get("valueFrom", {}).get("secretKeyRef")
                if reference and reference["name"].startswith("posta-"):
                    assert (reference["name"], reference["key"]) in made, (name, each["name"])


def test_no_store_is_a_clear_error(render: Render) -> None:
    with pytest.raises(helm_python.HelmRenderError, match="no database: set"):
        render({"postgres": {"enabled": False}})
    with pytest.raises(helm_python.HelmRenderError, match="no NATS: set"):
        render({"nats": {"enabled": False}})
    with pytest.raises(helm_python.HelmRenderError, match="domain is not set"):
        render({"domain": ""})
