"""One connection, in one process: whole frames, with a deadline on everything that is due.

Blocking calls with time-outs of the kernel's (SO_RCVTIMEO, SO_SNDTIMEO), so that one system call moves
a whole packet. With TLS the ssl module does the same by records of 16 KiB.
"""

from __future__ import annotations

import fcntl
import select
import socket
import ssl
import struct
import termios
import time
from collections.abc import Sequence
from typing import Any

from pipeline.tcp.protocol import (
    HEADER,
    MIN_BYTES_PER_SECOND,
    STALL_SECONDS,
    FrameHeader,
    FrameLimits,
    FrameType,
    check_body,
    pack_frame,
    pack_json,
    read_header,
    read_json,
)

MAX_VECTORS = 512
"""Buffers of one sendmsg(2), of the 1024 (IOV_MAX) that it takes."""

KEEPALIVE = ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3))
TIMEVAL = struct.Struct("ll")


class LinkBroken(Exception):
    """The connection does not work any more: closed, reset, or stalled."""


def prepare(sock: socket.socket) -> None:
    """Make a fresh socket tell of a peer that is gone, and send at once."""
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(2 * STALL_SECONDS * 1000))


class Link:
    """Frames in both directions. Raises LinkBroken, and BadFrame for what is no frame."""

    def __init__(self, sock: socket.socket, sent: int = 0, received: int = 0) -> None:
        """`sent` and `received` frames have passed already."""
        self.socket = sock
        self._tls = sock if isinstance(sock, ssl.SSLSocket) else None
        self._sent, self._received = sent, received
        self._queued = bytearray(4)
        self._head = memoryview(bytearray(HEADER.size))
        self._body = memoryview(bytearray(4096))
        if self._tls is not None:
            sock.settimeout(STALL_SECONDS)
        else:
            sock.settimeout(None)
            limit = TIMEVAL.pack(int(STALL_SECONDS), int(STALL_SECONDS % 1 * 1e6))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def fileno(self) -> int:
        """The descriptor to wait on; see `pending`."""
        return self.socket.fileno()

    def pending(self) -> bool:
        """Whether there is something to read that the descriptor does not show."""
        return self._tls is not None and self._tls.pending() > 0

    def send(self, type_: FrameType, body: dict[str, Any]) -> None:
        """One frame of JSON."""
        self.send_frame(type_, pack_json(body))

    def send_frame(
        self, type_: FrameType, body: bytes | memoryview, payload: Sequence[memoryview] = ()
    ) -> None:
        """One frame; the payload from where it lies."""
        length = sum(len(view) for view in payload)
        self._sent += 1
        frame = memoryview(pack_frame(type_, self._sent, body, length))
        try:
            if self._tls is not None:
                for view in (frame, *payload):
                    self._send_tls(self._tls, view)
            else:
                self._send_plain([frame, *payload])
        except OSError as error:
            raise LinkBroken(_why(error)) from error

    def _send_plain(self, views: list[memoryview]) -> None:
        while views:
            _advance(views, self.socket.sendmsg(views[:MAX_VECTORS]))

    def _send_tls(self, sock: ssl.SSLSocket, view: memoryview) -> None:
        while len(view):
            view = view[sock.send(view) :]

    def unacknowledged(self) -> int:
        """Bytes that were sent, and that the peer's kernel does not have yet (SIOCOUTQ, tcp(7))."""
        fcntl.ioctl(self.socket, termios.TIOCOUTQ, self._queued)
        return int.from_bytes(self._queued, "little")

    def wait(self, seconds: float | None) -> bool:
        """Wait until something can be read, for ever with None; whether it can."""
        if self.pending():
            return True
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(None if seconds is None else seconds * 1000))

    def header(self, limits: FrameLimits) -> FrameHeader:
        """Read the next header and check it; all of it is due now."""
        self.fill([self._head])
        self._received += 1
        return read_header(bytes(self._head), self._received, limits)

    def body(self, header: FrameHeader) -> memoryview:
        """Read a frame's body; good until the next is read."""
        if header.body_bytes > len(self._body):
            self._body = memoryview(bytearray(header.body_bytes))
        body = self._body[: header.body_bytes]
        self.fill([body])
        check_body(header, body)
        return body

    def receive(self, limits: FrameLimits) -> tuple[FrameType, dict[str, Any]]:
        """A whole frame of JSON, without a payload."""
        header = self.header(limits)
        return header.type, read_json(self.body(header))

    def fill(self, views: Sequence[memoryview]) -> None:
        """Read until all `views` are full."""
        length = sum(len(view) for view in views)
        deadline = time.monotonic() + STALL_SECONDS + length / MIN_BYTES_PER_SECOND
        left = [view for view in views if len(view)]
        try:
            while left:
                got = self._receive_into(left)
                if got == 0:
                    raise LinkBroken("closed by the peer")
                _advance(left, got)
                if left and time.monotonic() > deadline:
                    raise LinkBroken(f"stalled: fewer than {MIN_BYTES_PER_SECOND} bytes a second came")
        except OSError as error:
            raise LinkBroken(_why(error)) from error

    def _receive_into(self, views: list[memoryview]) -> int:
        if self._tls is not None:
            return self._tls.recv_into(views[0])
        if len(views) == 1:
            return self.socket.recv_into(views[0], len(views[0]), socket.MSG_WAITALL)
        return self.socket.recvmsg_into(views[:MAX_VECTORS], 0, socket.MSG_WAITALL)[0]

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


def _advance(views: list[memoryview], moved: int) -> None:
    """Take `moved` bytes off the front."""
    done = 0
    while done < len(views) and moved >= len(views[done]):
        moved -= len(views[done])
        done += 1
    del views[:done]
    if moved:
        views[0] = views[0][moved:]


def _why(error: OSError) -> str:
    if isinstance(error, (TimeoutError, BlockingIOError)):
        return f"stalled: nothing moved for {STALL_SECONDS:g} s"
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "closed by the peer"
    return error.strerror or str(error)
