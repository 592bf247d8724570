"""Replies out of octets: what servers in the field say, and what no server should."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.mxrouter.heard import LINE_OCTETS, REPLY_OCTETS, NotSmtp, Replies, Reply


def replies(octets: bytes, cuts: list[int] | None = None) -> list[Reply | str]:
    """Everything that comes out, the reason of an end as a string."""
    framer, found = Replies(), list[Reply | str]()
    edges = sorted({0, len(octets), *(cut % (len(octets) + 1) for cut in cuts or [])})
    for begin, end in pairwise(edges):
        framer.feed(octets[begin:end])
        try:
            while (reply := framer.take()) is not None:
                found.append(reply)
        except NotSmtp as error:
            return [*found, str(error)[:12]]
    return found


@pytest.mark.parametrize(
    ("octets", "reply"),
    [
        (b"250 2.1.0 Sender OK\r\n", Reply(250, "2.1.0", ("Sender OK",))),
        (b"250-first\r\n250 last\r\n", Reply(250, "", ("first", "last"))),
        (b"550-5.1.1 no such\r\n550 5.1.1 user\r\n", Reply(550, "5.1.1", ("no such", "user"))),
        (b"250\r\n", Reply(250, "", ("",))),
        (b"250-\r\n250 \r\n", Reply(250, "", ("", ""))),
        (b"250 lf alone\n", Reply(250, "", ("lf alone",))),
        (b"550 4.1.1 contradicts\r\n", Reply(550, "", ("4.1.1 contradicts",))),
        (b"250 2.0.0\r\n", Reply(250, "2.0.0", ("",))),
        (b"250 10.0.0.1 is no code\r\n", Reply(250, "", ("10.0.0.1 is no code",))),
        (b"250-x\r\n421 codes differ\r\n", Reply(421, "", ("x", "codes differ"))),
        (b"250 gr\xc3\xbc\xc3\x9fe \xff\r\n", Reply(250, "", ("grüße \ufffd",))),
    ],
)
def test_a_reply(octets: bytes, reply: Reply) -> None:
    assert replies(octets) == [reply]


@pytest.mark.parametrize(
    "octets", [b"HTTP/1.1 400 Bad Request\r\n", b"\r\n", b"25\r\n", b"650 x\r\n", b"250x\r\n", b"\0\n"]
)
def test_what_is_no_reply(octets: bytes) -> None:
    assert replies(octets) == ["it said " + repr(octets.rstrip(b"\r\n").decode())[:4]]


def test_a_line_and_a_reply_have_an_end() -> None:
    assert replies(b"250 " + b"x" * LINE_OCTETS) == ["its line is "]
    assert replies(b"250-x\r\n" * (REPLY_OCTETS // 7 + 1)) == ["its reply is"]


def test_the_text_cannot_add_lines_to_what_quotes_it() -> None:
    (reply,) = replies(b"550 a\rb\x1b[31m\xe2\x80\xa8c\r\n")
    assert isinstance(reply, Reply)
    assert reply.text == "a?b?[31m?c"


_SAID = st.lists(
    st.one_of(
        st.sampled_from([b"250 ok\r\n", b"250-a\r\n", b"354\r\n", b"550 5.1.1 x\n", b"\r", b"\n", b"421"]),
        st.binary(max_size=20),
    )
).map(b"".join)


@given(_SAID, st.lists(st.integers(min_value=0, max_value=10_000)))
def test_cuts_make_no_difference(octets: bytes, cuts: list[int]) -> None:
    assert replies(octets, cuts) == replies(octets)
