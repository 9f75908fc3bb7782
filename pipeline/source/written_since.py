"""Which pages a guest has written since a moment at which its dirty log was clean, while it runs on.

A visited guest is let run before its copy is verified. What it writes from then on differs from the copy, and
may; what it did not write must be the same.
"""

from __future__ import annotations

import time

import numpy as np

from guestmem.dirty_log.contract import DirtyLog
from guestmem.ram import PageNumbers

MARKED_SECONDS = 1.0
"""A guest that marks its writes itself does so after each batch, within microseconds unless it is held up."""

LOOK_SECONDS = 0.01


class WrittenSince:
    """Collects what the log says; `scratch` has room for every page, and is written over."""

    def __init__(self, log: DirtyLog, scratch: PageNumbers) -> None:
        self._log = log
        self._scratch = scratch
        self._written = np.zeros(len(scratch), np.bool_)

    def update(self) -> None:
        """Fetch what was written since the last call."""
        count = self._log.sync(self._scratch)
        self._written[self._scratch[:count]] = True

    @property
    def pages(self) -> int:
        return int(np.count_nonzero(self._written))

    def unexplained(self, differing: PageNumbers) -> PageNumbers:
        """Of pages that were just found to differ: those that the guest has not written.

        Waits for marks that are still to come.
        """
        until = time.monotonic() + MARKED_SECONDS
        while True:
            self.update()
            left: PageNumbers = differing[~self._written[differing]]
            if not len(left) or time.monotonic() > until:
                return left
            time.sleep(LOOK_SECONDS)
