"""The workers of a Dask cluster as a fleet: machines of several kinds, that come and go.

A worker takes part when it has the resource `ramferry`. Its label is what its Dask name says behind `host=`,
up to a slash; without that it is the name of its machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline import __version__
from pipeline.errors import RunFailed, one_line
from tools.compare.cluster import on_host
from tools.compare.cluster.job import Look
from tools.compare.scenario import HOST_NAME
from tools.measuring.progress import say

if TYPE_CHECKING:
    from distributed import Client

RESOURCE = "ramferry"
LABEL = "host="
ASK_SECONDS = 5.0
LOOK_SECONDS = 20.0
"""A worker that imports what it needs from a slow disk is slow to answer the first time."""

SCHEDULER_SECONDS = 30.0
SCHEDULER_GONE = "the scheduler is gone; what was measured is kept, and the same command goes on from there"


def label_of(look: Look) -> str:
    """The kind of host that a worker says it is."""
    if look.name.startswith(LABEL):
        return look.name.removeprefix(LABEL).partition("/")[0]
    return look.hostname.partition(".")[0]


@dataclass(frozen=True)
class Worker:
    """A worker that takes part."""

    address: str
    label: str
    machine: str
    record: dict[str, Any]


class Fleet:
    """The workers that are there now. Raises RunFailed when the scheduler is gone."""

    def __init__(self, client: Client, label: Callable[[Look], str] = label_of) -> None:
        self.client = client
        self.workers: dict[str, Worker] = {}
        self._label = label
        self._refused: set[str] = set()
        self._heard = time.monotonic()

    def is_connected(self) -> bool:
        """Whether the client has its scheduler, or still tries to reach it."""
        return self.client.status in ("running", "connecting")

    def refresh(self) -> None:
        """Ask the scheduler who is there, and each that is new who it is."""
        scheduler = self.client.scheduler
        if scheduler is None or not self.is_connected():
            raise RunFailed(SCHEDULER_GONE)
        try:
            addresses = set(self._ask(scheduler.ncores, ASK_SECONDS))
        except (OSError, asyncio.TimeoutError, TimeoutError) as error:
            if time.monotonic() - self._heard > SCHEDULER_SECONDS:
                raise RunFailed(SCHEDULER_GONE) from error
            return
        self._heard = time.monotonic()
        self.workers = {address: one for address, one in self.workers.items() if address in addresses}
        self._refused &= addresses
        self._look_at(sorted(addresses - self.workers.keys() - self._refused))

    def labels(self) -> list[str]:
        """The kinds of host that are there."""
        return sorted({worker.label for worker in self.workers.values()})

    def records(self) -> dict[str, dict[str, Any]]:
        """A host record of each kind."""
        return {worker.label: worker.record for worker in reversed(self.workers.values())}

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What a function returns on each worker; one that does not answer is left out."""
        if not self.workers:
            return []
        try:
            found = self._ask(
                self.client._run,
                ASK_SECONDS,
                function,
                *arguments,
                workers=list(self.workers),
                on_error="ignore",
            )
        except (OSError, asyncio.TimeoutError, TimeoutError):
            return []
        return list(found.values())

    def _look_at(self, addresses: list[str]) -> None:
        for address in addresses:  # one by one: a worker that does not answer must not hide the others
            seen = self._seen(address)
            if isinstance(seen, Look) and (why := self._why_not(seen)) is None:
                self.workers[address] = Worker(address, self._label(seen), seen.machine, seen.record)
                continue
            if not isinstance(seen, Look):
                why = f"it cannot run ramferry: {one_line(seen)}"
            self._refused.add(address)
            say(f"without the worker at {address}: {why}")

    def _why_not(self, seen: Look) -> str | None:
        if seen.resources.get(RESOURCE, 0) < 1:
            return f"it does not have the resource {RESOURCE}=1"
        if seen.version != __version__:
            return f"it has ramferry {seen.version}, and this is {__version__}"
        if not HOST_NAME.fullmatch(self._label(seen)):
            return f"host={self._label(seen)}: must be letters, digits, dots, dashes, 63 at most"
        return None

    def _seen(self, address: str) -> Look | BaseException:
        try:
            found = self._ask(
                self.client._run, LOOK_SECONDS, on_host.look, workers=[address], on_error="return"
            )
        except Exception as error:  # what a worker cannot import is raised as whatever it is
            return error
        seen: Look | BaseException = found.get(address, OSError("it is gone"))
        return seen

    def _ask(self, function: Callable[..., Any], seconds: float, *arguments: Any, **options: Any) -> Any:
        return self.client.sync(function, *arguments, callback_timeout=seconds, **options)
