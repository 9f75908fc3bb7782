"""GuestRam: one RAM image in POSIX shared memory."""

from __future__ import annotations

import mmap
import os

import numpy as np
import numpy.typing as npt

from guestmem.segment import PAGE_BYTES, create_segment, map_segment

WORDS_PER_PAGE = PAGE_BYTES // 8
MIN_RAM_BYTES = 1 << 20


class GuestRam:
    """A mapping of one RAM image, as pages.

    `words` is the image as (pages, 512) uint64, `memory` the same bytes as one flat memoryview.
    A mapping belongs to the process that made it: page tables are not shared over `fork`, so a
    worker calls `remap` rather than use what it inherited.
    """

    def __init__(self, fd: int, *, writable: bool) -> None:
        """Map the segment behind `fd`. Raises ValueError when its size is not whole pages."""
        self.size_bytes = os.fstat(fd).st_size
        if self.size_bytes == 0 or self.size_bytes % PAGE_BYTES:
            raise ValueError(f"a RAM image of {self.size_bytes} bytes is not a number of pages")
        self.fd = fd
        self.writable = writable
        self.mapping: mmap.mmap = map_segment(fd, writable=writable)
        self.pages = self.size_bytes // PAGE_BYTES
        self.words: npt.NDArray[np.uint64] = np.frombuffer(self.mapping, dtype=np.uint64).reshape(
            self.pages, WORDS_PER_PAGE
        )
        self.memory = memoryview(self.mapping)

    @classmethod
    def create(cls, size_bytes: int, label: str) -> GuestRam:
        """Create an image of zero bytes, writable, with no page allocated yet."""
        if size_bytes % PAGE_BYTES:
            raise ValueError(f"{size_bytes} bytes is not a multiple of the page, {PAGE_BYTES}")
        return cls(create_segment(label, size_bytes), writable=True)

    def remap(self, *, writable: bool) -> GuestRam:
        """The same image under a mapping of the caller's own."""
        return GuestRam(self.fd, writable=writable)
