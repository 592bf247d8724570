"""strip.py FOLDER: cut from every shared library what only a debugger reads.

A library is loaded by its program headers; symbol tables and debug sections lie behind the last byte that those name.
Wheels are published with them: here they are a quarter of an image, and `strip` would be a package more to install.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

_IDENT = b"\x7fELF\x02\x01"  # 64 bits, little endian: what the platforms of our images have
_SECTIONS = struct.Struct("<Q")  # e_shoff, at 40
_COUNTS = struct.Struct("<HHHHH")  # e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx, at 54
_SEGMENT = struct.Struct("<IIQQQQ")  # p_type, p_flags, p_offset, p_vaddr, p_paddr, p_filesz


def strip(path: Path) -> None:
    """Leave in the library at `path` its headers and its segments."""
    data = bytearray(path.read_bytes())
    if not data.startswith(_IDENT):
        return
    (table,) = _SECTIONS.unpack_from(data, 32)
    entry, count, section_entry, _, _ = _COUNTS.unpack_from(data, 54)
    end = table + entry * count
    for number in range(count):
        _, _, offset, _, _, size = _SEGMENT.unpack_from(data, table + entry * number)
        end = max(end, offset + size)
    _SECTIONS.pack_into(data, 40, 0)
    _COUNTS.pack_into(data, 54, entry, count, section_entry, 0, 0)
    path.write_bytes(data[:end])


if __name__ == "__main__":
    for found in Path(sys.argv[1]).rglob("*.so*"):
        if found.is_file() and not found.is_symlink():
            strip(found)
