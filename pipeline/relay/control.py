"""What the relays tell QEMU where they may: one monitor, by the package `qemu.qmp`, in the relay's own loop.

Source of names and states: QEMU `qapi/migration.json`, `qapi/run-state.json`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
from collections.abc import Callable
from typing import Any

from pipeline.errors import HostError, RunFailed

NO_PACKAGE = "--qmp: the package qemu.qmp is missing: pip install 'qemu.qmp>=0.0.3' (or 'ramferry[qemu]')"
REPLY_SECONDS = 10.0
CONNECT_SECONDS = 5.0


class Control:
    """One QEMU. `on_event` is told each event as it comes."""

    def __init__(self, path: str) -> None:
        """Raises HostError without the package."""
        try:
            qmp: Any = importlib.import_module("qemu.qmp")
        except ImportError as error:
            raise HostError(NO_PACKAGE) from error
        # The package logs each lost connection, and without a handler Python would print that.
        logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())
        self._path = path
        self._client = qmp.QMPClient("ramferry")
        self._errors: tuple[type[Exception], ...] = (qmp.QMPError, EOFError, OSError, asyncio.TimeoutError)
        self._listener: asyncio.Task[None] | None = None
        self.on_event: Callable[[dict[str, Any]], None] = lambda event: None

    async def open(self) -> None:
        """Raises HostError where nobody answers."""
        try:
            await asyncio.wait_for(self._client.connect(self._path), CONNECT_SECONDS)
        except self._errors as error:
            raise HostError(
                f"--qmp {self._path}: no QEMU answers ({str(error) or type(error).__name__}); another client "
                "may hold this monitor: give QEMU one for the relay, -qmp unix:PATH,server=on,wait=off"
            ) from error
        self._listener = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> None:
        with contextlib.suppress(*self._errors):
            async for event in self._client.events:
                self.on_event(dict(event))

    async def run(self, command: str, **arguments: Any) -> Any:
        """A command's result; underscores in names stand for dashes. Raises RunFailed."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            return await asyncio.wait_for(self._client.execute(command, named or None), REPLY_SECONDS)
        except self._errors as error:
            raise RunFailed(f"QEMU at {self._path}: {command}: {error or type(error).__name__}") from error

    async def set_capabilities(self, **states: bool) -> None:
        """Raises RunFailed."""
        await self.run(
            "migrate-set-capabilities",
            capabilities=[
                {"capability": name.replace("_", "-"), "state": state} for name, state in states.items()
            ],
        )

    async def figures(self) -> dict[str, Any]:
        """What QEMU says of its migration now, in our words. Raises RunFailed."""
        said = await self.run("query-migrate")
        ram = said.get("ram", {})
        return {
            "status": said.get("status"),
            "total_ms": said.get("total-time"),
            "downtime_ms": said.get("downtime"),
            "expected_downtime_ms": said.get("expected-downtime"),
            "rounds": ram.get("dirty-sync-count"),
            "pages_per_second": ram.get("pages-per-second"),
            "remaining_bytes": said.get("remaining", ram.get("remaining")),
            "transferred_bytes": ram.get("transferred"),
            "error": said.get("error-desc"),
        }

    async def close(self) -> None:
        """End the connection; QEMU goes on."""
        if self._listener is not None:
            self._listener.cancel()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._client.disconnect(), 2.0)
