"""A page as the difference to what the destination has of it: which lines of it changed, and to what.

A line is 64 bytes: a cache line, so what a guest writes at once lies in few of them. The deltas of a packet
are one group, which the packet's method compresses as one:

     8 bytes a page     bit i of byte j: line 8 j + i of the page changed
     1 bit a page       1: its lines are the XOR of the new and the old ones; 0: the new ones; in whole bytes
    64 bytes a line     the changed lines, in order

Where most words of a changed line stay as they were, XOR leaves zeros, which compress; where a line has new
content, its own bytes compress better than their XOR with something else. A page of which too much changed is
no delta: a codec makes more of a whole page. QEMU's XBZRLE (migration/xbzrle.c) has runs of bytes instead,
and no codec behind it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from guestmem.page import PAGE_BYTES, WORDS_PER_PAGE
from pipeline.errors import BadPacket

LINE_BYTES, WORD_BYTES = 64, 8
LINES = PAGE_BYTES // LINE_BYTES
WORDS_PER_LINE = LINE_BYTES // 8
MAP_BYTES = LINES // 8

XOR_WORDS = 2
"""A page whose changed lines have at most so many changed words each, on average, goes as XOR."""

MOST_LINES = 40
"""Of new content: more of them, and the whole page takes about as few bytes."""

MOST_XOR_WORDS = 192
"""Of 512: more changed words, and the whole page takes about as few bytes."""

Words = npt.NDArray[np.uint64]
"""(n, 512): pages."""

Lines = npt.NDArray[np.bool_]
"""(n, 64): which lines of each page changed."""


@dataclass(frozen=True)
class Change:
    """What changed in pages: their lines, how many words of each, and which pages go as a delta, and of those
    which as XOR."""

    difference: Words
    lines: Lines
    words: npt.NDArray[np.intp]
    as_delta: npt.NDArray[np.bool_]
    as_xor: npt.NDArray[np.bool_]


def change(new: Words, old: Words) -> Change:
    """Compare pages with their former selves, and choose for each."""
    difference = new ^ old
    changed = difference != 0
    words = np.count_nonzero(changed, axis=1)
    # The eight bools of a line are one word.
    lines = changed.view(np.uint64) != 0
    line_count = np.count_nonzero(lines, axis=1)
    as_xor = (words <= XOR_WORDS * line_count) & (words <= MOST_XOR_WORDS)
    return Change(difference, lines, words, as_xor | (line_count <= MOST_LINES), as_xor)


def pack_group(new: Words, found: Change) -> bytes:
    """The group of the pages that go as a delta, in their order."""
    chosen = found.as_delta
    lines, as_xor = found.lines[chosen], found.as_xor[chosen]
    places, xored = _places(lines, as_xor, np.flatnonzero(chosen))
    body = new.reshape(-1, WORDS_PER_LINE)[places]
    body[xored] = found.difference.reshape(-1, WORDS_PER_LINE)[places[xored]]
    maps = np.packbits(lines, axis=1, bitorder="little")
    return maps.tobytes() + np.packbits(as_xor, bitorder="little").tobytes() + body.tobytes()


def _places(
    lines: Lines, as_xor: npt.NDArray[np.bool_], pages: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Of each changed line, in order: its number among the lines of an array that has these `pages` at these
    places; and whether it goes as XOR."""
    page, line = np.nonzero(lines)
    return pages[page] * LINES + line, as_xor[page]


def changed_share(new: Words, old: Words) -> float:
    """Of the bytes of pages: how many a delta of them has, before compression; a page that is no delta counts
    as all of it."""
    found = change(new, old)
    lines = np.count_nonzero(found.lines, axis=1) * LINE_BYTES
    as_delta = np.where(found.as_xor, found.words * WORD_BYTES, lines)
    return float(np.where(found.as_delta, as_delta, PAGE_BYTES).mean()) / PAGE_BYTES


def group_bytes_range(pages: int) -> tuple[int, int]:
    """How small and how large the group of so many pages may be."""
    least = pages * MAP_BYTES + -(-pages // 8)
    return least, least + pages * PAGE_BYTES


def apply_group(group: memoryview, pages: Words) -> None:
    """Turn old pages into new ones, in place. Raises BadPacket for a group that is none of so many pages, and
    has changed nothing then."""
    count = len(pages)
    maps_end = count * MAP_BYTES
    lines_at = group_bytes_range(count)[0]
    if len(group) < lines_at:
        raise BadPacket(f"deltas: {len(group)} bytes for {count} pages")
    maps = np.frombuffer(group[:maps_end], np.uint8).reshape(count, MAP_BYTES)
    lines = np.unpackbits(maps, axis=1, bitorder="little").view(np.bool_)
    kinds = np.frombuffer(group[maps_end:lines_at], np.uint8)
    if len(kinds) * 8 > count and kinds[-1] >> (count % 8 or 8):
        raise BadPacket("deltas: bits behind the last page")
    as_xor = np.unpackbits(kinds, count=count, bitorder="little").view(np.bool_)
    places, xored = _places(lines, as_xor, np.arange(count))
    if len(places) * LINE_BYTES != len(group) - lines_at:
        raise BadPacket(f"deltas: {len(group) - lines_at} bytes of lines, the maps have {len(places)}")
    body = np.frombuffer(group[lines_at:], np.uint64).reshape(-1, WORDS_PER_LINE)
    by_line = pages.reshape(count * LINES, WORDS_PER_LINE)
    new = body.copy()
    new[xored] ^= by_line[places[xored]]
    by_line[places] = new


assert WORDS_PER_PAGE == LINES * WORDS_PER_LINE
