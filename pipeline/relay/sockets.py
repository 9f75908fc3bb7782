"""The Unix sockets that QEMU comes to: who may connect, and whose the file is."""

from __future__ import annotations

import os
import pwd
import socket
from dataclasses import dataclass

from guestmem.ipc import Connection
from guestmem.users import is_nameless, is_trusted
from pipeline.errors import HostError
from pipeline.net.address import Address

BACKLOG = 300
"""QEMU's connections of one migration may all come before the first is accepted."""


@dataclass(frozen=True)
class Access:
    """`users` may connect beside this one and root; the file gets `owner` (user, group) and `mode`."""

    users: frozenset[int] = frozenset()
    owner: tuple[int, int] | None = None
    mode: int | None = None

    def refusal(self, sock: socket.socket) -> str:
        """Why whoever has connected may not; empty when it may."""
        _, uid = Connection(sock).peer()
        if is_trusted(uid) or (uid in self.users and not is_nameless(uid)):
            return ""
        return f"user {uid} has connected; --peer-user {_name_of(uid)} would let it in"

    def listen(self, address: Address) -> socket.socket:
        """A listening socket. Raises HostError."""
        try:
            listener = address.listen()
            listener.listen(BACKLOG)
            if self.owner is not None:
                os.chown(address.path, *self.owner)
            if self.mode is not None:
                os.chmod(address.path, self.mode)
        except OSError as error:
            raise HostError(f"{address}: {error.strerror or error}") from error
        listener.setblocking(False)
        return listener


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
