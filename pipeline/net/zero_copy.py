"""Sends without a copy (MSG_ZEROCOPY): the network card reads the pages; the kernel says what it really did.

Source: Linux Documentation/networking/msg_zerocopy.rst. What was sent so must not be used anew before the
kernel has said that it is done with it; guest RAM may be written meanwhile, since a page that is will be sent
again.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import time

from pipeline.errors import HostError

SO_ZEROCOPY, MSG_ZEROCOPY = 60, 0x4000000
"""asm-generic/socket.h, linux/socket.h; not in Python's socket module."""

ERROR = struct.Struct("=IBBBBII")
"""struct sock_extended_err of linux/errqueue.h: errno, origin, type, code, pad, info, data."""

FROM_ZERO_COPY, WAS_COPIED = 5, 1
"""SO_EE_ORIGIN_ZEROCOPY, SO_EE_CODE_ZEROCOPY_COPIED."""

ANCILLARY_BYTES = 512
MAX_UNDER_WAY = 64
"""Sends whose end the kernel has not told: more are not begun before it is asked."""


class ZeroCopy:
    """One socket's. Counts are of bytes handed to the kernel."""

    def __init__(self, sock: socket.socket) -> None:
        """Raises HostError where the kernel does not do it for this socket."""
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
        except OSError as error:
            raise HostError(
                f"--zero-copy: this kernel does not do it for such a connection ({error.strerror}); "
                "leave it out"
            ) from error
        self._socket = sock
        self._bytes: dict[int, int] = {}
        self._next = 0
        self.sent_bytes = 0
        self.copied_bytes = 0

    def send(self, views: list[memoryview]) -> int:
        """As `sendmsg`. Without memory for the kernel's notes (optmem_max) it copies. Raises OSError."""
        if len(self._bytes) >= MAX_UNDER_WAY:
            self._collect()
        try:
            count = self._socket.sendmsg(views, [], MSG_ZEROCOPY)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self._collect()
            count = self._socket.sendmsg(views)
            self.copied_bytes += count
        else:
            self._bytes[self._next] = count
            self._next = (self._next + 1) & 0xFFFFFFFF
        self.sent_bytes += count
        return count

    @property
    def unknown_bytes(self) -> int:
        """Of which the kernel has not said yet whether it copied them."""
        return sum(self._bytes.values())

    def settle(self, seconds: float, other: int | None = None) -> bool:
        """Wait until the kernel is done with all that was sent, or something can be read from the descriptor
        `other`; whether either came."""
        poll = select.poll()
        if other is not None:
            poll.register(other, select.POLLIN)
        poll.register(self._socket, 0)  # POLLERR is always told
        until = time.monotonic() + seconds
        while self._bytes:
            left = until - time.monotonic()
            if left <= 0:
                return False
            ready = {descriptor for descriptor, _ in poll.poll(left * 1000)}
            if other in ready:
                return True
            if ready and not self._collect():
                return False
        return True

    def _collect(self) -> int:
        """Take what the kernel says meanwhile; how many messages that were."""
        taken = 0
        with contextlib.suppress(OSError):
            while True:
                _, messages, _, _ = self._socket.recvmsg(
                    0, ANCILLARY_BYTES, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT
                )
                for _, _, data in messages:
                    self._note(data)
                taken += 1
        return taken

    def _note(self, data: bytes) -> None:
        if len(data) < ERROR.size:
            return
        _, origin, _, code, _, first, last = ERROR.unpack_from(data)
        if origin != FROM_ZERO_COPY:
            return
        for number in [number for number in self._bytes if first <= number <= last]:
            count = self._bytes.pop(number)
            if code & WAS_COPIED:
                self.copied_bytes += count
