"""Which round brought each destination page: a delta is against one round's version, and no other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from guestmem.segment import mapped_segment
from pipeline.errors import BadPacket

NO_BASE = 0


class AppliedRounds:
    """Four bytes a page, shared by the receivers. NO_BASE while a page is written, and where nobody knows
    what it holds."""

    def __init__(self, pages: int) -> None:
        """Create it. Raises OSError."""
        self.mapping = mapped_segment("applied", 4 * pages)
        self._rounds: npt.NDArray[np.uint32] = np.frombuffer(self.mapping, np.uint32)

    def forget(self, pages: npt.NDArray[np.uint32]) -> None:
        """They are written now, or hold what is no base."""
        self._rounds[pages] = NO_BASE

    def note(self, pages: npt.NDArray[np.uint32], round_number: int) -> None:
        """They are whole, as of that round."""
        self._rounds[pages] = round_number

    def check(self, pages: npt.NDArray[np.uint32], bases: npt.NDArray[np.uint32]) -> None:
        """Raises BadPacket where a page is not as of the round that its delta is against."""
        wrong = np.flatnonzero(self._rounds[pages] != bases)
        if len(wrong):
            page, base = int(pages[wrong[0]]), int(bases[wrong[0]])
            have = int(self._rounds[page])
            raise BadPacket(f"delta of page {page}: against round {base}, here it is of round {have}")
