"""QEMU's mapped-ram migration files: `migrate file:PATH` with the capability mapped-ram.

Every page of a RAM block has its place in the file, and a bitmap says which were written; the others are zero
(QEMU docs/devel/migration/mapped-ram.rst, migration/ram.c, savevm.c). Integers are big endian, but the
bitmaps, which are words of the host that wrote them: little endian here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from guestmem.images.layout import Format, ImageError, Layout, OnShare, Range, check_pages, shares
from guestmem.images.source import Source, Truncated
from guestmem.page import PAGE_BYTES

NAME = "QEMU mapped-ram"
MAGIC = b"QEVM"
VERSION = 3
CONFIGURATION, SUBSECTION, COMMAND, SECTION_START = 0x07, 0x05, 0x08, 0x01
MEM_SIZE = 0x04
HEADER_BYTES = 28
MAX_BLOCKS = 1000
LONGEST_RUN_BYTES = 16 << 20
PLAIN_STREAM = (
    f"{NAME}: a migration stream without mapped-ram: its pages lie in the order in which they were sent. "
    "Set the capability mapped-ram before migrate file:PATH (libvirt: save_image_format sparse)"
)


class _Cursor:
    """Reads on from a place."""

    def __init__(self, source: Source, at: int) -> None:
        self.source, self.at = source, at

    def take(self, size: int) -> bytes:
        data = self.source.exactly(self.at, size)
        self.at += size
        return data

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def text(self) -> str:
        return self.take(self.number(1)).decode("ascii", "replace")

    def peek(self) -> int:
        return self.source.exactly(self.at, 1)[0]


@dataclass(frozen=True)
class Block:
    """A RAM block: where its pages lie, and which of them (bool a page)."""

    range: Range
    pages_offset: int
    page_bytes: int
    written: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class MappedRam:
    """All blocks of a file."""

    format: str
    source: Source
    blocks: tuple[Block, ...]

    @property
    def ranges(self) -> tuple[Range, ...]:
        return tuple(block.range for block in self.blocks)

    @property
    def size_bytes(self) -> int:
        return sum(block.range.size_bytes for block in self.blocks)

    def fill(self, into: memoryview, on_share: OnShare | None = None) -> None:
        """Runs of pages that were written."""
        done = 0
        for block in self.blocks:
            place = into[done : done + block.range.size_bytes]
            told = shares(on_share, done, len(into))
            for first, last in _runs(block):
                begin, end = first * block.page_bytes, last * block.page_bytes
                self.source.read_into(block.pages_offset + begin, place[begin:end])
                told(end)
            done += block.range.size_bytes


def _runs(block: Block) -> list[tuple[int, int]]:
    """Pages written side by side, at most LONGEST_RUN_BYTES each: first, and one behind the last."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], block.written, [False]))))
    longest = max(1, LONGEST_RUN_BYTES // block.page_bytes)
    return [
        (at, min(at + longest, int(last)))
        for first, last in edges.reshape(-1, 2)
        for at in range(int(first), int(last), longest)
    ]


def read(source: Source, at: int = 0, format_: str = NAME) -> Layout:
    """The blocks of a file whose stream begins at a byte. Raises ImageError."""
    try:
        return MappedRam(format_, source, _blocks(_Cursor(source, at)))
    except Truncated as error:
        raise ImageError(f"{format_}: truncated: {error}") from error


def _blocks(cursor: _Cursor) -> tuple[Block, ...]:
    if cursor.take(4) != MAGIC or cursor.number(4) != VERSION:
        raise ImageError(f"{NAME}: not a migration stream of version {VERSION}")
    capabilities = _configuration(cursor)
    if "mapped-ram" not in capabilities:
        raise ImageError(PLAIN_STREAM)
    while cursor.peek() == COMMAND:
        cursor.take(3)
        cursor.take(cursor.number(2))
    if cursor.number(1) != SECTION_START:
        raise ImageError(f"{NAME}: no RAM section at byte {cursor.at - 1}")
    cursor.take(4)
    name = cursor.text()
    cursor.take(8)
    if name != "ram":
        raise ImageError(f"{NAME}: begins with the section {name!r}, not with RAM")
    total = cursor.number(8)
    if not total & MEM_SIZE:
        raise ImageError(f"{NAME}: no list of RAM blocks")
    total &= ~(PAGE_BYTES - 1)
    found: list[Block] = []
    seen = 0
    while seen < total:
        if len(found) == MAX_BLOCKS:
            raise ImageError(f"{NAME}: more than {MAX_BLOCKS} RAM blocks")
        block = _block(cursor, ignores_shared="x-ignore-shared" in capabilities)
        seen += block.range.size_bytes
        if block.pages_offset:
            found.append(block)
            cursor.at = block.pages_offset + block.range.size_bytes
    if seen != total:
        raise ImageError(f"{NAME}: RAM blocks of {seen} bytes in a list of {total}")
    if not found:
        raise ImageError(f"{NAME}: all RAM was left out (x-ignore-shared): read the VM's memory-backend-file")
    return tuple(found)


def _configuration(cursor: _Cursor) -> set[str]:
    """The capabilities that the stream names."""
    found: set[str] = set()
    if cursor.peek() != CONFIGURATION:
        return found
    cursor.take(1)
    cursor.take(cursor.number(4))
    while cursor.peek() == SUBSECTION:
        cursor.take(1)
        name = cursor.text()
        cursor.take(4)
        if name == "configuration/capabilities":
            found = {cursor.text() for _ in range(min(cursor.number(4), 200))}
        elif name == "configuration/target-page-bits":
            cursor.take(4)
        elif name == "configuration/uuid":
            cursor.take(16)
        else:
            raise ImageError(f"{NAME}: {name!r} in its configuration is not known here")
    return found


def _block(cursor: _Cursor, *, ignores_shared: bool) -> Block:
    name = cursor.text()
    size = cursor.number(8)
    check_pages(NAME, size, f"the RAM block {name!r}")
    address = cursor.number(8) if ignores_shared else None
    version, page_bytes = cursor.number(4), cursor.number(8)
    bitmap_offset, pages_offset = cursor.number(8), cursor.number(8)
    whole = Range(name, address, size)
    if not bitmap_offset and not pages_offset:
        return Block(whole, 0, PAGE_BYTES, np.zeros(0, np.bool_))
    if version > 1 or page_bytes % PAGE_BYTES or not page_bytes or size % page_bytes:
        raise ImageError(f"{NAME}: the RAM block {name!r} has version {version}, pages of {page_bytes} bytes")
    if pages_offset % PAGE_BYTES or not cursor.at <= bitmap_offset <= pages_offset:
        raise ImageError(f"{NAME}: the RAM block {name!r} has its pages at {pages_offset}")
    pages = size // page_bytes
    bitmap = cursor.source.exactly(bitmap_offset, (pages + 63) // 64 * 8)
    written = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little")[:pages].astype(np.bool_)
    last = int(np.flatnonzero(written)[-1]) + 1 if written.any() else 0
    if pages_offset + last * page_bytes > cursor.source.size_bytes:
        raise ImageError(f"{NAME}: truncated in the RAM block {name!r}")
    return Block(whole, pages_offset, page_bytes, written)


MAPPED_RAM = Format(NAME, lambda head: head.startswith(MAGIC), read)
