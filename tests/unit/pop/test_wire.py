"""Lines and bodies, whatever way they are cut and whatever they hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.pop.wire import LINE_LIMIT, Framer, Line, TooLong, multiline, parse, top

LINES = st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"").rstrip(b"\r")), max_size=8)
BODIES = st.lists(st.sampled_from([b".", b"\r\n", b"\n", b"\r", b"a"]), max_size=24).map(b"".join)


@given(LINES, st.lists(st.integers(0, 400)))
def test_any_split_gives_the_same_lines(lines: list[bytes], cuts: list[int]) -> None:
    octets = b"".join(line + b"\r\n" for line in lines)
    framer, found, at = Framer(), [], 0
    for cut in [*sorted(cuts), len(octets)]:
        found += framer.feed(octets[at:cut])
        at = max(at, min(cut, len(octets)))
    assert found == lines
    assert framer.rest == b""


def test_a_line_may_be_as_long_as_the_limit_and_no_longer() -> None:
    framer = Framer()
    assert framer.feed(b"x" * LINE_LIMIT) == []
    with pytest.raises(TooLong):
        framer.feed(b"x")
    with pytest.raises(TooLong):
        Framer().feed(b"NOOP\r\n" + b"x" * (LINE_LIMIT + 1) + b"\r\n")


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        (b"", Line("", "")),
        (b"noop", Line("NOOP", "")),
        (b"PASS  two  spaces ", Line("PASS", " two  spaces ")),
        (b"USER j\xc3\xbcrgen", Line("USER", "jürgen")),
        (b"USER \xff", Line("USER", "�")),
    ],
)
def test_command_lines(line: bytes, parsed: Line) -> None:
    assert parse(line) == parsed


@given(BODIES)
def test_a_body_comes_out_of_its_transfer_as_it_went_in(body: bytes) -> None:
    sent = multiline(b"+OK\r\n", body)
    assert sent.startswith(b"+OK\r\n")
    sent = sent[5:]
    assert sent.endswith(b".\r\n")
    # The end is found nowhere else, by whoever ends lines with CRLF and by whoever ends them with LF.
    lines = sent.split(b"\n")
    assert lines[-2:] == [b".\r", b""]
    assert not {b".\r", b"."} & set(lines[:-2])
    received = b"\n".join(line.removeprefix(b".") for line in lines[:-2]) + b"\n" if lines[:-2] else b""
    assert received in (body, body + b"\r\n")


@given(BODIES, BODIES, st.integers(0, 9))
def test_top_is_the_header_and_so_many_lines(header: bytes, body: bytes, lines: int) -> None:
    found = top(header + body, len(header), lines)
    parts = body.split(b"\n")
    assert found == header + (body if lines >= len(parts) else b"".join(part + b"\n" for part in parts[:lines]))
