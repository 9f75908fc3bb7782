"""Checksums of a packet's plain pages: a CRC-32 (ISA-L, 15 GB/s) for each block of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from guestmem.page import PAGE_BYTES
from pipeline.packets.page_runs import bytes_of, runs, side_by_side


def block_crcs(plain: memoryview, block_pages: int) -> list[int]:
    """One CRC-32 a block of `block_pages` pages that lie side by side; the last may be shorter."""
    step = block_pages * PAGE_BYTES
    if len(plain) <= step:
        return [isal_zlib.crc32(plain)] if len(plain) else []
    return [isal_zlib.crc32(plain[start : start + step]) for start in range(0, len(plain), step)]


def crcs_in_ram(memory: memoryview, pages: npt.NDArray[np.uint32], block_pages: int) -> list[int]:
    """The same for pages where they lie in RAM, side by side or not."""
    whole = side_by_side(pages)
    if whole is not None:
        return block_crcs(memory[bytes_of(whole)], block_pages)
    crcs = []
    for start in range(0, len(pages), block_pages):
        crc = 0
        for run in runs(pages[start : start + block_pages]):
            crc = isal_zlib.crc32(memory[bytes_of(run)], crc)
        crcs.append(crc)
    return crcs
