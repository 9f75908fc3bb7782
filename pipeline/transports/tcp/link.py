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
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.errors import BadFrame, ConnectionLost
from pipeline.net.zero_copy import ZeroCopy
from pipeline.transports.tcp.incoming import (
    MAX_VECTORS,
    Incoming,
    advance,
    check_rate,
    deadline_of,
    why_broken,
)
from pipeline.transports.tcp.older_versions import from_older, to_older
from pipeline.transports.tcp.protocol import (
    HEADER,
    STALL_SECONDS,
    VERSION,
    FrameHeader,
    FrameLimits,
    FrameType,
    check_body,
    pack_frame,
    pack_json,
    read_header,
    read_json,
)

KEEPALIVE = ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3))
NOT_SENT_BYTES = 256 << 10
"""What a socket may hold that is not under way yet. What lies there was compressed before anybody knew
better, and at 2 Mbit/s the 4 MiB that Linux allows would be 16 seconds."""

SIOCOUTQNSD = 0x894B
PART_BYTES = 64 << 10
TIMEVAL = struct.Struct("ll")


def prepare(sock: socket.socket) -> None:
    """Make a fresh socket tell of a peer that is gone, and send at once."""
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(2 * STALL_SECONDS * 1000))


class Link:
    """Frames in both directions. Raises ConnectionLost, and BadFrame for what is no frame."""

    def __init__(
        self, sock: socket.socket, *, received: int = 0, sent: int = 0, version: int = VERSION
    ) -> None:
        """So many frames have been received and sent already; `version` is of those that are sent."""
        self.socket = sock
        self.version = version
        self._tls = sock if isinstance(sock, ssl.SSLSocket) else None
        self._sent, self._received = sent, received
        self._queued = bytearray(4)
        if self._tls is not None:
            sock.settimeout(STALL_SECONDS)
        else:
            sock.settimeout(None)
            limit = TIMEVAL.pack(int(STALL_SECONDS), int(STALL_SECONDS % 1 * 1e6))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self.incoming = Incoming(sock)

    def fileno(self) -> int:
        """The descriptor to wait on; see `pending`."""
        return self.socket.fileno()

    def pending(self) -> bool:
        """Whether there is something to read that the descriptor does not show."""
        return self.incoming.pending()

    def send(self, type_: FrameType, body: dict[str, Any], payload: Sequence[memoryview] = ()) -> None:
        """One frame of JSON, in the words of the connection's version."""
        if self.version < VERSION:
            body = to_older(self.version, type_, body)
        self.send_frame(type_, pack_json(body), payload)

    def send_frame(
        self,
        type_: FrameType,
        body: bytes | memoryview,
        payload: Sequence[memoryview] = (),
        on_part: Callable[[int], None] | None = None,
        zero_copy: ZeroCopy | None = None,
    ) -> None:
        """One frame; the payload from where it lies, and with `zero_copy` without a copy of it. `on_part` is
        told how much of it has been handed over, some times a packet."""
        length = sum(len(view) for view in payload)
        self._sent += 1
        frame = memoryview(pack_frame(type_, self._sent, body, length, self.version))
        try:
            if on_part is not None:
                self._send_in_parts((frame, *payload), on_part)
            elif self._tls is not None:
                for view in (frame, *payload):
                    self._send_tls(self._tls, view)
            elif zero_copy is not None:
                self._send_plain([frame])
                self._send_uncopied(zero_copy, list(payload))
            else:
                self._send_plain([frame, *payload])
        except OSError as error:
            raise ConnectionLost(why_broken(error)) from error

    def _send_in_parts(self, views: Sequence[memoryview], on_part: Callable[[int], None]) -> None:
        done = 0
        for view in views:
            for start in range(0, len(view), PART_BYTES):
                part = view[start : start + PART_BYTES]
                if self._tls is not None:
                    self._send_tls(self._tls, part)
                else:
                    self._send_plain([part])
                done += len(part)
                on_part(done)

    def _send_plain(self, views: list[memoryview]) -> None:
        deadline = deadline_of(sum(len(view) for view in views))
        while views:
            advance(views, self.socket.sendmsg(views[:MAX_VECTORS]))
            check_rate(bool(views), deadline)

    def _send_uncopied(self, zero_copy: ZeroCopy, views: list[memoryview]) -> None:
        deadline = deadline_of(sum(len(view) for view in views))
        while views:
            advance(views, zero_copy.send(views[:MAX_VECTORS]))
            check_rate(bool(views), deadline)

    def _send_tls(self, sock: ssl.SSLSocket, view: memoryview) -> None:
        deadline = deadline_of(len(view))
        while len(view):
            view = view[sock.send(view) :]
            check_rate(len(view) > 0, deadline)

    def unacknowledged(self) -> int:
        """Bytes that were sent, and that the peer's kernel does not have yet (SIOCOUTQ, tcp(7))."""
        fcntl.ioctl(self.socket, termios.TIOCOUTQ, self._queued)
        return int.from_bytes(self._queued, "little")

    def is_full(self) -> bool:
        """Whether bytes wait that the network takes no faster (SIOCOUTQNSD, linux/sockios.h)."""
        if self.socket.family == socket.AF_UNIX:
            # The kernel's limit counts its own overhead as well: about half of it is ours.
            room = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            return self.unacknowledged() * 4 >= room
        fcntl.ioctl(self.socket, SIOCOUTQNSD, self._queued)
        return int.from_bytes(self._queued, "little") >= NOT_SENT_BYTES // 4

    def wait(self, seconds: float | None) -> bool:
        """Wait until something can be read, for ever with None; whether it can."""
        if self.pending():
            return True
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(None if seconds is None else seconds * 1000))

    def header(self, limits: FrameLimits) -> FrameHeader:
        """Read the next header and check it; all of it is due now."""
        head = bytes(self.incoming.take(HEADER.size))
        self._received += 1
        header = read_header(head, self._received, limits)
        if header.version != self.version and header.type is not FrameType.REFUSED:
            raise BadFrame(f"frame version: {header.version} on a connection of version {self.version}")
        return header

    def body(self, header: FrameHeader) -> memoryview:
        """Read a frame's body; good until more is read."""
        body = self.incoming.take(header.body_bytes)
        check_body(header, body)
        return body

    def json(self, header: FrameHeader) -> dict[str, Any]:
        """Read a frame's body of JSON."""
        return self.decode(header.type, self.body(header))

    def decode(self, type_: FrameType, body: bytes | memoryview) -> dict[str, Any]:
        """A body of JSON in the words of this version, whichever the connection's is. Raises BadFrame."""
        found = read_json(body)
        return from_older(self.version, type_, found) if self.version < VERSION else found

    def close(self) -> None:
        self.socket.close()
