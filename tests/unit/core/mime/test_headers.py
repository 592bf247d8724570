"""Header blocks: where they end, what their fields are."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.mime.headers import find, find_all, header_end, message_ids, parse_fields, value_of


@pytest.mark.parametrize(
    ("block", "length"),
    [
        (b"A: b\r\n\r\nbody", 8),
        (b"A: b\n\nbody\r\n\r\nmore", 6),
        (b"A: b\r\n\nbody", 7),
        (b"A: b\n\r\nbody\n\n", 7),
        (b"A: b\r\n", 6),
        (b"A: b", 4),
        (b"\r\nA: b\r\n\r\n", 2),
        (b"\nA: b", 1),
        (b"\r\n", 2),
        (b"", 0),
        (b"\r", 1),
    ],
)
def test_where_the_header_ends(block: bytes, length: int) -> None:
    assert header_end(block, 0, len(block)) == length


def names_and_values(block: bytes) -> list[tuple[bytes, bytes]]:
    fields, _ = parse_fields(block, 0, header_end(block, 0, len(block)), 1000)
    for field in fields:
        assert block[field.start : field.end].lower().startswith(field.name)
    return [(field.name, value_of(block, field)) for field in fields]


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (b"From: a\r\nTO : b\r\n\r\nX: y", [(b"from", b"a"), (b"to", b"b")]),
        (b"Subject: one\r\n two\r\n\tthree  \r\n\r\n", [(b"subject", b"one two\tthree")]),
        (b"Subject: one\n two\nTo: x\n\n", [(b"subject", b"one two"), (b"to", b"x")]),
        (b"Subject:\r\n folded\r\n\r\n", [(b"subject", b"folded")]),
        (b"Subject:one\r\n \r\n two\r\nTo:\r\n\r\n", [(b"subject", b"one  two"), (b"to", b"")]),
        (b"From joe@x.test Mon Nov 23 10:00:00 2026\r\nTo: a\r\n\r\n", [(b"to", b"a")]),
        (b">From joe@x.test Mon\r\n and more\r\nTo: a\r\n\r\n", [(b"to", b"a")]),
        (b"no colon here\r\n: no name\r\nTo: a", [(b"to", b"a")]),
        (b"X-\xff: \xfe\r\n\r\n", [(b"x-\xff", b"\xfe")]),
        (b" starts folded\r\nTo: a\r\n", [(b"to", b"a")]),
        (b"A: 1\rB: 2\r\n", [(b"a", b"1\rB: 2")]),
    ],
)
def test_fields(block: bytes, expected: list[tuple[bytes, bytes]]) -> None:
    assert names_and_values(block) == expected


def test_finding_and_the_limit() -> None:
    block = b"A: 1\r\nB: 2\r\nA: 3\r\n\r\n"
    fields, count = parse_fields(block, 0, len(block), 10)
    assert count == 4
    first = find(fields, b"a")
    assert first is not None
    assert value_of(block, first) == b"1"
    assert [value_of(block, field) for field in find_all(fields, b"a")] == [b"1", b"3"]
    assert find(fields, b"c") is None
    assert len(parse_fields(block, 0, len(block), 2)[0]) == 2


@pytest.mark.parametrize(
    ("raw", "ids"),
    [
        (b"<a@b>", ["a@b"]),
        (b"<a@b><c@d>\t<e @f>", ["a@b", "c@d", "e@f"]),
        (b'Your mail of Friday <a@b> (comment) "x" <c@d>', ["a@b", "c@d"]),
        (b"a@b c@d", ["a@b", "c@d"]),
        (b"your message", []),
        (b"<open@b", []),
        (b"<>", []),
        (b"<" + b"x" * 999 + b">", []),
    ],
)
def test_message_ids(raw: bytes, ids: list[str]) -> None:
    assert message_ids(raw) == ids


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([b"A: 1", b" fold", b"junk", b"\r\n", b"\n", b"\r", b":", b"B\t:2", b"\x00"]), max_size=30)
)
def test_fields_follow_each_other_and_stay_inside(pieces: list[bytes]) -> None:
    block = b"".join(pieces)
    end = header_end(block, 0, len(block))
    at = 0
    for field in parse_fields(block, 0, end, 1000)[0]:
        assert at <= field.start < field.value_start <= field.end <= end
        at = field.end
