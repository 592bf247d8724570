"""Any split of the octets gives the same events; only CRLF . CRLF ends a message; nothing grows without bound."""

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.core.smtp.wire import LONGEST_LINE, Event, Fault, Framer, Line, Message, Newlines, newlines


def read(pieces: Iterable[bytes], limit: int = 50) -> tuple[list[Event], int]:
    """Every event, with the modes that a session would ask for: DATA, BDAT n, and BDAT n in vain (`SKIP n`)."""
    framer, events = Framer(), []
    for piece in pieces:
        framer.feed(piece)
        while (event := framer.take()) is not None:
            events.append(event)
            if isinstance(event, Line):
                verb, _, count = event.octets.partition(b" ")
                if verb == b"DATA":
                    framer.want_message(limit)
                elif verb in (b"BDAT", b"SKIP") and count.isdigit():
                    framer.want_chunk(int(count), keep=verb == b"BDAT")
    return events, len(framer)


def clean(octets: bytes) -> Message:
    return Message(octets, Newlines.CLEAN)


def cut(octets: bytes, at: list[int]) -> list[bytes]:
    edges = sorted({min(place, len(octets)) for place in at} | {0, len(octets)})
    return [octets[a:b] for a, b in itertools.pairwise(edges)]


_PIECES = st.lists(
    st.sampled_from(
        [b"\r\n", b".", b"\r", b"\n", b"..", b"\r\n.\r\n", b"DATA\r\n", b"BDAT 3\r\n", b"SKIP 7\r\n", b"x" * 30, b"ab"]
    ),
    max_size=30,
).map(b"".join)


@given(_PIECES, st.lists(st.integers(0, 300), max_size=40))
@example(b"DATA\r\n.\r\nNOOP\r\n", list(range(20)))
@example(b"DATA\r\n" + b"y" * 90 + b"\r\n.\r\nNOOP\r\n", list(range(120)))
def test_any_split_gives_the_same_events(octets: bytes, at: list[int]) -> None:
    whole = read([octets])
    assert read(cut(octets, at)) == whole
    assert read(octets[i : i + 1] for i in range(len(octets))) == whole


@given(st.lists(st.sampled_from([b".", b"..", b"a", b"\r\n", b".\r\n", b"\r\n."]), max_size=25).map(b"".join))
def test_a_message_sent_with_its_dots_doubled_comes_back_as_it_was(message: bytes) -> None:
    message += b"\r\n"
    stuffed = (b"." if message.startswith(b".") else b"") + message.replace(b"\r\n.", b"\r\n..")
    assert read([b"DATA\r\n" + stuffed + b".\r\nNOOP\r\n"], 1000)[0] == [Line(b"DATA"), clean(message), Line(b"NOOP")]


def test_an_empty_message_ends_with_the_dot_after_data() -> None:
    assert read([b"DATA\r\n.\r\n"])[0] == [Line(b"DATA"), clean(b"")]


@pytest.mark.parametrize(
    "end",
    [
        b"\n.\n",
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r.\r",
        b"\r.\r\n",
        b"\r\n.\r",
        b"\n.\r",
        b"\r.\n",
        b"\n\n.\r\n",
        b"\r\r\n.\r\r\n",
    ],
)
def test_false_ends_do_not_end_and_are_known(end: bytes) -> None:
    events, _ = read([b"DATA\r\nhello" + end + b"MAIL FROM:<x@y>\r\n.\r\nNOOP\r\n"], 1000)
    assert len(events) == 3
    assert events[2] == Line(b"NOOP")
    assert isinstance(events[1], Message)
    assert events[1].newlines is Newlines.FALSE_END


@pytest.mark.parametrize("message", [b"a\r\n.\r\nb\r\n", b"a\r\n..\r\n", b".\r\n", b"", b"a\r\n.", b".a\r\n\r\n"])
def test_honest_dots_are_no_false_ends(message: bytes) -> None:
    assert newlines(message) is Newlines.CLEAN


@pytest.mark.parametrize("message", [b"a\nb\r\n", b"a\rb\r\n", b"\n", b"a.\nb\r\n", b"\nb.\r\n", b"a\r\r\n"])
def test_bare_newlines_away_from_dots_are_told_apart(message: bytes) -> None:
    assert newlines(message) is Newlines.BARE


@pytest.mark.parametrize(("size", "fits"), [(50, True), (51, False), (52, False), (66, False), (200, False)])
def test_the_limit_counts_octets_without_stuffed_dots(size: int, fits: bool) -> None:
    lines = b".\r\n" * 20
    message = (lines + b"x" * 200)[: size - 2] + b"\r\n"
    stuffed = b"." + message.replace(b"\r\n.", b"\r\n..")
    events, _ = read([b"DATA\r\n", stuffed, b".\r\n"])
    assert events[1] == (clean(message) if fits else Fault.TOO_BIG)


def test_what_is_over_the_limit_is_not_held() -> None:
    framer = Framer()
    framer.want_message(1000)
    for _ in range(1000):
        framer.feed(b"z" * 5000)
        assert framer.take() is None
        assert len(framer) < 6500
    framer.feed(b"\r\n.\r\n")
    assert framer.take() is Fault.TOO_BIG


def test_a_line_without_end_is_not_held_and_is_one_fault() -> None:
    framer = Framer()
    for _ in range(100):
        framer.feed(b"z" * 5000)
        assert framer.take() is None
        assert len(framer) <= LONGEST_LINE + 5000
    framer.feed(b"\r\nNOOP\r\n")
    assert [framer.take(), framer.take()] == [Fault.LINE_TOO_LONG, Line(b"NOOP")]


@pytest.mark.parametrize("line", [b"NOOP\n", b"NO\rOP\r\n", b"NOOP\r\r\n", b"\n"])
def test_a_line_ends_with_crlf_only(line: bytes) -> None:
    assert read([line])[0] == [Fault.BARE_NEWLINE]
