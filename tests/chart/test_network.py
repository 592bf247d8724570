"""Who may talk to whom, exactly; and how clients come in with their own address."""

from __future__ import annotations

from typing import Any

import helm_python
import pytest

from tests.chart.conftest import Render, Rendered

INTERNET = "0.0.0.0/0"


def pods(install: Rendered) -> dict[str, dict[str, str]]:
    """Labels of every pod of ours, by component."""
    found = {}
    for metadata, _ in install.pods().values():
        found[metadata["labels"]["app.kubernetes.io/component"]] = metadata["labels"]
    return found


def chosen(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def is_peer(peer: dict[str, Any], labels: dict[str, str]) -> bool:
    return "podSelector" in peer and "namespaceSelector" not in peer and chosen(peer["podSelector"], labels)


def named_ports(install: Rendered) -> dict[str, int]:
    containers = [c for _, spec in install.pods().values() for c in spec["containers"]]
    return {port["name"]: port["containerPort"] for c in containers for port in c.get("ports", [])}


def reach(install: Rendered) -> set[tuple[str, str, int]]:
    """(from, to, port) of everything that both ends' policies allow between pods of ours."""
    policies = list(install.kind("NetworkPolicy").values())
    everybody, names = pods(install), named_ports(install)

    def allowed(way: str, ours: dict[str, str], theirs: dict[str, str]) -> set[int]:
        found = set()
        for policy in policies:
            spec = policy["spec"]
            if way.capitalize() not in spec["policyTypes"] or not chosen(spec["podSelector"], ours):
                continue
            for rule in spec.get(way, []):
                peers = rule.get("from" if way == "ingress" else "to")
                if peers is None or any(is_peer(peer, theirs) for peer in peers):
                    found |= {names.get(str(port["port"]), port["port"]) for port in rule["ports"]}
        return found

    return {
        (one, other, port)
        for one, ours in everybody.items()
        for other, theirs in everybody.items()
        for port in allowed("egress", ours, theirs) & allowed("ingress", theirs, ours)
    }


def outwards(install: Rendered, component: str) -> set[int]:
    """Ports that a component may reach on the internet."""
    labels, found = pods(install)[component], set()
    for policy in install.kind("NetworkPolicy").values():
        if not chosen(policy["spec"]["podSelector"], labels):
            continue
        for rule in policy["spec"].get("egress", []):
            peers = rule.get("to")
            if peers is None or any(peer.get("ipBlock", {}).get("cidr") == INTERNET for peer in peers):
                found |= {port["port"] for port in rule["ports"]}
    return found


def test_everything_is_denied_first(install: Rendered) -> None:
    default = install.kind("NetworkPolicy")["posta-default"]["spec"]
    assert default["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in default
    assert all(chosen(default["podSelector"], metadata["labels"]) for metadata, _ in install.pods().values())
    assert [port["port"] for rule in default["egress"] for port in rule["ports"]] == [53, 53]


def test_the_matrix(rendered: dict[str, Rendered]) -> None:
    services = {"submission", "mx", "relay", "filter", "delivery", "imap", "pop", "sync"}
    store = services | {"migrate", "provision", "canary", "test"}
    doors = {"submission": (2587, 2465), "mx": (2525,), "imap": (2143, 2993), "pop": (2110, 2995), "sync": (2080, 2443)}
    assert reach(rendered["everything"]) == {
        *((one, "postgres", 5432) for one in store),
        *((one, "nats", 4222) for one in store),
        ("nats", "nats", 6222),
        ("filter", "clamd", 3310),
        ("filter", "rspamd", 11333),
        ("filter", "rspamd", 11334),
        *((probe, door, port) for probe in ("canary", "test") for door, ports in doors.items() for port in ports),
    }


def test_port_25_outwards_is_the_relays_alone(install: Rendered) -> None:
    for component in pods(install):
        assert (25 in outwards(install, component)) == (component == "relay"), component


def test_readers_and_doors_reach_nothing_outside(rendered: dict[str, Rendered]) -> None:
    for component in ("submission", "mx", "delivery", "imap", "pop", "sync", "postgres", "nats"):
        assert outwards(rendered["minimal"], component) == set(), component


def test_the_relay_cannot_reach_private_networks(rendered: dict[str, Rendered]) -> None:
    (rule,) = rendered["minimal"].kind("NetworkPolicy")["posta-relay"]["spec"]["egress"]
    excepted = {cidr for peer in rule["to"] for cidr in peer["ipBlock"]["except"]}
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "169.254.0.0/16"} <= excepted


def test_external_stores_are_reached_where_they_are_said_to_be(rendered: dict[str, Rendered]) -> None:
    rules = rendered["external"].kind("NetworkPolicy")["posta-store"]["spec"]["egress"]
    assert [(rule["ports"][0]["port"], rule["to"][0]["ipBlock"]["cidr"]) for rule in rules[:2]] == [
        (5432, "10.2.0.0/16"),
        (4222, "10.1.0.0/16"),
    ]


def test_a_collector_is_told_of_and_reached(rendered: dict[str, Rendered], render: Render) -> None:
    made = rendered["external"]
    for name in ("posta-mx", "posta-filter", "posta-relay"):
        environment = made.environment(name)
        assert environment["POSTA_OTLP_ENDPOINT"] == "http://collector.tracing:4318"
        assert environment["POSTA_OTLP_SHARE"] == "0.25"
    (*_, rule) = made.kind("NetworkPolicy")["posta-store"]["spec"]["egress"]
    assert rule == {"ports": [{"port": 4318, "protocol": "TCP"}], "to": [{"namespaceSelector": {}}]}
    away = render({"tracing": {"endpoint": "https://otlp.example.net/otlp"}})
    (*_, rule) = away.kind("NetworkPolicy")["posta-store"]["spec"]["egress"]
    assert rule == {"ports": [{"port": 443, "protocol": "TCP"}]}
    assert "POSTA_OTLP_ENDPOINT" not in rendered["minimal"].environment("posta-mx")


def test_the_mta_sts_policy_is_told_where_other_servers_look(rendered: dict[str, Rendered]) -> None:
    told = rendered["everything"].environment("posta-sync")
    assert told["POSTA_SYNC_MTA_STS"] == "enforce"
    assert told["POSTA_SYNC_MTA_STS_MX"] == "mx1.example.org,mx2.example.org"
    ingress = rendered["everything"].kind("Ingress")["posta-sync"]["spec"]
    assert "mta-sts.example.org" in ingress["tls"][0]["hosts"]
    assert "_mta-sts.example.org." in rendered["everything"].notes
    assert "_mta-sts" not in rendered["minimal"].notes
    assert "POSTA_SYNC_MTA_STS" not in rendered["minimal"].environment("posta-sync")


def test_metrics_are_for_monitoring(install: Rendered) -> None:
    for name, policy in install.kind("NetworkPolicy").items():
        for rule in policy["spec"].get("ingress", []):
            if {"port": "health", "protocol": "TCP"} in rule["ports"]:
                assert rule["from"] == [
                    {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
                ], name


def test_clients_may_be_limited(rendered: dict[str, Rendered]) -> None:
    (_, doors) = rendered["some"].kind("NetworkPolicy")["posta-mx"]["spec"]["ingress"]
    assert doors["from"][0] == {"ipBlock": {"cidr": "203.0.113.0/24"}}


# ---- the way in ------------------------------------------------------------------------------------------------


def test_each_protocol_has_a_balancer_that_keeps_client_addresses(rendered: dict[str, Rendered]) -> None:
    services = rendered["minimal"].kind("Service")
    seen = {}
    for name in ("mx", "submission", "imap", "pop"):
        spec = services[f"posta-{name}"]["spec"]
        assert (spec["type"], spec["externalTrafficPolicy"]) == ("LoadBalancer", "Local")
        assert spec["ipFamilyPolicy"] == "PreferDualStack"
        seen |= {port["name"]: port["port"] for port in spec["ports"]}
    assert seen == {
        "smtp": 25, "submission": 587, "submissions": 465, "imap": 143, "imaps": 993, "pop3": 110, "pop3s": 995,
    }  # fmt: skip
    assert services["posta-sync"]["spec"]["type"] == "ClusterIP"


def test_every_service_finds_its_pods_and_their_ports(install: Rendered) -> None:
    specs = [(metadata["labels"], spec) for metadata, spec in install.pods().values()]
    for name, service in install.kind("Service").items():
        found = [spec for labels, spec in specs if chosen({"matchLabels": service["spec"]["selector"]}, labels)]
        assert found, name
        containers = [container for spec in found for container in spec["containers"]]
        offered = {port["name"] for container in containers for port in container.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= offered, name


def test_a_shared_balancer_has_every_door_and_needs_a_proxy(render: Render, rendered: dict[str, Rendered]) -> None:
    shared = rendered["proxied"].kind("Service")["posta-doors"]["spec"]
    assert {port["port"] for port in shared["ports"]} == {25, 587, 465, 143, 993, 110, 995, 80, 443}
    balancers = [s for s in rendered["proxied"].kind("Service").values() if s["spec"].get("type") == "LoadBalancer"]
    assert len(balancers) == 1
    with pytest.raises(helm_python.HelmRenderError, match=r"needs proxyProtocol\.networks"):
        render({"exposure": {"mode": "shared", "externalTrafficPolicy": "Cluster"}})
    with pytest.raises(helm_python.HelmRenderError, match="needs externalTrafficPolicy Cluster"):
        render({"exposure": {"mode": "shared"}, "proxyProtocol": {"networks": ["10.0.0.1/32"]}})


def test_proxies_are_named_to_the_doors_and_may_be_named_for_one_of_them(rendered: dict[str, Rendered]) -> None:
    for name in ("mx", "submission", "imap", "pop"):
        assert rendered["proxied"].environment(f"posta-{name}")["POSTA_PROXY_NETWORKS"] == "10.9.0.0/24,fd00::/64"
    for name in ("sync", "delivery", "filter", "relay"):
        assert "POSTA_PROXY_NETWORKS" not in rendered["proxied"].environment(f"posta-{name}")
    assert rendered["proxied"].environment("posta-canary")["POSTA_PROBE_PROXY"] == "true"


def test_an_install_that_loses_client_addresses_is_told_so(render: Render) -> None:
    assert (
        "every client will seem to come from a node" in render({"exposure": {"externalTrafficPolicy": "Cluster"}}).notes
    )
    assert "every client will seem to come from a node" not in render().notes


def test_gateway_routes_lead_to_every_door(rendered: dict[str, Rendered]) -> None:
    made = rendered["everything"]
    routes = {kind: made.kind(kind) for kind in ("TCPRoute", "TLSRoute", "HTTPRoute")}
    assert {name for kind in ("TCPRoute", "TLSRoute") for name in routes[kind]} == {
        f"posta-{door}" for door in ("smtp", "submission", "submissions", "imap", "imaps", "pop3", "pop3s")
    }
    assert set(routes["TLSRoute"]) == {"posta-submissions", "posta-imaps", "posta-pop3s"}
    hostnames = routes["HTTPRoute"]["posta-http"]["spec"]["hostnames"]
    assert hostnames[0] == "mail.example.org"
    assert "mta-sts.example.org" in hostnames
    services = made.kind("Service")
    for kind in routes.values():
        for door, route in kind.items():
            assert route["spec"]["parentRefs"] == [
                {"name": "mail", "namespace": "gateways", "sectionName": door.removeprefix("posta-")}
            ]
            (backend,) = route["spec"]["rules"][0]["backendRefs"]
            assert backend["port"] in {port["port"] for port in services[backend["name"]]["spec"]["ports"]}


def test_autoconfig_tells_the_ports_that_clients_see(render: Render) -> None:
    made = render({"services": {"imap": {"ports": {"imap": 0, "imaps": 10993}}, "pop": {"enabled": False}}})
    told = made.environment("posta-sync")
    assert (told["POSTA_SYNC_IMAP_PORT"], told["POSTA_SYNC_IMAP_TLS_PORT"]) == ("0", "10993")
    assert (told["POSTA_SYNC_POP_PORT"], told["POSTA_SYNC_SUBMISSION_TLS_PORT"]) == ("0", "465")


def test_the_notes_name_every_record(rendered: dict[str, Rendered]) -> None:
    notes = rendered["everything"].notes
    for word in (
        "MX      10 mail.example.org.",
        "v=spf1",
        "v=DMARC1",
        "v=TLSRPTv1",
        "v=STSv1",
        "autoconfig.",
        "PTR",
        "DKIM",
    ):
        assert word in notes
    for record in ("_submissions._tcp.example.org. SRV 0 1 465", "_imaps._tcp.example.org. SRV 0 1 993", "_pop3s._tcp"):
        assert record in notes
    assert "helm test posta -n mail" in notes
    assert "_pop3s._tcp" not in rendered["some"].notes
