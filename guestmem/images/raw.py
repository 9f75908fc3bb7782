"""Raw memory: byte n of the file is byte n of guest RAM."""

from __future__ import annotations

from guestmem.images.layout import Format, Layout, PlainLayout, Range, Stored
from guestmem.images.source import Source

NAME = "raw"


def read(source: Source) -> Layout:
    """Whatever the size is: who makes RAM of it checks that."""
    whole = Range("", 0, source.size_bytes)
    return PlainLayout(NAME, source, (Stored(whole, 0, source.size_bytes),))


RAW = Format(NAME, lambda head: True, read)
