"""Lists of page numbers, ascending: where they lie side by side, they can be handled at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from guestmem.page import PAGE_BYTES


def side_by_side(pages: npt.NDArray[np.uint32]) -> slice | None:
    """Ascending pages as one slice of RAM's pages; None when there are gaps, or no pages."""
    count = len(pages)
    if not count:
        return None
    first = int(pages[0])
    return slice(first, first + count) if int(pages[-1]) - first == count - 1 else None


def bytes_of(pages: slice) -> slice:
    """The same in bytes of RAM."""
    return slice(pages.start * PAGE_BYTES, pages.stop * PAGE_BYTES)


def runs(pages: npt.NDArray[np.uint32]) -> list[slice]:
    """Ascending pages as slices of pages side by side."""
    whole = side_by_side(pages)
    if whole is not None:
        return [whole]
    if not len(pages):
        return []
    cuts = np.flatnonzero(np.diff(pages) != 1) + 1
    starts = pages[np.concatenate(([0], cuts))].tolist()
    lengths = np.diff(np.concatenate(([0], cuts, [len(pages)]))).tolist()
    return [slice(first, first + count) for first, count in zip(starts, lengths, strict=True)]
