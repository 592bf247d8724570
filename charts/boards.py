"""The Grafana dashboards, as tables: what each shows, made into JSON by generate.py.

Only metrics that Posta exports may be asked for (a test compares). `$sel` stands for the namespace that is looked at,
`$__rate_interval` is Grafana's. Figures that every delivery pod tells alike are taken by `max`.
"""

from __future__ import annotations

from typing import NamedTuple

DOORS = ("submission", "mxrouter")
READERS = ("imap", "pop")
KEPT = 'code="250"'
EVERYONE = ("submission", "mxrouter", "filter", "delivery", "imap", "pop", "sync")


class Panel(NamedTuple):
    """One graph: its title, the unit of its axis, and (query, legend) pairs."""

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    says: str = ""


class Board(NamedTuple):
    """One dashboard."""

    name: str
    title: str
    panels: tuple[Panel, ...]


def one(title: str, unit: str, query: str, legend: str, kind: str = "timeseries", says: str = "") -> Panel:
    """A graph of a single query."""
    return Panel(title, unit, ((query, legend),), kind, says)


def rate(metric: str, by: str = "", more: str = "") -> str:
    """Events a second, summed by a label."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped}(rate({metric}{{$sel{',' + more if more else ''}}}[$__rate_interval]))"


def quantile(q: float, metric: str, by: str = "") -> str:
    """A quantile of a histogram."""
    grouped = f"le,{by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({grouped})(rate({metric}_bucket{{$sel}}[$__rate_interval])))"


def times(title: str, metric: str) -> Panel:
    """Median, 95th and 99th of a histogram in seconds."""
    return Panel(title, "s", tuple((quantile(q, metric), f"p{round(q * 100)}") for q in (0.5, 0.95, 0.99)))


def most(metric: str, by: str = "", more: str = "") -> str:
    """A figure that several pods tell alike."""
    grouped = f" by ({by})" if by else ""
    return f"max{grouped}({metric}{{$sel{',' + more if more else ''}}})"


def without(metric: str, bad: str) -> str:
    """The share of an hour's events that were not bad; where none was, there is no series of bad ones to subtract."""
    return f"1 - (sum(rate({metric}{{$sel,{bad}}}[1h])) or vector(0)) / sum(rate({metric}{{$sel}}[1h]))"


def total(metric: str, by: str = "") -> str:
    """A figure of each pod, summed."""
    return f"sum{f' by ({by})' if by else ''}({metric}{{$sel}})"


def connections(service: str, what: str) -> Panel:
    """What is open at a service's doors."""
    return one(what, "short", total(f"posta_{service}_connections", "door"), "{{door}}")


def logins(service: str) -> Panel:
    """Logins by how they ended."""
    return one("Logins", "ops", rate(f"posta_{service}_logins_total", "result"), "{{result}}")


def door_panels(service: str) -> tuple[Panel, ...]:
    """What the two SMTP doors have in common."""
    return (
        one("Messages by reply", "ops", rate(f"posta_{service}_messages_total", "code"), "{{code}}"),
        times("From the final dot to the reply", f"posta_{service}_message_seconds"),
        connections(service, "Open connections"),
        one(
            "Share that is kept",
            "percentunit",
            f"{rate(f'posta_{service}_messages_total', more=KEPT)} / {rate(f'posta_{service}_messages_total')}",
            "250",
        ),
    )


def scaling_panels() -> tuple[Panel, ...]:
    """For each service: its pods, what they carry, and what that costs."""
    carried = (
        *((total(f"posta_{name}_connections"), name) for name in (*DOORS, *READERS)),
        *((total(f"posta_{name}_messages_in_hand"), f"{name}: messages") for name in DOORS),
        (total("posta_filter_scans_in_hand"), "filter: scans"),
        (most("posta_delivery_work_pending", more='subject="local"'), "delivery: tickets"),
        (rate("posta_sync_requests_total"), "sync: requests/s"),
    )
    return (
        one(
            "Pods that are scraped",
            "short",
            'count by (component)(process_start_time_seconds{$sel,component!=""})',
            "{{component}}",
        ),
        Panel("What they carry", "short", carried),
        one("CPU by service", "short", rate("process_cpu_seconds_total", "component"), "{{component}}"),
        one("Memory by service", "bytes", total("process_resident_memory_bytes", "component"), "{{component}}"),
        one(
            "Memory of a pod, largest",
            "bytes",
            "max by (component)(process_resident_memory_bytes{$sel})",
            "{{component}}",
        ),
        one("File descriptors of a pod, most", "short", "max by (component)(process_open_fds{$sel})", "{{component}}"),
    )


