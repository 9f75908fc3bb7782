"""A trace: the RAM of a real guest, and how it changed from one stop to the next; a workload that is real.

A file is NumPy's npz (a zip of arrays, numpy.lib.format), made by `tools.qemu.trace`:

    ram_pages      int64 ()        pages of RAM
    image_pages    uint32 (m,)     pages that were not zero at the first stop, ascending
    image_words    uint64 (m, 512) and what they held
    seconds        float64 (n,)    from each stop to the next, while the guest ran
    counts         int64 (n,)      pages that had changed in between
    pages          uint32 (k,)     these, interval by interval, ascending in each; k is the sum of counts
    words          uint64 (k, 512) and what they held at the later stop

Pages that changed and changed back between two stops are not in it, nor are several writes of one page.
"""

from __future__ import annotations

import time
import zipfile
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from guestmem.dirty_log.contract import Marks
from guestmem.images import OnShare
from guestmem.page import PAGE_BYTES, WORDS_PER_PAGE
from guestmem.ram import GuestRam
from guestmem.timeline import Timeline

BATCH_PAGES = 64
TICK_SECONDS = 0.002
MAX_DEBT_SECONDS = 0.25
"""As of any other guest (`guestmem.writer`): what is overdue by more is dropped."""

LEAST_SECONDS, MAX_SECONDS = 0.001, 3600.0

SHAPES = {
    "ram_pages": (np.int64, 0, 1),
    "image_pages": (np.uint32, 1, 1),
    "image_words": (np.uint64, 2, WORDS_PER_PAGE),
    "seconds": (np.float64, 1, 1),
    "counts": (np.int64, 1, 1),
    "pages": (np.uint32, 1, 1),
    "words": (np.uint64, 2, WORDS_PER_PAGE),
}
"""By array: its type, its dimensions, and the length of the second one."""


@dataclass(frozen=True)
class Trace:
    """What a file holds."""

    ram_pages: int
    image_pages: npt.NDArray[np.uint32]
    image_words: npt.NDArray[np.uint64]
    seconds: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    pages: npt.NDArray[np.uint32]
    words: npt.NDArray[np.uint64]

    def save(self, path: Path) -> None:
        """Write it, compressed. Raises OSError."""
        with path.open("xb") as file:
            np.savez_compressed(file, **vars(self))


def load_trace(path: Path) -> Trace:
    """Read and check a trace. Raises OSError; ValueError, which says what is wrong."""
    if path.exists() and not path.is_file():
        raise ValueError("is no file")
    found = {name: _array(path, name) for name in SHAPES}
    trace = Trace(int(found.pop("ram_pages")), **found)
    _check(trace)
    return trace


def _array(path: Path, name: str) -> npt.NDArray[Any]:
    kind, dimensions, second = SHAPES[name]
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
            room = archive.getinfo(f"{name}.npy").file_size
            found: npt.NDArray[Any] = _member(member, room)
    except OSError:
        raise
    except Exception as error:  # zipfile and NumPy's format raise a dozen kinds for what is no such file
        raise ValueError(f"is no trace of a guest: {name} cannot be read") from error
    shaped = found.ndim == dimensions and (dimensions < 2 or found.shape[1] == second)
    if found.dtype != kind or not shaped:
        raise ValueError(f"is no trace of a guest: {name} is {found.dtype} {found.shape}")
    return found


def _member(member: IO[bytes], size_bytes: int) -> npt.NDArray[Any]:
    """An array whose header does not promise more than there is."""
    read = npy.read_array_header_1_0 if npy.read_magic(member) == (1, 0) else npy.read_array_header_2_0
    shape, fortran, kind = read(member)
    if fortran or kind.hasobject or prod(shape) * kind.itemsize > size_bytes:
        raise ValueError("not as NumPy saves such an array")
    data = member.read()
    return np.frombuffer(data, kind, prod(shape)).reshape(shape)


