"""One connection of QEMU's, at one of the relays."""

from __future__ import annotations

import asyncio
import fcntl
import select
import socket
import termios
from collections import deque
from collections.abc import Callable

from pipeline.relay.buffers import BLOCK_BYTES, Buffers
from pipeline.relay.delivery import Arrived
from pipeline.relay.protocol import FrameType, Kind

READS_AT_ONCE = 8


class Stream:
    """Reads while there is room, writes what comes; each direction ends by itself."""

    def __init__(
        self,
        number: int,
        kind: Kind,
        buffers: Buffers,
        allowance: Callable[[Stream], int],
        on_read: Callable[[Stream, memoryview], None],
        on_end: Callable[[Stream, str], None],
        on_written: Callable[[Stream, Arrived], None],
    ) -> None:
        self.number, self.kind = number, kind
        self.socket: socket.socket | None = None
        self.read_bytes = self.written_bytes = 0
        self.ended = False
        """QEMU has closed its side, or the connection broke."""
        self.closed = False
        self._buffers = buffers
        self._allowance = allowance
        self._on_read, self._on_end, self._on_written = on_read, on_end, on_written
        self._loop = asyncio.get_running_loop()
        self._out: deque[Arrived] = deque()
        self._done_of_first = 0
        self._reading = self._writing = False

    def attach(self, sock: socket.socket) -> None:
        """The connection to QEMU."""
        sock.setblocking(False)
        self.socket = sock
        self._write()

    # ---------------------------------------------------------------- reading

    def watch(self, *, wanted: bool) -> None:
        """Read when there is something, or let QEMU wait."""
        if self.socket is None or self.ended or self.closed:
            wanted = False
        if wanted and not self._reading and self.socket is not None:
            self._loop.add_reader(self.socket, self.read)
        elif self._reading and not wanted and self.socket is not None:
            self._loop.remove_reader(self.socket)
        self._reading = wanted

    def read(self) -> None:
        """Take what there is, as far as the session has room for it."""
        for _ in range(READS_AT_ONCE):
            allowed = min(BLOCK_BYTES, self._allowance(self))
            if allowed <= 0:
                self.watch(wanted=False)
            if not self._reading or self.socket is None:
                return
            room = self._buffers.take(allowed)
            try:
                got = self.socket.recv_into(room)
            except (BlockingIOError, InterruptedError):
                self._buffers.give(room)
                return
            except OSError as error:
                self._buffers.give(room)
                self._end(error.strerror or str(error))
                return
            if not got:
                self._buffers.give(room)
                self._end("")
                return
            self.read_bytes += got
            self._on_read(self, room[:got])

    def peek(self, size_bytes: int) -> bytes:
        """The first of what QEMU has written, and nobody has read."""
        if self.socket is None or self.ended or self.closed:
            return b""
        try:
            return self.socket.recv(size_bytes, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError:
            return b""

    def readable_bytes(self) -> int:
        """What QEMU has written, and nobody has read (FIONREAD, unix(7))."""
        if self.socket is None or self.ended or self.closed:
            return 0
        waiting = bytearray(4)
        fcntl.ioctl(self.socket, termios.FIONREAD, waiting)
        return int.from_bytes(waiting, "little")

    def _end(self, why: str) -> None:
        self.watch(wanted=False)
        if not self.ended:
            self.ended = True
            self._on_end(self, why)

    # ---------------------------------------------------------------- writing

    def put(self, arrived: Arrived) -> None:
        """Bytes for QEMU, or their end."""
        self._out.append(arrived)
        if not self._writing:
            self._write()

    def _write(self) -> None:
        while self._out and self.socket is not None and not self.closed:
            first = self._out[0]
            if first.type is FrameType.EOF:
                self._shut_writing()
            elif not self._write_some(first):
                return
            self._out.popleft()
            self._done_of_first = 0
            self._on_written(self, first)
        self._watch_writing(wanted=False)
        if self.closed:
            self._forget_rest()

    def _write_some(self, first: Arrived) -> bool:
        """Whether all of it is written."""
        assert self.socket is not None
        try:
            while self._done_of_first < len(first.plain):
                moved = self.socket.send(first.plain[self._done_of_first :])
                self._done_of_first += moved
                self.written_bytes += moved
        except (BlockingIOError, InterruptedError):
            self._watch_writing(wanted=True)
            return False
        except OSError:
            # QEMU has closed it. Its end is read, and what was meant for it is of no use to anybody.
            return True
        return True

    def _shut_writing(self) -> None:
        assert self.socket is not None
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def _watch_writing(self, *, wanted: bool) -> None:
        if self.socket is None:
            return
        if wanted and not self._writing:
            self._loop.add_writer(self.socket, self._write_on)
        elif self._writing and not wanted:
            self._loop.remove_writer(self.socket)
        self._writing = wanted

    def _write_on(self) -> None:
        self._write()

    def _forget_rest(self) -> None:
        while self._out:
            self._on_written(self, self._out.popleft())

    def hung_up(self) -> bool:
        """Whether QEMU has closed it."""
        if self.socket is None or self.closed:
            return True
        poll = select.poll()
        poll.register(self.socket, select.POLLRDHUP)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Both directions, at once."""
        if self.closed:
            return
        self.watch(wanted=False)
        self._watch_writing(wanted=False)
        self.closed = True
        if self.socket is not None:
            self.socket.close()
        self._forget_rest()
