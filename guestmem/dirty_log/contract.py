"""What every dirty log does, for the guest and for the migration.

The contract is QEMU's. The guest marks a page *after* writing it; `sync` clears a mark *before*
anybody reads the page, with a full fence in between. A write is then either in the bytes that are
read, or marked again for the next sync, or both; never neither. `sync` clears only the marks that
it fetched.

A log is opened in two steps. The guest's side is created in the guest's process; its `fields` and
`descriptors` travel to the migration in the guest's `ready` message, and the migration's side is
opened from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from guestmem.ram import GuestRam

Fields = Mapping[str, Any]
"""What JSON can hold."""


class NoDirtyLog(Exception):
    """A log of this kind cannot be had here; the text is one line that says why."""


class Marks(Protocol):
    """Where the guest marks what it has written."""

    def mark(self, pages: npt.NDArray[np.intp]) -> None:
        """Mark pages, by number, as dirty. Called after the pages are written."""


class GuestLog(Marks, Protocol):
    """The guest's side of a log, for as long as one migration watches."""

    @property
    def fields(self) -> Fields:
        """What the migration needs to know to open its side."""

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Descriptors that the migration needs; the log keeps its own copies until `close`."""

    def close(self) -> None:
        """Free what the log holds. It is not marked afterwards."""


class DirtyLog(Protocol):
    """The migration's side of a log."""

    def sync(self, into: npt.NDArray[np.uint32]) -> int:
        """Fetch and clear: write the numbers of the pages written since the last sync, ascending,
        to the front of `into`, which has room for every page. Returns how many there are.
        """

    def count(self) -> int:
        """The number of pages that a sync would fetch now; clears nothing."""


@dataclass(frozen=True)
class Opening:
    """What the migration opens its side from."""

    pid: int
    """The guest's process, as the kernel names it; never taken from a message."""

    ram_fd: int
    """The guest's RAM, as it was passed to this process."""

    pages: int
    """Pages of the guest's RAM."""

    fields: Fields
    descriptors: Sequence[int]
    """Descriptors of `GuestLog.descriptors`, in this process. A side that opens owns them."""


@dataclass(frozen=True)
class LogKind:
    """One kind of log: how each side comes by it. Both raise NoDirtyLog."""

    summary: str
    """Who notes the writes, in a few words, for `--help`."""

    create: Callable[[GuestRam], GuestLog]
    """Called in the guest's process, with its own writable mapping."""

    open: Callable[[Opening], DirtyLog]
    """Called in the migration's process. Raises ValueError, KeyError or TypeError for fields or
    descriptors that are not this log's."""


class Unwatched:
    """What a guest marks while no migration watches it: nothing."""

    def mark(self, pages: npt.NDArray[np.intp]) -> None:
        pass
