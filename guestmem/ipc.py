"""Control messages between processes: JSON objects, with descriptors, over a Unix socket.

A message is one SOCK_SEQPACKET packet, so there is no framing to get wrong, and the kernel tells
each side when the other is gone. Messages are never pickled: a message is data, not code.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from typing import Any

MAX_MESSAGE_BYTES = 64 << 10
MAX_DESCRIPTORS = 4
"""Descriptors in one message at most."""

UCRED = struct.Struct("3i")
"""struct ucred (unix(7)): pid, uid, gid."""

Message = dict[str, Any]
"""A JSON object with a text `kind`."""


class PeerGone(Exception):
    """The other end of a connection is closed."""


class Connection:
    """One end of a connection between two processes."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock

    @classmethod
    def pair(cls) -> tuple[Connection, Connection]:
        """Two ends, connected to each other."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    def fileno(self) -> int:
        return self.socket.fileno()

    def peer(self) -> tuple[int, int]:
        """The process and the user that the kernel names as the other end: pid and uid.

        The pid is of whoever called listen(2), connect(2) or socketpair(2); after `pair` and a
        fork it therefore is not of the process that holds the other end.
        """
        raw = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
        pid, uid, _ = UCRED.unpack(raw)
        return int(pid), int(uid)

    def send(self, message: Message, descriptors: tuple[int, ...] = ()) -> None:
        """Send one message with at most MAX_DESCRIPTORS descriptors. Raises PeerGone."""
        data = json.dumps(message).encode()
        try:
            socket.send_fds(self.socket, [data], list(descriptors))
        except (BrokenPipeError, ConnectionError) as error:
            raise PeerGone(str(error)) from error

    def receive(self) -> tuple[Message, list[int]]:
        """Wait for one message and the descriptors that came with it, which the caller owns.

        Raises PeerGone when the other end is closed; ValueError for anything that is not a message.
        """
        try:
            data, descriptors, flags, _ = socket.recv_fds(self.socket, MAX_MESSAGE_BYTES, MAX_DESCRIPTORS)
        except ConnectionError as error:
            raise PeerGone(str(error)) from error
        if not data:
            raise PeerGone("closed")
        try:
            return _decode(data, flags), list(descriptors)
        except ValueError:
            for descriptor in descriptors:
                os.close(descriptor)
            raise

    def close(self) -> None:
        self.socket.close()


def _decode(data: bytes, flags: int) -> Message:
    if flags & socket.MSG_TRUNC:
        raise ValueError(f"a control message above {MAX_MESSAGE_BYTES} bytes")
    try:
        message = json.loads(data)
    except RecursionError as error:
        raise ValueError("a control message that is nested too deeply") from error
    if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
        raise ValueError("a control message without a kind")
    return message
