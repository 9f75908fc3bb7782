"""The toy log: every page counts as written, always."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from guestmem.dirty_log.contract import DirtyLog, Fields, GuestLog, LogKind, Opening, Unwatched
from guestmem.ram import GuestRam


class EverythingGuestLog(Unwatched):
    """The guest's side."""

    fields: ClassVar[Fields] = {}
    descriptors: tuple[int, ...] = ()

    def close(self) -> None:
        pass


class EverythingDirtyLog:
    """The migration's side, of so many pages."""

    def __init__(self, pages: int) -> None:
        self._pages = pages

    def sync(self, into: npt.NDArray[np.uint32]) -> int:
        into[: self._pages] = np.arange(self._pages)
        return self._pages

    def count(self) -> int:
        return self._pages


def _create(ram: GuestRam) -> GuestLog:
    return EverythingGuestLog()


def _open(opening: Opening) -> DirtyLog:
    return EverythingDirtyLog(opening.pages)


KIND = LogKind("every page, always", _create, _open)
