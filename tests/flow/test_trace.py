"""Where is my mail? `posta trace` knows every step."""

from typing import Any

from tests.flow.clients import letter, message_id, submit


def test_every_step_is_told_whatever_one_asks_by(platform: Any, alice: Any) -> None:
    carol = platform.add_user()
    message = letter(alice.address, carol.address)
    code, said = submit(platform, alice, carol.address, message)
    assert code == 250
    spool_id = said.split()[-1]

    for what in (spool_id, message_id(message), carol.address):
        (journey,) = platform.eventually(
            f"{what} is traced to its end",
            lambda what=what: [
                each for each in platform.trace(what) if "delivered" in {step["step"] for step in each["steps"]}
            ],
        )
        assert journey["spool_id"] == spool_id
        steps = {step["step"]: step for step in journey["steps"]}
        assert list(steps) == ["received", "scanned", "accepted", "delivered"]
        assert steps["accepted"]["service"] == "submission"
        assert steps["delivered"]["recipient"] == carol.address
        assert "250" in steps["accepted"]["detail"]
    assert spool_id in platform.posta("trace", spool_id)


def test_a_refusal_is_traced_with_its_reason(platform: Any, alice: Any, bob: Any) -> None:
    eicar = "X5O!P%@AP[4\\PZX54(P^)7CC)7}" + "$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
    message = letter(alice.address, bob.address, eicar + "\r\n")
    assert submit(platform, alice, bob.address, message)[0] == 554

    (journey,) = platform.eventually("it is traced", lambda: platform.trace(message_id(message)))
    (refused,) = (step for step in journey["steps"] if step["step"] == "refused")
    assert "EICAR" in refused["detail"]