BOARDS = (
    Board(
        "overview",
        "Posta / Overview",
        (
            one(
                "Mail arrives (canary)",
                "s",
                quantile(0.95, "posta_canary_journey_seconds"),
                "p95",
                kind="stat",
                says="From handing in to seeing it in INBOX, the way a user does it.",
            ),
            one(
                "Kept a minute",
                "short",
                " + ".join(f"60 * {rate(f'posta_{door}_messages_total', more=KEPT)}" for door in DOORS),
                "messages",
                kind="stat",
            ),
            one(
                "Waiting for a mailbox here",
                "short",
                most("posta_delivery_spool_recipients", more='kind="local"'),
                "",
                kind="stat",
            ),
            one(
                "Waiting to go out",
                "short",
                most("posta_delivery_spool_recipients", more='kind="remote"'),
                "",
                kind="stat",
            ),
            Panel(
                "Message flow",
                "ops",
                (
                    *((rate(f"posta_{door}_messages_total", more='code="250"'), f"{door}: kept") for door in DOORS),
                    (rate("posta_filter_scans_total"), "filter: examined"),
                    (rate("posta_delivery_recipients_delivered_total"), "delivery: into mailboxes"),
                ),
            ),
            Panel(
                "Time of each step, p95",
                "s",
                (
                    *((quantile(0.95, f"posta_{door}_message_seconds"), f"{door}: dot to 250") for door in DOORS),
                    (quantile(0.95, "posta_filter_scan_seconds"), "filter: verdict"),
                    (quantile(0.95, "posta_delivery_recipient_delivery_seconds"), "delivery: 250 to mailbox"),
                ),
            ),
            Panel(
                "Refused or put off",
                "ops",
                tuple(
                    (
                        f'sum by (code)(rate(posta_{door}_messages_total{{$sel,code!="250"}}[$__rate_interval]))',
                        f"{door} {{{{code}}}}",
                    )
                    for door in DOORS
                ),
            ),
            one("Verdicts", "ops", rate("posta_filter_scans_total", "action"), "{{action}}"),
            one("Oldest message that waits", "s", most("posta_delivery_spool_oldest_seconds", "kind"), "{{kind}}"),
            Panel(
                "Open connections",
                "short",
                tuple((total(f"posta_{name}_connections"), name) for name in (*DOORS, *READERS)),
            ),
        ),
    ),
    Board(
        "submission",
        "Posta / Submission",
        (*door_panels("submission"), logins("submission"), times("Time of a login", "posta_submission_login_seconds")),
    ),
    Board("mx", "Posta / MX", door_panels("mxrouter")),
    Board(
        "filter",
        "Posta / Filter",
        (
            one("Verdicts", "ops", rate("posta_filter_scans_total", "action"), "{{action}}"),
            times("Time of a verdict", "posta_filter_scan_seconds"),
            one("Messages in hand", "short", total("posta_filter_scans_in_hand", "pod"), "{{pod}}"),
            one("Time of each engine, p95", "s", quantile(0.95, "posta_filter_engine_seconds", "engine"), "{{engine}}"),
            one("Engines that failed", "ops", rate("posta_filter_engine_faults_total", "engine"), "{{engine}}"),
            one(
                "Age of signatures",
                "s",
                "time() - min(posta_filter_signatures_timestamp_seconds{$sel})",
                "oldest",
            ),
            one("Held for review", "short", most("posta_filter_quarantine_messages", "kind"), "{{kind}}"),
            one("Oldest that is held", "s", most("posta_filter_quarantine_oldest_seconds"), "oldest"),
            one("Mail about held mail", "ops", rate("posta_filter_quarantine_notices_total", "reader"), "{{reader}}"),
        ),
    ),
    Board(
        "queue",
        "Posta / Queue",
        (
            one("Recipients that wait", "short", most("posta_delivery_spool_recipients", "kind"), "{{kind}}"),
            one("Oldest message", "s", most("posta_delivery_spool_oldest_seconds", "kind"), "{{kind}}"),
            one(
                "Overdue",
                "s",
                most("posta_delivery_spool_overdue_seconds", "kind"),
                "{{kind}}",
                says="How long the recipient that waits longest has been due: what the relay scales by.",
            ),
            one("Tried four times or more", "short", most("posta_delivery_spool_failing", "kind"), "{{kind}}"),
            one("Most of one sender", "short", most("posta_delivery_spool_one_sender"), "recipients"),
            one(
                "Attempts by result",
                "ops",
                rate("posta_mxrouter_relay_attempts_total", "result"),
                "{{result}}",
            ),
            times("From the 250 here to the 250 there", "posta_mxrouter_relay_age_seconds"),
            one("The relay's queue", "short", most("posta_mxrouter_relay_queue_recipients", "state"), "{{state}}"),
            one("Visits in progress", "short", total("posta_mxrouter_relay_visits", "kind"), "{{kind}}"),
            one(
                "Connections to other servers", "ops", rate("posta_mxrouter_relay_connections_total", "how"), "{{how}}"
            ),
            one(
                "TLS with them",
                "ops",
                rate("posta_mxrouter_tls_sessions_total", "policy,result"),
                "{{policy}} {{result}}",
            ),
            one(
                "Accounts paused for sending",
                "ops",
                rate("posta_submission_accounts_paused_total", "cause"),
                "{{cause}}",
            ),
            one("Put off: sent too much", "ops", rate("posta_submission_messages_over_limit_total"), "messages"),
        ),
    ),
    Board(
        "delivery",
        "Posta / Delivery and store",
        (
            Panel(
                "Recipients",
                "ops",
                (
                    (rate("posta_delivery_recipients_delivered_total"), "delivered"),
                    (rate("posta_delivery_recipients_refused_total"), "refused"),
                    (rate("posta_delivery_recipients_failed_total"), "failed, tried again"),
                ),
            ),
            times("From the 250 to the mailbox", "posta_delivery_recipient_delivery_seconds"),
            Panel(
                "Transactions",
                "ops",
                tuple((rate(f"posta_{name}_store_transaction_seconds_count"), name) for name in EVERYONE),
            ),
            Panel(
                "Time of a transaction, p95",
                "s",
                tuple((quantile(0.95, f"posta_{name}_store_transaction_seconds"), name) for name in EVERYONE),
            ),
            one(
                "Slowest kinds in delivery, p95",
                "s",
                f"topk(8, {quantile(0.95, 'posta_delivery_store_transaction_seconds', 'name')})",
                "{{name}}",
            ),
            Panel(
                "Found no database",
                "ops",
                tuple((rate(f"posta_{name}_store_unavailable_total"), name) for name in EVERYONE),
            ),
            one("Replication lag", "s", most("posta_delivery_store_replication_lag_seconds"), "slowest replica"),
        ),
    ),
    Board(
        "readers",
        "Posta / IMAP and POP",
        (
            *(connections(name, f"{name.upper()} sessions") for name in READERS),
            *(
                one(f"{name.upper()} logins", "ops", rate(f"posta_{name}_logins_total", "result"), "{{result}}")
                for name in READERS
            ),
            *(times(f"Time of a login by {name.upper()}", f"posta_{name}_login_seconds") for name in READERS),
            one("IMAP sessions by pod", "short", total("posta_imap_connections", "pod"), "{{pod}}"),
            one(
                "Slowest kinds in IMAP, p95",
                "s",
                f"topk(8, {quantile(0.95, 'posta_imap_store_transaction_seconds', 'name')})",
                "{{name}}",
            ),
        ),
    ),
    Board(
        "sync",
        "Posta / HTTP",
        (
            one("Requests", "reqps", rate("posta_sync_requests_total", "method,code"), "{{method}} {{code}}"),
            times("Time of a request", "posta_sync_request_seconds"),
        ),
    ),
    Board(
        "nats",
        "Posta / NATS",
        (
            one(
                "Tickets that nobody has taken", "short", most("posta_delivery_work_pending", "subject"), "{{subject}}"
            ),
            one("Tickets in hand", "short", most("posta_delivery_work_in_hand", "subject"), "{{subject}}"),
            one("Handed out again", "short", most("posta_delivery_work_redelivered", "subject"), "{{subject}}"),
            one("Octets in a stream", "bytes", most("posta_delivery_stream_octets", "stream"), "{{stream}}"),
            Panel(
                "Pods without NATS",
                "short",
                tuple((f"count(posta_{name}_bus_connected{{$sel}} == 0) or vector(0)", name) for name in EVERYONE),
            ),
        ),
    ),
    Board("scaling", "Posta / Scaling", scaling_panels()),
    Board(
        "slo",
        "Posta / Service levels",
        (
            one(
                "Canary messages that arrived, 30 days",
                "percentunit",
                'sum(increase(posta_canary_journeys_total{$sel,result="arrived"}[30d]))'
                " / sum(increase(posta_canary_journeys_total{$sel}[30d]))",
                "arrived",
                kind="stat",
            ),
            one(
                "Arrived within 10 s, 30 days",
                "percentunit",
                'sum(increase(posta_canary_journey_seconds_bucket{$sel,le="10.0"}[30d]))'
                " / sum(increase(posta_canary_journey_seconds_count{$sel}[30d]))",
                "within 10 s",
                kind="stat",
            ),
            Panel(
                "Doors that answered 250 or 5xx, not 4xx",
                "percentunit",
                tuple((without(f"posta_{door}_messages_total", 'code=~"4.."'), door) for door in DOORS),
            ),
            one(
                "Delivered within 5 s of the 250",
                "percentunit",
                'sum(rate(posta_delivery_recipient_delivery_seconds_bucket{$sel,le="5.0"}[1h]))'
                " / sum(rate(posta_delivery_recipient_delivery_seconds_count{$sel}[1h]))",
                "delivered",
            ),
            Panel(
                "Logins not lost to us",
                "percentunit",
                tuple(
                    (without(f"posta_{name}_logins_total", 'result="unavailable"'), name)
                    for name in ("submission", *READERS)
                ),
            ),
            Panel(
                "Days until the certificate ends",
                "d",
                tuple(
                    (f"(min(posta_{name}_certificate_expiry_timestamp_seconds{{$sel}}) - time()) / 86400", name)
                    for name in (*DOORS, *READERS, "sync")
                ),
            ),
        ),
    ),
)
