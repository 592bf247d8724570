"""MTA-STS policies as files."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.mxrouter.mtasts import BadPolicy, Policy, parse

HEAD = "version: STSv1\nmode: enforce\n"


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        (HEAD + "mx: a.test\nmx: *.b.test\nmax_age: 60\n", Policy("enforce", ("a.test", "*.b.test"), 60)),
        (HEAD.replace("\n", "\r\n") + "max_age:60\r\nmx:a.test", Policy("enforce", ("a.test",), 60)),
        ("version: STSv1\nmode: none\nmax_age: 9999999999\n", Policy("none", (), 31_557_600)),
        (HEAD + "mode: none\nmx: a.test\nmax_age: 1\nnew_key: x\n\n", Policy("enforce", ("a.test",), 1)),
    ],
)
def test_a_policy(text: str, policy: Policy) -> None:
    assert parse(text) == policy


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>",
        HEAD + "mx: a.test\n",
        HEAD + "max_age: 60\n",
        HEAD + "mx: a.test\nmax_age: -1\n",
        HEAD + "mx: a.test\nmax_age: 1e3\n",
        "mode: enforce\nmx: a.test\nmax_age: 60\n",
        "version: STSv2\nmode: enforce\nmx: a.test\nmax_age: 60\n",
        "version: STSv1\nmode: maybe\nmx: a.test\nmax_age: 60\n",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(BadPolicy):
        parse(text)


@given(st.text())
def test_whatever_a_web_server_gives(text: str) -> None:
    with suppress(BadPolicy):
        assert parse(text).mode in ("enforce", "testing", "none")


def test_hosts_of_a_policy() -> None:
    policy = Policy("enforce", ("mx.a.test", "*.b.test"), 60)

    assert policy.names("MX.a.test")
    assert policy.names("mx.b.test")
    assert not policy.names("b.test")
    assert not policy.names("mx.c.test")
