"""QEMU's monitor, by the package `qemu.qmp`, as synchronous calls: commands, and the end of a migration.

Every monitor has an event loop of its own. Source of names and states: QEMU `qapi/migration.json`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import socket
import struct
from collections.abc import Coroutine
from typing import Any, TypeVar

REPLY_SECONDS = 60.0
ENDED = ("completed", "failed", "cancelled")
NO_PACKAGE = "the package qemu.qmp is missing: pip install 'qemu.qmp>=0.0.3' (or 'ramferry[qemu]')"

CREDENTIALS = struct.Struct("iII")
"""struct ucred: pid, uid, gid."""

T = TypeVar("T")


def why_not() -> str:
    """Why no monitor can be spoken to here; empty when it can."""
    try:
        importlib.import_module("qemu.qmp")
    except ImportError:
        return NO_PACKAGE
    return ""


class MonitorError(Exception):
    """QEMU refused a command, or is gone; the message is QEMU's own where it has one."""


def seconds_of(event: dict[str, Any]) -> float:
    """When it happened, by QEMU's clock."""
    stamp = event["timestamp"]
    return float(stamp["seconds"] + stamp["microseconds"] / 1e6)


def _peer_pid(connected: socket.socket) -> int | None:
    """Who listens there, as the kernel says (SO_PEERCRED, unix(7)); None where it does not."""
    if connected.family != socket.AF_UNIX:
        return None
    said = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    return int(CREDENTIALS.unpack(said)[0]) or None


class Monitor:
    """One monitor over a connected stream socket, which it owns from then on."""

    def __init__(self, connected: socket.socket) -> None:
        """Negotiates. Raises MonitorError. `peer_pid` is who listened where this was connected."""
        from qemu.qmp import QMPClient

        # The package logs each lost connection, and without a handler Python would print that.
        logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())
        self.peer_pid = _peer_pid(connected)
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient()
        try:
            self._complete(self._client.connect(connected), REPLY_SECONDS)
        except BaseException:
            connected.close()
            self.close()
            raise

    @property
    def version(self) -> str:
        """QEMU's, as it greeted: `10.0.2`."""
        greeting = self._client.greeting
        assert greeting is not None, "a monitor that is connected was greeted"
        version: Any = greeting.QMP.version
        return "{major}.{minor}.{micro}".format(**version["qemu"])

    def run(self, command: str, **arguments: Any) -> Any:
        """Run a command and return its result; underscores in names stand for dashes. Raises MonitorError."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self._complete(self._client.execute(command, named), REPLY_SECONDS, command)

    def capabilities(self) -> dict[str, bool]:
        """Those of migration that this QEMU has, and whether they are on. Raises MonitorError."""
        listed = self.run("query-migrate-capabilities")
        return {one["capability"]: bool(one["state"]) for one in listed}

    def set_capabilities(self, states: dict[str, bool]) -> None:
        """Of migration; all others stay as they are. Raises MonitorError."""
        self.run(
            "migrate-set-capabilities",
            capabilities=[{"capability": name, "state": state} for name, state in states.items()],
        )

    def events(self) -> list[dict[str, Any]]:
        """Those that have come since they were asked for last, in order."""
        self._loop.run_until_complete(asyncio.sleep(0.01))
        found: list[dict[str, Any]] = []
        while not self._client.events.empty():
            found.append(dict(self._loop.run_until_complete(self._client.events.get())))
        return found

    def wait_for_migration(self, timeout_seconds: float) -> str:
        """The status that ended the migration: completed, failed or cancelled. Raises MonitorError."""
        return self._complete(self._migration_end(), timeout_seconds)

    async def _migration_end(self) -> str:
        """Events may wait since before; when the connection is lost there will be no more."""
        lost = asyncio.ensure_future(self._lost())
        status = asyncio.ensure_future(self._migration_status())
        try:
            await asyncio.wait({status, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not status.done():
                raise MonitorError("QEMU is gone")
            return status.result()
        finally:
            lost.cancel()
            status.cancel()
            await asyncio.gather(lost, status, return_exceptions=True)

    async def _migration_status(self) -> str:
        while True:
            event = await self._client.events.get()
            data: Any = event.get("data", {})
            if event["event"] == "MIGRATION" and data.get("status") in ENDED:
                return str(data["status"])

    async def _lost(self) -> None:
        from qemu.qmp import Runstate

        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()

    def close(self) -> None:
        """End the connection, whatever state it is in."""
        try:
            self._complete(self._client.disconnect(), REPLY_SECONDS)
        except MonitorError:
            pass
        self._loop.close()

    def _complete(self, call: Coroutine[Any, Any, T], seconds: float, command: str = "") -> T:
        from qemu.qmp import ExecuteError, QMPError

        task = self._loop.create_task(asyncio.wait_for(call, seconds))
        try:
            return self._loop.run_until_complete(task)
        except ExecuteError as error:
            raise MonitorError(f"{command}: {error}") from error
        except asyncio.TimeoutError as error:
            raise MonitorError("QEMU's monitor says nothing more") from error
        except (QMPError, EOFError, OSError) as error:
            raise MonitorError(f"QEMU is gone: {error}") from error
        finally:
            if not task.done():  # a signal has come in between
                task.cancel()
                with contextlib.suppress(BaseException):
                    self._loop.run_until_complete(task)
