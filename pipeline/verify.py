"""Is the copy the source? Byte for byte, off the clock."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from guestmem.ram import GuestRam

CHUNK_PAGES = 4096

CHECKS = {"images": ("images",), "invariant": ("invariant",), "both": ("invariant", "images")}
"""What --verify may ask for, and the checks that each is, in order."""


def first_difference(source: GuestRam, destination: GuestRam, between: Callable[[], None]) -> int | None:
    """The first page that differs, or None when the images are the same.

    `between` is called after each 16 MiB, so that a signal is answered.
    """
    for start in range(0, source.pages, CHUNK_PAGES):
        end = min(start + CHUNK_PAGES, source.pages)
        ours, theirs = source.words[start:end], destination.words[start:end]
        if not np.array_equal(ours, theirs):
            differing = np.flatnonzero((ours != theirs).any(axis=1))
            return start + int(differing[0])
        between()
    return None
