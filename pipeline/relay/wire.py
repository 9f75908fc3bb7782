"""One connection between two relays: frames in both directions, in an event loop."""

from __future__ import annotations

import asyncio
import fcntl
import select
import socket
import ssl
import termios
import time
from collections import deque
from collections.abc import Callable

from pipeline.errors import BadFrame
from pipeline.net.socket_info import sending_us
from pipeline.relay.protocol import HEADER, Frame, FrameType, check_payload, pack, read
from pipeline.transports.tcp.incoming import why_broken
from pipeline.transports.tcp.protocol import STALL_SECONDS

WOULD_BLOCK = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
QUEUED_BYTES = 64 << 10
"""What waits here beyond what the kernel takes: so little that what is urgent is soon sent."""

READS_AT_ONCE = 16
"""Frames that are taken before others have their turn."""


class Wire:
    """A connection after WELCOME. What it calls is told once of its end, and nothing comes after that."""

    def __init__(
        self,
        number: int,
        generation: int,
        sock: socket.socket,
        on_frame: Callable[[Wire, Frame, memoryview], None],
        on_room: Callable[[Wire], None],
        on_lost: Callable[[Wire, str], None],
        take_buffer: Callable[[int], memoryview],
    ) -> None:
        """`sock` becomes non-blocking, and is watched from now on. `take_buffer` gives room for a payload."""
        self.number, self.generation = number, generation
        self.socket = sock
        self._on_frame, self._on_room, self._on_lost = on_frame, on_room, on_lost
        self._take_buffer = take_buffer
        self._loop = asyncio.get_running_loop()
        self._out: deque[memoryview] = deque()
        self._queued = 0
        self._writing = False
        self._head = memoryview(bytearray(HEADER.size))
        self._frame: Frame | None = None
        self._into = self._head
        self._got = 0
        self.open = True
        self.heard_at = time.monotonic()
        self.sent_bytes = 0
        self.round_trip_seconds = 0.0
        self._pinged_at = 0.0
        self._sent_us = 0
        sock.setblocking(False)
        self._loop.add_reader(sock, self._readable)

    # ---------------------------------------------------------------- sending

    def has_room(self) -> bool:
        """Whether what is sent now would go soon."""
        return self.open and self._queued < QUEUED_BYTES

    def send(self, header: bytes, payload: memoryview | None = None) -> None:
        """One frame; its payload must stay as it is until it is acknowledged."""
        if not self.open:
            return
        self._push(memoryview(header))
        if payload is not None:
            self._push(payload)
        if not self._writing:
            self._flush()

    def _push(self, view: memoryview) -> None:
        self._out.append(view)
        self._queued += len(view)
        self.sent_bytes += len(view)

    def _flush(self) -> None:
        try:
            while self._out:
                if isinstance(self.socket, ssl.SSLSocket):
                    moved = self.socket.send(self._out[0])
                else:
                    moved = self.socket.sendmsg([*self._out][:64])
                self._advance(moved)
        except WOULD_BLOCK:
            self._watch_writing(wanted=True)
            return
        except OSError as error:
            self.lose(why_broken(error))
            return
        self._watch_writing(wanted=False)

    def _advance(self, moved: int) -> None:
        self._queued -= moved
        while moved:
            first = self._out[0]
            if moved < len(first):
                self._out[0] = first[moved:]
                return
            moved -= len(first)
            self._out.popleft()

    def _watch_writing(self, *, wanted: bool) -> None:
        if wanted and not self._writing:
            self._loop.add_writer(self.socket, self._writable)
        elif self._writing and not wanted:
            self._loop.remove_writer(self.socket)
        self._writing = wanted

    def _writable(self) -> None:
        self._flush()
        if self.open and self.has_room():
            self._on_room(self)

    def ping(self) -> None:
        """Ask for a sign of life; gives the connection up that gave none for too long."""
        now = time.monotonic()
        if now - self.heard_at > STALL_SECONDS:
            self.lose(f"stalled: nothing came for {STALL_SECONDS:g} s")
            return
        self._pinged_at = now
        self.send(pack(FrameType.PING))

    def unsent_bytes(self) -> int:
        """What waits here and in the kernel (SIOCOUTQ, tcp(7))."""
        if not self.open:
            return 0
        queued = bytearray(4)
        fcntl.ioctl(self.socket, termios.TIOCOUTQ, queued)
        return self._queued + int.from_bytes(queued, "little")

    def sending_ns(self) -> int | None:
        """For how long, since this was asked last, the kernel had something of it to carry; None where it
        does not count."""
        now = sending_us(self.socket) if self.open else None
        if now is None:
            return None
        before, self._sent_us = self._sent_us, now
        return (now - before) * 1000

    # ---------------------------------------------------------------- receiving

    def _readable(self) -> None:
        try:
            for _ in range(READS_AT_ONCE):
                if not self._read():
                    return
            if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
                self._loop.call_soon(self._read_on)
        except WOULD_BLOCK:
            return
        except BadFrame as error:
            self.lose(str(error))
        except OSError as error:
            self.lose(why_broken(error))

    def _read_on(self) -> None:
        if self.open:
            self._readable()

    def _read(self) -> bool:
        """Take what there is, up to the end of a part of a frame; whether to go on."""
        got = self.socket.recv_into(self._into[self._got :])
        if not got:
            self.lose("closed by the other relay")
            return False
        self.heard_at = time.monotonic()
        self._got += got
        if self._got < len(self._into):
            return True
        frame = self._frame
        if frame is None:
            frame = read(self._head)
            if frame.payload_bytes:
                self._frame, self._into, self._got = frame, self._take_buffer(frame.payload_bytes), 0
                return True
            self._got = 0
            self._handle(frame, memoryview(b""))
            return self.open
        payload = self._into
        self._frame, self._into, self._got = None, self._head, 0
        if frame.crc32:
            check_payload(frame, payload)
        self._handle(frame, payload)
        return self.open

    def _handle(self, frame: Frame, payload: memoryview) -> None:
        if frame.type is FrameType.PING:
            self.send(pack(FrameType.PONG))
        elif frame.type is FrameType.PONG:
            self.round_trip_seconds = time.monotonic() - self._pinged_at
        else:
            self._on_frame(self, frame, payload)

    # ---------------------------------------------------------------- ending

    def lose(self, why: str) -> None:
        """It is of no use any more."""
        if self.open:
            self.close()
            self._on_lost(self, why)

    def finish(self) -> None:
        """What is queued goes still, if it does so at once; then it is closed."""
        if self.open and self._out and select.select([], [self.socket], [], 0.2)[1]:
            self._flush()
        self.close()

    def close(self) -> None:
        """Without a word."""
        if not self.open:
            return
        self.open = False
        self._loop.remove_reader(self.socket)
        self._loop.remove_writer(self.socket)
        self._out.clear()
        self.socket.close()
