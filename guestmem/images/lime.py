"""LiME: a header before each range of physical memory (github.com/504ensicsLabs/LiME, README "spec").

 0  u32 magic 0x4C694D45 ("EMiL" in the file), little endian
 4  u32 version 1
 8  u64 first address
16  u64 last address, which belongs to the range
24  u64 0
"""

from __future__ import annotations

import struct

from guestmem.images.layout import Format, ImageError, Layout, PlainLayout, Range, Stored, check_pages
from guestmem.images.source import Source, Truncated

NAME = "LiME"
MAGIC = b"EMiL"
HEADER = struct.Struct("<IIQQQ")
MAX_RANGES = 10_000


def read(source: Source) -> Layout:
    """Every header. Raises ImageError."""
    found: list[Stored] = []
    at = 0
    while at < source.size_bytes:
        if len(found) == MAX_RANGES:
            raise ImageError(f"{NAME}: more than {MAX_RANGES} ranges")
        try:
            magic, version, first, last, _ = HEADER.unpack(source.exactly(at, HEADER.size))
        except Truncated as error:
            raise ImageError(f"{NAME}: truncated: {error}") from error
        if magic != int.from_bytes(MAGIC, "little") or version != 1 or last < first:
            raise ImageError(f"{NAME}: no header of a range at byte {at}")
        size = last - first + 1
        check_pages(NAME, size, f"the range at address {first:#x}")
        at += HEADER.size
        if at + size > source.size_bytes:
            raise ImageError(f"{NAME}: truncated in the range at address {first:#x}")
        found.append(Stored(Range("", first, size), at, size))
        at += size
    return PlainLayout(NAME, source, tuple(found))


LIME = Format(NAME, lambda head: head.startswith(MAGIC), read)
