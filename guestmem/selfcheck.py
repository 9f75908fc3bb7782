"""Judge a copy of a self-checking guest's RAM without the source.

The guest increments the first byte of every page, page after page in order, for ever. At any moment
the pages that it has written in this pass hold one more than the pages after them, so a copy of one
moment has at most one such step (QEMU's check_guests_ram, tests/qtest/migration). A page that is
stale, lost or from another moment makes a second step.
"""

from __future__ import annotations

import numpy as np

from guestmem.page import PAGE_BYTES
from guestmem.ram import GuestRam


def inconsistency(ram: GuestRam) -> str | None:
    """What is wrong with the image, in one line; None when it is of one moment."""
    marks = ram.words.view(np.uint8)[:, 0].copy()
    falls = (marks[:-1] - marks[1:]).astype(np.uint8)
    steps = np.flatnonzero(falls)
    if not len(steps):
        return None
    first = int(steps[0])
    if len(steps) == 1 and falls[first] == 1:
        return None
    wrong = first if falls[first] != 1 else int(steps[1])
    return (
        f"page {wrong + 1} holds {marks[wrong + 1]} after {marks[wrong]}: {len(steps)} steps where "
        f"a copy of one moment of this guest has one ({PAGE_BYTES}-byte pages, first byte)"
    )
