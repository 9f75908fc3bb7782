"""The two relays as a migration's controller: `--qmp SOCKET --migrate` at the source, `--qmp SOCKET` at the
destination.

The source's relay prepares both QEMUs, starts the migration, and lets it switch over only while the relays
speak. The destination's guest does not start by itself: it is told to when the source's QEMU has completed,
and only then. So whatever dies, at most one guest runs. One gap is left: a relay or the network that is gone
for good between the source's `completed` and the destination's `cont` leaves none; both sides say what to
type.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from pipeline.errors import FerryError, RunFailed, one_line
from pipeline.relay.control import Control

FIGURES_SECONDS = 1.0
ACTIVE = ("setup", "active", "pre-switchover", "device", "postcopy-active", "wait-unplug")
SETTLE_SECONDS = 10.0


SAID_OF = {"running": "runs", "postmigrate": "has left", "gone": "its QEMU is gone"}


def say_of(status: str) -> str:
    """A guest's state in QEMU's words, for a reader."""
    return SAID_OF.get(status, status)


class SourceController:
    """The source's QEMU."""

    def __init__(self, control: Control, uri: str, multifd: int, say: Callable[[str], None]) -> None:
        """`multifd` channels, 0 is none; it migrates to `uri`."""
        self._control, self._uri, self._multifd, self._say = control, uri, multifd, say
        self.status = "none"
        self.stopped_at = 0.0
        self.figures: dict[str, Any] = {}
        self.on_status: Callable[[str], None] = lambda status: None
        self.may_switch_over: Callable[[], str] = lambda: ""
        """Why it may not, or nothing."""
        control.on_event = self._event
        self._follower: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def follow(self) -> None:
        """Ask for QEMU's figures from now on, and say them."""
        self._follower = asyncio.get_running_loop().create_task(self._follow())

    async def start(self) -> None:
        """Raises RunFailed."""
        control = self._control
        if (await control.run("query-migrate")).get("status") == "pre-switchover":
            raise RunFailed(
                "the source's QEMU stands in pre-switchover of a migration whose relay is gone: give it "
                "migrate_cancel, and its guest runs on"
            )
        await control.set_capabilities(
            events=True, return_path=True, pause_before_switchover=True, multifd=self._multifd > 0
        )
        if self._multifd:
            await control.run("migrate-set-parameters", multifd_channels=self._multifd)
        await control.run("migrate", uri=self._uri)

    def _event(self, event: dict[str, Any]) -> None:
        if event["event"] == "STOP":
            self.stopped_at = time.monotonic()
        if event["event"] != "MIGRATION":
            return
        self.status = str(event["data"].get("status"))
        if self.status == "pre-switchover":
            self._tasks.add(asyncio.get_running_loop().create_task(self._switch_over()))
        self.on_status(self.status)

    async def _switch_over(self) -> None:
        """The link is looked at first: in this state QEMU does not notice that it is broken."""
        while (why := self.may_switch_over()) and self.status == "pre-switchover":
            self._say(f"the guest waits to be switched over: {why}")
            await asyncio.sleep(0.2)
        if self.status == "pre-switchover":
            try:
                await self._control.run("migrate-continue", state="pre-switchover")
            except RunFailed as error:
                self._say(one_line(error))

    async def _follow(self) -> None:
        while await self.look():
            left = self.figures["remaining_bytes"]
            if self.figures["status"] == "active" and left is not None:
                self._say(
                    f"QEMU: round {self.figures['rounds']}, {left >> 20} MiB left, "
                    f"{self.figures['pages_per_second']} pages/s"
                )
            await asyncio.sleep(FIGURES_SECONDS)

    async def look(self) -> bool:
        """Ask for QEMU's figures once; whether it answers."""
        try:
            self.figures = await self._control.figures()
        except FerryError:
            return False
        return True

    async def settle(self) -> str:
        """After the end: its figures, and whether its guest runs; where QEMU has not noticed, it is told."""
        if self._follower is not None:
            self._follower.cancel()
        try:
            until = time.monotonic() + SETTLE_SECONDS
            while True:
                self.figures = await self._control.figures()
                status = (await self._control.run("query-status"))["status"]
                if self.figures["status"] == "pre-switchover":
                    await self._control.run("migrate_cancel")
                elif self.figures["status"] not in (*ACTIVE, "cancelling") or time.monotonic() > until:
                    return str(status)
                await asyncio.sleep(0.05)
        except FerryError:
            return "gone"


class DestinationController:
    """The destination's QEMU."""

    def __init__(self, control: Control) -> None:
        self._control = control

    async def prepare(self, uri: str, multifd: int | None) -> None:
        """Let it wait for the migration at `uri`, and not start its guest by itself. Raises RunFailed."""
        control = self._control
        status = (await control.run("query-status"))["status"]
        if status != "inmigrate":
            raise RunFailed(
                f"the destination's QEMU waits for no migration, it is {status}: start it with -incoming"
            )
        if multifd is not None:
            await control.set_capabilities(events=True, return_path=True, multifd=multifd > 0)
            if multifd:
                await control.run("migrate-set-parameters", multifd_channels=multifd)
        if "status" not in await control.run("query-migrate"):
            await control.run("migrate-incoming", uri=uri)
        # While it waits this only says that the guest is to be paused in the end (QEMU, qmp_stop).
        await control.run("stop")

    async def go_on(self) -> None:
        """The source has completed. Raises RunFailed."""
        await self._control.run("cont")

    async def drop(self) -> None:
        """The source's guest runs, so this one never may: QEMU is ended if it still is there."""
        try:
            await self._control.run("quit")
        except FerryError:
            pass

    async def status(self) -> str:
        """Of the guest."""
        try:
            return str((await self._control.run("query-status"))["status"])
        except FerryError:
            return "gone"
