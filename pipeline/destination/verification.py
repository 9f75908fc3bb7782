"""Is the copy the source? Off the clock: byte for byte on one host, by digests of regions between two."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent import futures

import numpy as np
import numpy.typing as npt

from guestmem.page import PAGE_BYTES
from guestmem.ram import GuestRam
from pipeline.packets.checksums import block_crcs
from pipeline.processes.cgroup import allowed_cpus

CHUNK_PAGES = 4096
MIN_REGION_BYTES = 16 << 20
MAX_REGIONS = 1024
DIGEST_BYTES = 16
WAIT_SECONDS = 0.1


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
    for start in range(0, source.pages, CHUNK_PAGES):
        end = min(start + CHUNK_PAGES, source.pages)
        ours, theirs = source.words[start:end], destination.words[start:end]
        if not np.array_equal(ours, theirs):
            found.append((start + np.flatnonzero((ours != theirs).any(axis=1))).astype(np.uint32))
            if most is not None and sum(map(len, found)) >= most:
                break
        between(end / source.pages)
    return np.concatenate(found)


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

    hashlib lets other threads run while it reads, so a thread a CPU does it. `between` is called
    ten times a second with the share that is done.
    """
    regions = range(-(-ram.size_bytes // region_bytes))
    with futures.ThreadPoolExecutor(len(allowed_cpus())) as pool:
        jobs = [pool.submit(region_digest, ram, region_bytes, region) for region in regions]
        try:
            while left := len(futures.wait(jobs, timeout=WAIT_SECONDS).not_done):
                between(1 - left / len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        return [job.result() for job in jobs]
