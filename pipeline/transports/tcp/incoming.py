"""Bytes out of a socket: exactly what is due, or as much as there is.

What is decompressed from a buffer may as well be read ahead into it: one system call then brings
header, front and payload together. Raw pages are read where they belong, so before them nothing is read
that is not due.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Sequence

from pipeline.errors import ConnectionLost
from pipeline.transports.tcp.protocol import MIN_BYTES_PER_SECOND, STALL_SECONDS

MAX_VECTORS = 512
"""Buffers of one recvmsg(2) or sendmsg(2), of the 1024 (IOV_MAX) that they take."""

FIRST_BYTES = 8 << 10


class Incoming:
    """The receiving half of a link. Raises ConnectionLost, also when nothing comes in time."""

    def __init__(self, sock: socket.socket) -> None:
        """`sock` has its time-outs set."""
        self._socket = sock
        self._tls = sock if isinstance(sock, ssl.SSLSocket) else None
        self._buffer = memoryview(bytearray(FIRST_BYTES))
        self._start = self._end = 0
        self.read_ahead = False

    def reserve(self, size_bytes: int) -> None:
        """Have room for so much at once."""
        if size_bytes > len(self._buffer):
            buffer = memoryview(bytearray(size_bytes))
            kept = self._end - self._start
            buffer[:kept] = self._buffer[self._start : self._end]
            self._buffer, self._start, self._end = buffer, 0, kept

    def pending(self) -> bool:
        """Whether there is something that the descriptor does not show."""
        return self._end > self._start or (self._tls is not None and self._tls.pending() > 0)

    def take(self, size_bytes: int) -> memoryview:
        """The next bytes, in a buffer of ours; good until more is taken."""
        if self._end - self._start < size_bytes:
            self._gather(size_bytes)
        found = self._buffer[self._start : self._start + size_bytes]
        self._start += size_bytes
        return found

    def _gather(self, size_bytes: int) -> None:
        self.reserve(size_bytes)
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start + size_bytes > len(self._buffer):
            kept = self._end - self._start
            self._buffer[:kept] = bytes(self._buffer[self._start : self._end])
            self._start, self._end = 0, kept
        until = self._start + size_bytes
        limit = len(self._buffer) if self.read_ahead else until
        deadline = deadline_of(size_bytes)
        while self._end < until:
            self._end += self._once([self._buffer[self._end : limit]], whole=not self.read_ahead)
            check_rate(self._end < until, deadline)

    def fill(self, views: Sequence[memoryview]) -> None:
        """Read until all `views` are full, each where it lies."""
        left = [view for view in views if len(view)]
        deadline = deadline_of(sum(len(view) for view in left))
        while left and self._end > self._start:
            count = min(len(left[0]), self._end - self._start)
            left[0][:count] = self._buffer[self._start : self._start + count]
            self._start += count
            advance(left, count)
        while left:
            advance(left, self._once(left, whole=True))
            check_rate(bool(left), deadline)

    def _once(self, views: list[memoryview], *, whole: bool) -> int:
        """One system call: how many bytes came."""
        flags = socket.MSG_WAITALL if whole else 0
        try:
            if self._tls is not None:
                got = self._tls.recv_into(views[0])
            elif len(views) == 1:
                got = self._socket.recv_into(views[0], len(views[0]), flags)
            else:
                got = self._socket.recvmsg_into(views[:MAX_VECTORS], 0, flags)[0]
        except OSError as error:
            raise ConnectionLost(why_broken(error)) from error
        if got == 0:
            raise ConnectionLost("closed by the peer")
        return got


def deadline_of(size_bytes: int) -> float:
    """When so many bytes must have moved, either way."""
    return time.monotonic() + STALL_SECONDS + size_bytes / MIN_BYTES_PER_SECOND


def check_rate(more_is_due: bool, deadline: float) -> None:
    """Raises ConnectionLost for a peer that lets bytes through one by one."""
    if more_is_due and time.monotonic() > deadline:
        raise ConnectionLost(f"stalled: fewer than {MIN_BYTES_PER_SECOND} bytes a second moved")


def advance(views: list[memoryview], moved: int) -> None:
    """Take `moved` bytes off the front."""
    done = 0
    while done < len(views) and moved >= len(views[done]):
        moved -= len(views[done])
        done += 1
    del views[:done]
    if moved:
        views[0] = views[0][moved:]


def why_broken(error: OSError) -> str:
    """What became of a connection, for a user."""
    if isinstance(error, TimeoutError | BlockingIOError):
        return f"stalled: nothing moved for {STALL_SECONDS:g} s"
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "closed by the peer"
    return error.strerror or str(error)
