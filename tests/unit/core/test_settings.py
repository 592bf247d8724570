"""What an operator writes and what is said when it is wrong: one line, the key, no secret."""

from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import ValidationError

from services.core.settings import BadSettings, Settings, load, read

DATABASE = {"POSTA_DATABASE_URL": "postgresql://posta:hush@db/posta"}


def test_the_environment_names_a_group_and_a_key() -> None:
    settings = read(
        {
            "POSTA_HOSTNAME": "mx.posta.test",
            "POSTA_GRACE_S": "5",
            "POSTA_SUBMISSION_TLS_PORT": "2465",
            "POSTA_LIMITS_MESSAGE_SIZE": "10MiB",
            "POSTA_SUBMISSION_REQUIRE_KNOWN_FROM": "no",
            "POSTA_FILTER_CLAMD": "clamd-0:3310, clamd-1:3310 /run/clamd.sock",
            "POSTA_FILTER_REFUSE_EXTENSIONS": "",
            "POSTA_PROXY_NETWORKS": "10.0.0.0/8,fd00::/8",
            "POSTA_SYNC_ADMIN_TOKEN": "s3cret",
            "PATH": "/bin",
        }
    )
    assert settings.hostname == "mx.posta.test"
    assert settings.grace_s == 5
    assert settings.submission.tls_port == 2465
    assert settings.submission.port == 587
    assert settings.limits.message_size == 10 * 1024 * 1024
    assert not settings.submission.require_known_from
    assert settings.filter.clamd == ("clamd-0:3310", "clamd-1:3310", "/run/clamd.sock")
    assert settings.filter.refuse_extensions == ()
    assert settings.proxy.networks == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert settings.sync.admin_token is not None
    assert settings.sync.admin_token.get_secret_value() == "s3cret"


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "posta.toml"
    file.write_text('hostname = "a.test"\n[imap]\nport = 2143\ntls_port = 2993\n[filter]\nclamd = ["c:3310"]\n')
    settings = read({"POSTA_CONFIG": str(file), "POSTA_IMAP_PORT": "3143"})
    assert (settings.hostname, settings.imap.port, settings.imap.tls_port) == ("a.test", 3143, 2993)
    assert settings.filter.clamd == ("c:3310",)


@pytest.mark.parametrize(
    ("env", "line"),
    [
        ({"POSTA_IMAP_PORT": "many"}, "POSTA_IMAP_PORT: expected a valid integer"),
        ({"POSTA_IMAP_PORT": "70000"}, "POSTA_IMAP_PORT: expected less than or equal to 65535"),
        ({"POSTA_DATABASE_POOL": "0"}, "POSTA_DATABASE_POOL: expected greater than or equal to 1"),
        ({"POSTA_LOG_LEVEL": "loud"}, "POSTA_LOG_LEVEL: expected 'debug', 'info', 'warning' or 'error'"),
        ({"POSTA_IMPA_PORT": "143"}, "POSTA_IMPA_PORT: unknown key"),
        ({"POSTA_IMAP_PROT": "143"}, "POSTA_IMAP_PROT: unknown key"),
        ({"POSTA_IMAP": "143"}, "POSTA_IMAP: expected"),
        ({"POSTA_IMAP_PORT_143_TCP": "tcp://10.0.0.1:143"}, "enableServiceLinks: false"),
        ({"POSTA_CONFIG": "/nowhere/posta.toml"}, "POSTA_CONFIG: expected a readable TOML file, /nowhere/posta.toml"),
    ],
)
def test_what_is_wrong_is_one_line_naming_the_key(env: dict[str, str], line: str) -> None:
    with pytest.raises(BadSettings) as told:
        read(env)
    assert line in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        ("[imap]\nprot = 143\n", "imap.prot: unknown key"),
        ("[impa]\nport = 143\n", "impa: unknown key"),
        ('[imap]\nport = "many"\n', "imap.port: expected a valid integer"),
        ("imap = 143\n", "imap: expected"),
        ("[imap\n", "expected TOML"),
    ],
)
def test_what_is_wrong_in_the_file_names_the_file_and_the_key(tmp_path: Path, toml: str, line: str) -> None:
    file = tmp_path / "posta.toml"
    file.write_text(toml)
    with pytest.raises(BadSettings) as told:
        read({"POSTA_CONFIG": str(file)})
    assert line in str(told.value)
    assert "posta.toml" in str(told.value)


def test_a_group_given_as_a_value_does_not_hide_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "posta.toml"
    file.write_text("imap = 143\n")
    with pytest.raises(BadSettings, match="imap: expected a table"):
        read({"POSTA_CONFIG": str(file), "POSTA_IMAP_PORT": "143"})


def test_a_service_stops_with_2_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        load({"POSTA_POP_PORT": "-1", **DATABASE})
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "posta: POSTA_POP_PORT: expected greater than or equal to 0\n"
    with pytest.raises(SystemExit):
        load({})
    assert capsys.readouterr().err == "posta: POSTA_DATABASE_URL: expected a value, it is not set\n"


def test_what_only_the_dev_room_uses_is_let_be() -> None:
    assert load({"POSTA_HOME": "/x", "POSTA_PORT_BASE": "3000", "POSTA_CONFIG": "", **DATABASE}).imap.port == 143


def test_no_secret_is_shown() -> None:
    settings = read({"POSTA_SYNC_ADMIN_TOKEN": "hush", "POSTA_NATS_URL": "nats://u:hush@n", **DATABASE})
    assert "hush" not in repr(settings)
    assert "hush" not in str(settings)
    with pytest.raises(BadSettings) as told:
        read({"POSTA_LOGIN_CACHE_S": "hush"})
    assert "hush" not in str(told.value)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().imap.port = 1


@pytest.mark.parametrize(
    ("url", "direct", "said"),
    [
        ("?prepared_statements=never", "", "POSTA_DATABASE_URL: prepared_statements: expected on or off"),
        (
            "?prepared_statements=off",
            "",
            "settings: database.direct_url: expected a way past the pooler, prepared_statements is off in url",
        ),
        (
            "",
            "postgresql://posta:hush@pooler/posta?prepared_statements=off",
            "POSTA_DATABASE_DIRECT_URL: expected a way past the pooler, prepared_statements is off in it",
        ),
    ],
)
def test_a_pooler_needs_a_way_past_it(url: str, direct: str, said: str) -> None:
    given = {"POSTA_DATABASE_URL": DATABASE["POSTA_DATABASE_URL"] + url}
    with pytest.raises(BadSettings) as refused:
        read(given | ({"POSTA_DATABASE_DIRECT_URL": direct} if direct else {}))
    assert str(refused.value) == said


def test_a_pooler_and_the_way_past_it_are_taken() -> None:
    given = {"POSTA_DATABASE_URL": DATABASE["POSTA_DATABASE_URL"] + "?prepared_statements=off"}
    settings = read(given | {"POSTA_DATABASE_DIRECT_URL": "postgresql://posta:hush@db/posta"})
    assert settings.database.direct_url == "postgresql://posta:hush@db/posta"
