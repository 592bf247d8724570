"""What is sealed, who opens it, and how one secret follows another."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from services.core.seal import NoSeal, Seal, Unopened

OLD, NEW = SecretStr("old wax"), SecretStr("new wax")


def test_who_has_the_secret_opens_it_and_nobody_else() -> None:
    kept = Seal(OLD).close("pässword")
    assert "pässword" not in kept
    assert kept != Seal(OLD).close("pässword"), "two that are alike must not look it"
    assert Seal(OLD).open(kept) == "pässword"
    for stranger in (Seal(None), Seal(NEW)):
        with pytest.raises(Unopened) as caught:
            stranger.open(kept)
        assert "wax" not in str(caught.value)
    with pytest.raises(Unopened):
        Seal(OLD).open(kept[:-4] + "AAAA")


def test_a_new_secret_opens_what_the_former_closed_until_it_is_sealed_anew() -> None:
    kept, turning = Seal(OLD).close("x"), Seal(NEW, OLD)
    assert turning.open(kept) == "x"
    assert not turning.holds(kept)
    anew = turning.close(turning.open(kept))
    assert turning.holds(anew)
    assert Seal(NEW).open(anew) == "x"


def test_without_a_secret_nothing_is_closed() -> None:
    for seal in (Seal(None), Seal(None, OLD)):
        with pytest.raises(NoSeal):
            seal.close("x")
    assert Seal(None, OLD).open(Seal(OLD).close("x")) == "x"


def test_what_was_kept_in_the_clear_opens_as_it_is_and_is_not_held() -> None:
    assert Seal(None).open("plain") == "plain"
    assert not Seal(NEW).holds("plain")
