"""Connections that were let in, and the processes that work them: start, shut, let go."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from guestmem.ipc import Connection, Message
from pipeline.processes.supervisor import Supervisor, Worker
from pipeline.transports.tcp.server.acceptor import Caller

END_SECONDS = 1.0
"""How long a process may take to end whose connection was shut down."""


@dataclass
class PeerConnection:
    """One connection and its process. `shut_at` is when this side ended it, if it did."""

    caller: Caller
    worker: Worker
    shut_at: float | None = None

    @property
    def generation(self) -> int:
        """As the sender counts the connections of this place."""
        return self.caller.hello.generation

    def shut(self) -> None:
        """End the connection from here: its process sees the end and ends too."""
        if self.shut_at is None:
            self.shut_at = time.monotonic()
            try:
                # Not the TLS object's own: that one belongs to the process now.
                socket.socket.shutdown(self.caller.sock, socket.SHUT_RDWR)
            except OSError:
                pass

    def has_ended(self) -> bool:
        """Whether its process is gone, or is one that does not go."""
        if self.worker.exit_status is not None:
            return True
        return self.shut_at is not None and time.monotonic() - self.shut_at > END_SECONDS


def mark_private(supervisor: Supervisor, caller: Caller) -> None:
    """Have other workers not inherit the caller's connection, which would hold it open."""
    supervisor.mark_private(caller.sock.fileno())


def drop(supervisor: Supervisor, caller: Caller | None) -> None:
    """Hang up on a caller that was marked private."""
    if caller is not None:
        supervisor.unmark_private(caller.sock.fileno())
        caller.sock.close()


def start(
    supervisor: Supervisor, caller: Caller, name: str, main: Callable[[Connection], None]
) -> PeerConnection:
    """Fork the process that works a caller's connection."""
    supervisor.unmark_private(caller.sock.fileno())
    worker = supervisor.start(name, "recv", main)
    worker.leaving = True  # it ends with its connection, and that is no failure
    mark_private(supervisor, caller)
    return PeerConnection(caller, worker)


def close(supervisor: Supervisor, connection: PeerConnection) -> Message | None:
    """Its process has ended, or must: close what is left of it; what it said last, if it did."""
    last = next((m for m, _ in reversed(connection.worker.inbox) if m["kind"] == "usage"), None)
    supervisor.dismiss(connection.worker)
    drop(supervisor, connection.caller)
    return last
