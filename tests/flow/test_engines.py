"""The engines that Debian has: what they say is what the peer hears, without them nothing comes in, and they learn."""

import json
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from services.dev.engines import ENGINES, binary
from tests.flow.clients import Imap, arrived, letter, message_id, submit, swaks
from tests.flow.test_verdicts import EICAR, GTUBE, with_attachment

WITHIN_S = 8


@pytest.fixture(scope="module")
def examined(new_platform: Callable[..., Any]) -> Any:
    """A platform whose mail clamd and rspamd examine."""
    missing = [package for name, (package, _) in ENGINES.items() if binary(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    platform = new_platform({"POSTA_ENGINES": "clamd,rspamd", "POSTA_FILTER_ENGINE_DEADLINE_S": str(WITHIN_S)})
    platform.posta("up", "--detach", "--only", "filter,delivery,submission,mxrouter,imap,pop")
    platform.state = platform.status()
    return platform


def offers(n: int) -> str:
    """Words enough to learn from, and not the same for another `n`."""
    return "".join(f"Cheap watch w{n}x{line}, limited offer o{n}y{line}: order now.\r\n" for line in range(20))


def learned(platform: Any) -> dict[str, int]:
    """How many messages rspamd says it has learned, by symbol."""
    password = (platform.home / "rspamd-password").read_text().strip()
    request = urllib.request.Request(
        f"http://127.0.0.1:{platform.facts('rspamd')['ports']['controller']}/stat", headers={"Password": password}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return {each["symbol"]: each["revision"] for each in json.load(answer)["statfiles"]}


def test_clamd_and_rspamd_are_part_of_the_platform(examined: Any) -> None:
    assert examined.facts("clamd")["ports"] == {"clamd": examined.base + 310}
    assert examined.facts("rspamd")["ports"] == {"rspamd": examined.base + 333, "controller": examined.base + 334}
    assert '"virus_clamd","policy","spam_rspamd"' in examined.log("filter")


@pytest.mark.parametrize("door", ["submission", "smtp"])
def test_clamd_names_the_virus(examined: Any, alice: Any, bob: Any, door: str) -> None:
    user = alice if door == "submission" else None
    code, said = swaks(examined, bob.address, "--body", EICAR, user=user, door=door)
    assert code == 26, said
    assert "554 5.7.1 Message refused: virus found (EICAR-Test-Signature.UNOFFICIAL)" in said


def test_clamd_decodes_attachments(examined: Any, alice: Any, bob: Any) -> None:
    message = with_attachment(alice.address, bob.address, "a.txt", EICAR.encode())
    code, said = submit(examined, alice, bob.address, message)
    assert (code, "EICAR-Test-Signature" in said) == (554, True), said


def test_rspamd_refuses_what_it_rejects(examined: Any, bob: Any) -> None:
    code, said = swaks(examined, bob.address, "--body", GTUBE, door="smtp")
    assert code == 26, said
    assert "554 5.7.1 Message refused: it looks like spam" in said


def test_what_passes_says_how_it_was_judged(examined: Any, alice: Any, bob: Any) -> None:
    message = letter(alice.address, bob.address)
    assert submit(examined, alice, bob.address, message)[0] == 250
    got = arrived(examined, bob, message_id(message))
    assert b"\r\nX-Spam-Status: No, score=" in got
    assert b"required=15.0" in got


@pytest.mark.parametrize("engine", ["clamd", "rspamd"])
def test_without_an_engine_the_doors_say_later(examined: Any, alice: Any, bob: Any, engine: str) -> None:
    examined.stop(engine)
    try:
        code, said = submit(examined, alice, bob.address, letter(alice.address, bob.address))
        assert (code, said[:5]) == (451, "4.7.1")
        assert engine in said
    finally:
        examined.start(engine)
    message = letter(alice.address, bob.address)
    # Shunned for a few seconds, it is asked all the same: there is no other.
    assert submit(examined, alice, bob.address, message)[0] == 250
    arrived(examined, bob, message_id(message))


def test_one_that_is_killed_comes_back_with_its_ports(examined: Any, alice: Any, bob: Any) -> None:
    before = examined.facts("rspamd")
    examined.kill("rspamd")
    examined.eventually("rspamd is started again", lambda: examined.facts("rspamd")["restarts"] > before["restarts"])
    examined.until_ready("rspamd")
    assert submit(examined, alice, bob.address, letter(alice.address, bob.address))[0] == 250


def test_moves_into_and_out_of_junk_are_learned(examined: Any, alice: Any) -> None:
    user = examined.add_user()
    for n in range(2):
        message = letter(alice.address, user.address, offers(n))
        assert submit(examined, alice, user.address, message)[0] == 250
        arrived(examined, user, message_id(message))
    before = learned(examined)

    with Imap(examined, user) as imap:
        imap.command("MOVE 1 Junk")
    examined.eventually("the move taught spam", lambda: learned(examined)["BAYES_SPAM"] == before["BAYES_SPAM"] + 1)
    with Imap(examined, user) as imap:
        # As clients do that have no MOVE.
        imap.command("COPY 1 Junk")
        imap.command("STORE 1 +FLAGS.SILENT (\\Deleted)")
        imap.command("EXPUNGE")
    examined.eventually("the copy taught spam", lambda: learned(examined)["BAYES_SPAM"] == before["BAYES_SPAM"] + 2)
    with Imap(examined, user, "Junk") as imap:
        imap.command("MOVE 2 Trash")
        imap.command("MOVE 1 INBOX")
    examined.eventually("the way back taught ham", lambda: learned(examined)["BAYES_HAM"] == before["BAYES_HAM"] + 1)
    # rspamd takes back what it had learned of that one, and hears nothing of the one thrown away.
    after = {symbol: count - before[symbol] for symbol, count in learned(examined).items()}
    assert after == {"BAYES_SPAM": 1, "BAYES_HAM": 1}


def test_a_lesson_waits_for_rspamd(examined: Any, alice: Any) -> None:
    user = examined.add_user()
    message = letter(alice.address, user.address, offers(7))
    assert submit(examined, alice, user.address, message)[0] == 250
    arrived(examined, user, message_id(message))
    before = learned(examined)
    examined.stop("rspamd")
    try:
        with Imap(examined, user) as imap:
            imap.command("MOVE 1 Junk")
    finally:
        examined.start("rspamd")
    examined.eventually("it was learned", lambda: learned(examined)["BAYES_SPAM"] == before["BAYES_SPAM"] + 1, 60)


def test_the_doctor_says_what_is_examined_and_what_is_wrong(examined: Any) -> None:
    well = examined.try_posta("doctor")
    assert (well.returncode, well.stderr) == (0, ""), well.stdout
    assert f"viruses are examined by clamd at 127.0.0.1:{examined.base + 310}" in well.stdout
    assert f"spam is examined by rspamd at 127.0.0.1:{examined.base + 333}" in well.stdout

    examined.stop("rspamd")
    try:
        ill = examined.try_posta("doctor", "--json")
    finally:
        examined.start("rspamd")
    assert ill.returncode == 1
    said = json.loads(ill.stdout)
    wrong = [finding for finding in said["findings"] if finding["state"] == "wrong"]
    assert said["wrong"] == len(wrong) == 3
    assert {"check": "services", "state": "wrong", "says": "rspamd is down", "do": "`posta start rspamd`"} in wrong
