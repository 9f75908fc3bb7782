"""Control messages between processes: JSON objects, with descriptors, over a socket pair.

One message is one SOCK_SEQPACKET packet, so there is no framing to get wrong, and the kernel
tells the other side when a process is gone. No pickle: a message is data, never code.
"""

from __future__ import annotations

import json
import socket
from typing import Any

MAX_MESSAGE_BYTES = 64 << 10
MAX_DESCRIPTORS = 4

Message = dict[str, Any]


class PeerGone(Exception):
    """The other end of a connection is closed."""


class Connection:
    """One end of a conversation."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock

    @classmethod
    def pair(cls) -> tuple[Connection, Connection]:
        """Two connected ends."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self.socket.fileno()

    def send(self, message: Message, descriptors: tuple[int, ...] = ()) -> None:
        """Send one message. Raises PeerGone."""
        data = json.dumps(message).encode()
        try:
            socket.send_fds(self.socket, [data], list(descriptors))
        except (BrokenPipeError, ConnectionError) as error:
            raise PeerGone(str(error)) from error

    def receive(self) -> tuple[Message, list[int]]:
        """Wait for one message and the descriptors that came with it.

        Raises PeerGone at the end of the conversation, ValueError for what is not a message.
        """
        try:
            data, descriptors, flags, _ = socket.recv_fds(self.socket, MAX_MESSAGE_BYTES, MAX_DESCRIPTORS)
        except ConnectionError as error:
            raise PeerGone(str(error)) from error
        if not data:
            raise PeerGone("closed")
        if flags & socket.MSG_TRUNC:
            raise ValueError(f"a control message above {MAX_MESSAGE_BYTES} bytes")
        message = json.loads(data)
        if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
            raise ValueError("a control message without a kind")
        return message, list(descriptors)

    def close(self) -> None:
        """Close this end."""
        self.socket.close()
