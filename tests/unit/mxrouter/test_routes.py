"""Of the operators' rules the most specific one wins."""

from __future__ import annotations

import pytest

from services.core.store import routes as store
from services.mxrouter.carriage import Route, Smarthost
from services.mxrouter.routes import destination, pick, table

RULES = table(
    store.rule(host, sender=sender, recipient=recipient)
    for sender, recipient, host in [
        ("", "", "everything"),
        ("@posta.test", "", "ours"),
        ("alice@posta.test", "", "alice"),
        ("", ".example.org", "below"),
        ("", ".a.example.org", "further-below"),
        ("", "example.org", "exact"),
        ("@posta.test", "example.org", "ours-to-exact"),
        ("", "direct.test", ""),
    ]
)


@pytest.mark.parametrize(
    ("sender", "domain", "host"),
    [
        ("x@y.test", "far.test", "everything"),
        ("", "far.test", "everything"),
        ("bob@posta.test", "far.test", "ours"),
        ("alice@posta.test", "far.test", "alice"),
        ("ALICE@posta.test", "far.test", "alice"),
        ("x@y.test", "example.org", "exact"),
        ("bob@posta.test", "example.org", "ours-to-exact"),
        # Of the recipient's side the rule is nearer, so whoever sends.
        ("alice@posta.test", "b.example.org", "below"),
        ("alice@posta.test", "a.example.org", "below"),
        ("alice@posta.test", "b.a.example.org", "further-below"),
        ("alice@posta.test", "direct.test", None),
        ("alice@posta.test", "below.direct.test", "alice"),
    ],
)
def test_the_most_specific_rule_wins(sender: str, domain: str, host: str | None) -> None:
    route = pick(RULES, sender, domain)
    assert route.domain == domain
    assert (route.smarthost.host if route.smarthost else None) == host


def test_without_rules_mail_goes_by_mx() -> None:
    assert pick({}, "a@b.test", "far.test") == Route("far.test")
    assert destination(Route("far.test")) == "far.test"
    assert destination(Route("far.test", Smarthost("relay.test", 587))) == "relay.test:587"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"host": "no host"}, "no host name"),
        ({"host": "h.test", "port": 0}, "no port"),
        ({"host": "h.test", "username": "u"}, "name and a password"),
        ({"host": "", "recipient": "a.test", "username": "u", "password": "p"}, "needs a host"),
        ({"host": ""}, "by MX already"),
        ({"host": "h.test", "sender": "nobody"}, "sender: "),
        ({"host": "h.test", "recipient": "a..b"}, "recipient: "),
        ({"host": "h.test", "recipient": "someone@a.test"}, "recipient: "),
    ],
)
def test_a_rule_that_is_none_says_why(given: dict[str, object], why: str) -> None:
    with pytest.raises(store.BadRule, match=why):
        store.rule(**given)  # type: ignore[arg-type]


def test_a_rule_is_kept_as_it_is_looked_up() -> None:
    made = store.rule("[2001:DB8::1]", sender="Alice@Posta.Test", recipient=".BÜCHER.example")
    assert (made.host, made.sender, made.recipient) == ("2001:db8::1", "alice@posta.test", ".xn--bcher-kva.example")
