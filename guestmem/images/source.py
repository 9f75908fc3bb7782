"""The file of an image: read at any place, with its holes left out."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CHUNK_BYTES = 16 << 20
"""Read in one go, between two reports of how far the filling is."""


class Truncated(Exception):
    """A file ends before what its headers say."""


class Source:
    """A file or a block device, by descriptor."""

    def __init__(self, fd: int) -> None:
        """Raises OSError."""
        self.fd = fd
        found = os.fstat(fd)
        self._has_holes = stat.S_ISREG(found.st_mode)
        self.size_bytes = os.lseek(fd, 0, os.SEEK_END)

    def some(self, offset: int, size_bytes: int) -> bytes:
        """At most so many bytes."""
        return os.pread(self.fd, size_bytes, offset)

    def exactly(self, offset: int, size_bytes: int) -> bytes:
        """Raises Truncated."""
        if offset < 0 or offset + size_bytes > self.size_bytes:
            raise Truncated(f"ends at byte {self.size_bytes}, before {size_bytes} bytes at {offset}")
        data = bytearray(size_bytes)
        self._fill(offset, memoryview(data))
        return bytes(data)

    def read_into(
        self, offset: int, place: memoryview, on_bytes: Callable[[int], None] = lambda done: None
    ) -> None:
        """Fill `place`, which is all zero; holes of the file are left as they are. Raises Truncated."""
        if offset < 0 or offset + len(place) > self.size_bytes:
            raise Truncated(f"ends at byte {self.size_bytes}, before {len(place)} bytes at {offset}")
        for begin, end in self._data(offset, offset + len(place)):
            for at in range(begin, end, CHUNK_BYTES):
                stop = min(at + CHUNK_BYTES, end)
                self._fill(at, place[at - offset : stop - offset])
                on_bytes(stop - offset)
        on_bytes(len(place))

    def _fill(self, offset: int, place: memoryview) -> None:
        done = 0
        while done < len(place):
            got = os.preadv(self.fd, [place[done:]], offset + done)
            if not got:
                raise Truncated(f"ends at byte {offset + done}: it is being written")
            done += got

    def _data(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of a stretch that are no holes (lseek(2), SEEK_DATA)."""
        at = begin
        while at < end:
            if not self._has_holes:
                yield at, end
                return
            try:
                at = os.lseek(self.fd, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                yield at, end
                return
            if at >= end:
                return
            stop = min(end, os.lseek(self.fd, at, os.SEEK_HOLE))
            yield at, stop
            at = stop


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield Source(fd)
    finally:
        os.close(fd)
