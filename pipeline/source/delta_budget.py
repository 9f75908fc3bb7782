"""How much memory a run gives to kept versions of pages, where nobody said."""

from __future__ import annotations

from dataclasses import replace

from guestmem.page import PAGE_BYTES
from pipeline.options import Options
from pipeline.processes.memory import available_bytes, shm_free_bytes

RAM_PART, FREE_PART = 2, 4
"""At most so small a part of guest RAM, and of what is free beside the images: a guest's hot pages are
few."""


def with_delta_budget(options: Options, ram_bytes: int) -> Options:
    """The same with a number. Without a word deltas are on where a link is what a run waits for: elsewhere
    rounds hardly repeat, and the CPU is better spent. More than all of RAM is never needed."""
    asked = options.delta_bytes
    if asked is None:
        limited = options.max_bandwidth > 0 or options.to is not None
        images = ram_bytes if options.to is not None else 2 * ram_bytes
        free = min(shm_free_bytes(), available_bytes()) - images
        asked = min(ram_bytes // RAM_PART, max(0, free) // FREE_PART) if limited else 0
    return replace(options, delta_bytes=min(asked, ram_bytes) // PAGE_BYTES * PAGE_BYTES)
