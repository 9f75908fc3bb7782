"""Judge a copy of a self-checking guest's RAM without the source.

The guest increments one byte of every page, page after page in order, for ever; so at any moment
the pages before its hand hold one more than those behind it. A copy of one moment shows exactly
one such step (QEMU's check_guests_ram, tests/qtest/migration). A page that is stale, lost or from
another moment is a second step.
"""

from __future__ import annotations

import numpy as np

from guestmem.ram import GuestRam
from guestmem.segment import PAGE_BYTES


def inconsistency(ram: GuestRam) -> str | None:
    """What contradicts the invariant, in words; None when the image is of one moment."""
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