def _check(trace: Trace) -> None:
    """Raises ValueError."""
    if not 0 < trace.ram_pages < 1 << 32:
        raise ValueError(f"{trace.ram_pages} pages of RAM")
    if len(trace.image_pages) != len(trace.image_words) or len(trace.pages) != len(trace.words):
        raise ValueError("as many pages as contents are needed")
    if not len(trace.seconds) or len(trace.seconds) != len(trace.counts):
        raise ValueError("as many times as counts are needed, and one at least")
    if not ((trace.seconds >= LEAST_SECONDS) & (trace.seconds <= MAX_SECONDS)).all():
        raise ValueError(f"an interval must be {LEAST_SECONDS:g} to {MAX_SECONDS:g} s")
    if (trace.counts < 0).any() or trace.counts.sum() != len(trace.pages):
        raise ValueError("the counts are not those of its pages")
    starts = np.concatenate([[0], np.cumsum(trace.counts)])
    parts = [trace.pages[first:last] for first, last in pairwise(starts)]
    for pages in (trace.image_pages, *parts):
        if len(pages) and (pages[-1] >= trace.ram_pages or (np.diff(pages.astype(np.int64)) <= 0).any()):
            raise ValueError("pages must be ascending, and of its RAM")


@dataclass(frozen=True)
class TraceMemory:
    """The content of a guest that replays a trace: its RAM at the first stop."""

    path: Path

    def fill(self, ram: GuestRam, on_share: OnShare | None = None) -> None:
        """Fill `ram`, which is all zero. Raises OSError, ValueError."""
        trace = load_trace(self.path)
        ram.words[trace.image_pages] = trace.image_words
        if on_share is not None:
            on_share(1.0)

    def pool(self, ram: GuestRam) -> npt.NDArray[np.uint64]:
        """Nothing that it writes is drawn: a page, since there must be one."""
        return np.zeros((1, WORDS_PER_PAGE), np.uint64)


class Replay:
    """Writes what a trace says, each interval's pages spread over its time; at the end it goes back the same
    way, and so for ever. In the place of a `guestmem.writer.Writer`."""

    def __init__(self, ram: GuestRam, marks: Marks, trace: Trace) -> None:
        self.marks = marks
        self.timeline = Timeline()
        self.writes = 0
        self.throttle_percent = 0
        self._ram, self._trace = ram, trace
        self._starts = np.concatenate([[0], np.cumsum(trace.counts)])
        self._before = np.empty_like(trace.words)
        self._interval, self._forwards = 0, True
        self._done = 0
        self._passed = 0.0
        self._looked_at = time.monotonic()

    def restart_clock(self) -> None:
        """Drop what is due for the time that has passed; called when a pause ends."""
        self._looked_at = time.monotonic()

    def rate_asked(self) -> float:
        """The bytes per second of this interval, throttled."""
        rate = self._trace.counts[self._interval] / self._trace.seconds[self._interval]
        return float(rate) * PAGE_BYTES * (1 - self.throttle_percent / 100)

    def work(self) -> float:
        """Write what is due, at most one batch; returns the seconds to rest before the next call."""
        now = time.monotonic()
        passed = min(now - self._looked_at, MAX_DEBT_SECONDS)
        self._passed += passed * (1 - self.throttle_percent / 100)
        self._looked_at = now
        count, seconds = int(self._trace.counts[self._interval]), float(self._trace.seconds[self._interval])
        due = min(count, int(count * self._passed / seconds)) - self._done
        if due:
            self._write(min(due, BATCH_PAGES))
            return 0.0
        if self._passed >= seconds:
            self._next(self._passed - seconds)
            return 0.0
        return TICK_SECONDS

    def _next(self, over_seconds: float) -> None:
        step = 1 if self._forwards else -1
        if 0 <= self._interval + step < len(self._trace.counts):
            self._interval += step
        else:
            self._forwards = not self._forwards
        self._done, self._passed = 0, over_seconds

    def _write(self, count: int) -> None:
        start = int(self._starts[self._interval]) + self._done
        part = slice(start, start + count)
        pages = self._trace.pages[part].astype(np.intp)
        if self._forwards:
            self._before[part] = self._ram.words[pages]
            self._ram.words[pages] = self._trace.words[part]
        else:
            self._ram.words[pages] = self._before[part]
        self.marks.mark(pages)
        self._done += count
        self.writes += count
        self.timeline.add(count * PAGE_BYTES)
