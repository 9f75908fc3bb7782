"""Checksums of a packet's plain pages: a CRC-32 (ISA-L, 15 GB/s) for each block of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from guestmem.segment import PAGE_BYTES


def block_crcs(plain: memoryview, block_pages: int) -> list[int]:
    """One CRC-32 a block of `block_pages` pages that lie side by side; the last may be shorter."""
    step = block_pages * PAGE_BYTES
    if len(plain) <= step:
        return [isal_zlib.crc32(plain)] if len(plain) else []
    return [isal_zlib.crc32(plain[start : start + step]) for start in range(0, len(plain), step)]


def runs(pages: npt.NDArray[np.uint32]) -> list[tuple[int, int]]:
    """Ascending page numbers as (first, count) of pages side by side."""
    if not len(pages):
        return []
    first, count = int(pages[0]), len(pages)
    if int(pages[-1]) - first == count - 1:
        return [(first, count)]
    cuts = np.flatnonzero(np.diff(pages) != 1) + 1
    starts = np.concatenate(([0], cuts))
    lengths = np.diff(np.concatenate((starts, [count])))
    return list(zip(pages[starts].tolist(), lengths.tolist(), strict=True))


def crcs_in_ram(memory: memoryview, pages: npt.NDArray[np.uint32], block_pages: int) -> list[int]:
    """The same for pages where they lie in RAM, side by side or not."""
    first, count = (int(pages[0]), len(pages)) if len(pages) else (0, 0)
    if count and int(pages[-1]) - first == count - 1:
        return block_crcs(memory[first * PAGE_BYTES : (first + count) * PAGE_BYTES], block_pages)
    crcs = []
    for start in range(0, len(pages), block_pages):
        crc = 0
        for first, count in runs(pages[start : start + block_pages]):
            crc = isal_zlib.crc32(memory[first * PAGE_BYTES : (first + count) * PAGE_BYTES], crc)
        crcs.append(crc)
    return crcs
