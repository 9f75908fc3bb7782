"""QEMU's monitor protocol, as much of it as a migration needs: commands, replies, events.

Source: QEMU `docs/interop/qmp-spec.rst`. One JSON document a line; a reply is `return` or
`error`; an event may stand between a command and its reply.
"""

from __future__ import annotations

import json
import socket
import time
from typing import Any


class QmpError(Exception):
    """QEMU refused a command, or is gone; the message is QEMU's own."""


class Qmp:
    """One monitor, over a connected stream socket."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._lines = connected.makefile("rb")
        self._events: list[dict[str, Any]] = []

    def greet(self) -> str:
        """Read the greeting, leave negotiation mode; returns QEMU's version. Raises QmpError."""
        greeting = self._next(None)
        version = greeting["QMP"]["version"]["qemu"]
        self.run("qmp_capabilities")
        return f"{version['major']}.{version['minor']}.{version['micro']}"

    def run(self, command: str, **arguments: Any) -> Any:
        """Run a command and return its result; underscores in names stand for dashes."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._socket.sendall(json.dumps({"execute": command, "arguments": named}).encode() + b"\n")
        while True:
            message = self._next(None)
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise QmpError(f"{command}: {message['error']['desc']}")
            self._events.append(message)

    def wait_for_migration(self, timeout_seconds: float) -> str:
        """The status that ended the migration: completed, failed or cancelled. Raises QmpError."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            while self._events:
                event = self._events.pop(0)
                status = event.get("data", {}).get("status")
                if event.get("event") == "MIGRATION" and status in ("completed", "failed", "cancelled"):
                    return str(status)
            self._events.append(self._next(deadline))

    def _next(self, deadline: float | None) -> dict[str, Any]:
        left = 60.0 if deadline is None else deadline - time.monotonic()
        self._socket.settimeout(max(left, 0.001))
        try:
            line = self._lines.readline()
        except TimeoutError as error:
            raise QmpError("QEMU's monitor says nothing more") from error
        except OSError as error:
            raise QmpError(f"QEMU's monitor is gone: {error}") from error
        if not line:
            raise QmpError("QEMU is gone")
        message: dict[str, Any] = json.loads(line)
        return message
