"""Pages that a guest writes again: how much of them changes, which is what a delta of them takes."""

from __future__ import annotations

import numpy as np

from guestmem.ram import GuestRam, PageNumbers
from pipeline.packets.delta import Words, changed_share

LOOK_PAGES = 4096
"""Pages that are copied, of which those that come back are compared: 16 MiB. Of 512 too few came back of a
guest that writes 2 GiB at random, so that nothing was concluded and a gigabyte was kept in vain."""

FEWEST_PAGES = 32
"""Of fewer pages nothing is concluded."""


class Returning:
    """Samples pages at a first moment, and looks at them again."""

    def __init__(self, ram: GuestRam, pages: PageNumbers) -> None:
        """These were written just now."""
        self._pages: PageNumbers = pages[:: max(1, len(pages) // LOOK_PAGES)][:LOOK_PAGES].copy()
        self._before: Words = ram.words[self._pages]

    def share(self, ram: GuestRam, later: PageNumbers) -> float | None:
        """Of the bytes of those that were written again, how many a delta has; None where too few were."""
        back = np.isin(self._pages, later)
        if np.count_nonzero(back) < FEWEST_PAGES:
            return None
        return changed_share(ram.words[self._pages[back]], self._before[back])
