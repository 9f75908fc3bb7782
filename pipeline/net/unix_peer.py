"""Who is at the other end of a Unix socket: the kernel knows (SO_PEERCRED, unix(7))."""

from __future__ import annotations

import os
import socket

from guestmem.ipc import Connection
from guestmem.users import is_nameless, is_trusted


def unix_peer_refusal(sock: socket.socket) -> str:
    """Why the process at the other end is none to speak with; empty for this user's own, and for root's.

    For a socket that was accepted it is who connected, for one that was connected who listens.
    """
    _, uid = Connection(sock).peer()
    if is_trusted(uid):
        return ""
    if is_nameless(uid):
        return f"a user without a number in this user namespace ({uid}) is at the other end"
    return f"user {uid} is at the other end, not user {os.geteuid()} or root"
