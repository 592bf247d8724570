"""A reader of IMAP parenthesised data, as a client would write one: what it cannot read, no client can."""

from typing import Any


def read(wire: bytes) -> Any:
    """Nested lists, bytes for strings, None for NIL, int for numbers. Fails on anything that is not one whole value."""
    value, pos = _value(wire, 0)
    assert pos == len(wire), (wire, pos)
    return value


def _value(wire: bytes, pos: int) -> tuple[Any, int]:
    mark = wire[pos : pos + 1]
    if mark == b"(":
        return _list(wire, pos + 1)
    if mark == b'"':
        return _quoted(wire, pos + 1)
    if mark == b"{":
        close = wire.index(b"}\r\n", pos)
        size = int(wire[pos + 1 : close])
        start = close + 3
        assert start + size <= len(wire)
        assert b"\x00" not in wire[start : start + size]
        return wire[start : start + size], start + size
    if wire.startswith(b"NIL", pos):
        return None, pos + 3
    end = pos
    while wire[end : end + 1].isdigit():
        end += 1
    assert end > pos, wire[pos : pos + 40]
    return int(wire[pos:end]), end


def _list(wire: bytes, pos: int) -> tuple[list[Any], int]:
    out: list[Any] = []
    assert wire[pos : pos + 1] != b")", "an empty list is no part of this grammar"
    while wire[pos : pos + 1] != b")":
        # Addresses and bodies of a multipart stand without a space between them.
        if wire[pos : pos + 1] == b" ":
            assert out
            pos += 1
        else:
            assert not out or (wire[pos : pos + 1] == b"(" and wire[pos - 1 : pos] == b")"), wire[pos - 20 : pos + 20]
        value, pos = _value(wire, pos)
        out.append(value)
    return out, pos + 1


def _quoted(wire: bytes, pos: int) -> tuple[bytes, int]:
    out = bytearray()
    while True:
        octet = wire[pos]
        if octet == 0x22:
            return bytes(out), pos + 1
        if octet == 0x5C:
            pos += 1
            octet = wire[pos]
            assert octet in b'"\\'
        assert octet not in b"\r\n\x00"
        assert octet < 0x80
        out.append(octet)
        pos += 1
