"""A running QEMU's monitor, by its socket's path."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from pipeline.errors import HostError
from pipeline.qemu.commands import Commands
from pipeline.qemu.monitor import Monitor, MonitorError, why_not

CONNECT_SECONDS = 5.0
MOVING = ("setup", "active", "pre-switchover", "device", "postcopy-active", "postcopy-paused", "cancelling")
"""States in which a migration is under way (qapi/migration.json, MigrationStatus)."""


@contextlib.contextmanager
def monitor_at(path: str) -> Iterator[Monitor]:
    """Raises HostError where nobody answers."""
    if missing := why_not():
        raise HostError(f"--qmp {path}: {missing}")
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(CONNECT_SECONDS)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise HostError(f"--qmp {path}: no QEMU listens there: {error.strerror or error}") from error
    sock.settimeout(None)
    try:
        monitor = Monitor(sock)
    except MonitorError as error:
        raise HostError(f"--qmp {path}: {error}; another client may hold this monitor") from error
    try:
        yield monitor
    finally:
        monitor.close()


def refuse_moving(monitor: Commands, where: str, why: str) -> None:
    """Raises HostError for a VM that is being migrated; MonitorError. `where` is the option that names it."""
    status = monitor.run("query-migrate").get("status", "none")
    if status in MOVING:
        raise HostError(f"{where}: this VM is being migrated ({status}): {why}")
