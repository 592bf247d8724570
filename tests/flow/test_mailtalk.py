"""What the demo says of a letter that is refused: the reply that refused it, not one that came after."""

from __future__ import annotations

import pytest

from services.dev.demo import letter
from services.dev.mailtalk import submit
from services.dev.trouble import Trouble
from tests.flow.conftest import Platform, User


def test_a_refused_sender_is_told_as_such(platform: Platform, alice: User) -> None:
    forged = letter("somebody@elsewhere.test", alice.address, "Hello", "Hello\n")
    with pytest.raises(Trouble, match=r"55\d 5\.7\.1 "):
        submit(platform.ports["submission"], platform.tls(), (alice.address, alice.password), forged)
