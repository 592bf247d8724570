"""What an operator may declare, and the one line that says what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.admin.declared import BadDeclaration, read, write


def test_yaml_and_json_and_the_charts_values_say_the_same() -> None:
    yaml = """
    domains: [Example.ORG]
    accounts:
      - {address: Ann@Example.org, name: Ann, quota: 10G, password: secret}
    aliases:
      - {address: "@example.org", targets: [ann@example.org]}
    """
    declared = read(yaml)
    assert declared.names == ("example.org",)
    assert declared.accounts[0].address == "ann@example.org"
    assert declared.accounts[0].quota == 10 << 30
    assert declared.accounts[0].secret() == "secret"
    assert declared.aliases[0].address == "@example.org"
    json = '{"provision": {"domains": ["example.org"], "accounts": [], "aliases": []}}'
    assert read(json).names == ("example.org",)
    assert read("").names == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("domains: [a b]", "domains.0"),
        ("domains: [{domain: a.test, policy: {heldMail: drop}}]", "domains.0.policy.heldMail"),
        ("domains: [{domain: a.test, policy: {digest: no}}, {domain: A.test, policy: {digest: on}}]", "declared twice"),
        ("accounts: [{address: a@b.c, recipientsPerHour: -1}]", "accounts.0.recipientsPerHour"),
        ("domain: [example.org]", "domain: Extra inputs are not permitted"),
        ("accounts: [{name: x}]", "accounts.0.address: Field required"),
        ("accounts: [{address: a@b.c, quota: much}]", "expected a size such as 10G"),
        ("accounts: [{address: a@b.c, password: x, passwordFile: /y}]", "exclude each other"),
        ("accounts: [{address: a@b.c}, {address: A@B.c}]", "account a@b.c is declared twice"),
        ("aliases: [{address: a@b.c, targets: []}]", "aliases.0.targets"),
        ("accounts: {", "expected YAML or JSON"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str) -> None:
    with pytest.raises(BadDeclaration) as raised:
        read(text)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_refused_document_does_not_show_its_passwords() -> None:
    with pytest.raises(BadDeclaration) as raised:
        read("accounts: [{address: a@b.c, password: hunter2, quota: much}]")
    assert "hunter2" not in str(raised.value)


def test_a_password_comes_from_its_file_without_the_line_end(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("secret \n")
    assert read(f"accounts: [{{address: a@b.c, passwordFile: {tmp_path}/p}}]").accounts[0].secret() == "secret "
    missing = read(f"accounts: [{{address: a@b.c, passwordFile: {tmp_path}/none}}]").accounts[0]
    with pytest.raises(BadDeclaration, match=r"password of a@b\.c"):
        missing.secret()


def test_what_is_written_is_read() -> None:
    text = write(["example.org"], [{"address": "a@example.org", "name": "Ä", "quota": "5G"}], [])
    assert read(text).accounts[0].quota == 5 << 30
