"""Is the copy the source? Off the clock: byte for byte on one host, by digests of regions between two."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from guestmem.all_cores import by_all_cores
from guestmem.page import PAGE_BYTES
from guestmem.ram import GuestRam
from pipeline.packets.checksums import block_crcs

CHUNK_PAGES = 4096
MIN_REGION_BYTES = 16 << 20
MAX_REGIONS = 1024
DIGEST_BYTES = 16

_libc = ctypes.CDLL(None)
_VOID = ctypes.c_void_p


def first_difference(source: GuestRam, destination: GuestRam, between: Callable[[float], None]) -> int | None:
    """The first page that differs, or None when the images are the same.

    `between` is called after each 16 MiB with the share that is done, so that a signal is answered.
    """
    differing = differences(source, destination, between, most=1)
    return int(differing[0]) if len(differing) else None


def differences(
    source: GuestRam,
    destination: GuestRam,
    between: Callable[[float], None],
    most: int | None = None,
) -> npt.NDArray[np.uint32]:
    """The pages that differ, ascending; no more are looked for when `most` are found.

    `between` is called after each 16 MiB with the share that is done.
    """
    found: list[npt.NDArray[np.uint32]] = [np.zeros(0, np.uint32)]
    starts = range(0, source.pages, CHUNK_PAGES)
    compared = by_all_cores(lambda start: _different_in(source, destination, start), starts)
    for start, differing in zip(starts, compared, strict=True):
        found.append(differing)
        if most is not None and sum(map(len, found)) >= most:
            compared.close()
            break
        between(min(start + CHUNK_PAGES, source.pages) / source.pages)
    return np.concatenate(found)


def _different_in(source: GuestRam, destination: GuestRam, start: int) -> npt.NDArray[np.uint32]:
    """The pages that differ in the chunk from page `start`."""
    chunk = slice(start, start + CHUNK_PAGES)
    ours, theirs = source.words[chunk], destination.words[chunk]
    size = ctypes.c_size_t(ours.nbytes)
    if not _libc.memcmp(ours.ctypes.data_as(_VOID), theirs.ctypes.data_as(_VOID), size):
        return np.zeros(0, np.uint32)
    return (start + np.flatnonzero((ours != theirs).any(axis=1))).astype(np.uint32)


def region_bytes_of(size_bytes: int) -> int:
    """How large the regions are whose digests two hosts compare: 16 MiB, or a 1024th of RAM."""
    return max(MIN_REGION_BYTES, -(-size_bytes // MAX_REGIONS // PAGE_BYTES) * PAGE_BYTES)


def page_crcs(ram: GuestRam, region_bytes: int, region: int) -> npt.NDArray[np.uint32]:
    """The CRC-32 of each page of a region."""
    memory = ram.memory[region * region_bytes : (region + 1) * region_bytes]
    return np.array(block_crcs(memory, 1), "<u4")


def region_digest(ram: GuestRam, region_bytes: int, region: int) -> str:
    """A BLAKE2b digest of 128 bits, in hex."""
    memory = ram.memory[region * region_bytes : (region + 1) * region_bytes]
    return hashlib.blake2b(memory, digest_size=DIGEST_BYTES).hexdigest()


def region_digests(
    ram: GuestRam, region_bytes: int, between: Callable[[float], None] = lambda share: None
) -> list[str]:
    """A BLAKE2b digest of 128 bits for each region, in order; the last may be shorter.

    `between` is called after each with the share that is done.
    """
    regions = range(-(-ram.size_bytes // region_bytes))
    digests = []
    for digest in by_all_cores(lambda region: region_digest(ram, region_bytes, region), regions):
        digests.append(digest)
        between(len(digests) / len(regions))
    return digests
