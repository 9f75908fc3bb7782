"""Guest RAM: one image in POSIX shared memory, as pages."""

from __future__ import annotations

import mmap
import os

import numpy as np
import numpy.typing as npt

from guestmem.aligned import AlignedMapping
from guestmem.page import PAGE_BYTES, WORDS_PER_PAGE
from guestmem.prefault import advise
from guestmem.segment import create_segment

MIN_RAM_BYTES = 1 << 20

PageNumbers = npt.NDArray[np.uint32]
"""Pages of a RAM by number, in ascending order."""


class GuestRam:
    """A mapping of one RAM image.

    `words` is the image as (pages, 512) uint64; `memory` is the same bytes as a flat memoryview.
    A mapping belongs to the process that made it. Page tables are not shared over `fork`, so a
    worker calls `remap` instead of using the mapping that it inherited.
    """

    def __init__(self, fd: int, *, writable: bool, small_pages: bool = False) -> None:
        """Map the segment behind `fd`; with `small_pages` page by page, although it may lie in huge ones.

        Raises ValueError when its size is not a whole number of pages.
        """
        self.size_bytes = os.fstat(fd).st_size
        if self.size_bytes == 0 or self.size_bytes % PAGE_BYTES:
            raise ValueError(f"a RAM image of {self.size_bytes} bytes is not a number of pages")
        self.fd = fd
        self.writable = writable
        self.mapping = AlignedMapping(fd, writable=writable)
        if small_pages:
            advise(self.mapping, mmap.MADV_NOHUGEPAGE, 0, len(self.mapping))
        self.pages = self.size_bytes // PAGE_BYTES
        self.words: npt.NDArray[np.uint64] = np.frombuffer(self.mapping.memory, dtype=np.uint64).reshape(
            self.pages, WORDS_PER_PAGE
        )
        self.memory = self.mapping.memory

    @classmethod
    def create(cls, size_bytes: int, label: str) -> GuestRam:
        """Create a writable image of zero bytes, with no page allocated yet.

        Raises ValueError when the size is not a whole number of pages; OSError.
        """
        if size_bytes % PAGE_BYTES:
            raise ValueError(f"{size_bytes} bytes is not a multiple of the page, {PAGE_BYTES}")
        return cls(create_segment(label, size_bytes), writable=True)

    def remap(self, *, writable: bool, small_pages: bool = False) -> GuestRam:
        """The same image in a new mapping, for the calling process."""
        return GuestRam(self.fd, writable=writable, small_pages=small_pages)
