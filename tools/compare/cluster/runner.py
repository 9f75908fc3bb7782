"""Runs the points of a comparison on a fleet: one at a time on each machine, and none of them twice.

The order is kept here, not at the scheduler: a task is handed to a worker only when its machine is free, so
nothing waits in a worker for a lock, and a pair of hosts is taken both at once or not at all. A worker that
is gone, or a host that fails, costs its point another try, elsewhere if there is an elsewhere; after
MAX_TRIES, or where no host of its kind has been there for a while, the point's result says so.
"""

from __future__ import annotations

import os
import queue
import secrets
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from pipeline.errors import FerryError, RunFailed
from tools.compare.cluster import machine, on_host
from tools.compare.cluster.attempt import Attempt, Event, Events, Work
from tools.compare.cluster.fleet import SCHEDULER_GONE, Fleet, Worker
from tools.compare.cluster.job import Certificates, ImageOf, Job, Outcome
from tools.compare.runner import Keep, arguments_of, now
from tools.compare.scenario import Point, Scenario
from tools.measuring.progress import say

if TYPE_CHECKING:
    from distributed import Client

MAX_TRIES = 3
PATIENCE_SECONDS = 30.0
"""How long a kind of host may be without a worker: Dask's nanny starts one that died again within seconds."""

REFRESH_SECONDS = 1.0
STEP_SECONDS = 0.2
END_SECONDS = 10.0
RESULT_VERSION = 2

Ends = tuple[str, ...]
"""The kinds of host that a point needs: one, or a pair."""


class FleetRunner:
    """Runs points on a fleet. `certificates` are for pairs."""

    def __init__(
        self, client: Client, fleet: Fleet, scenario: Scenario, certificates: Certificates | None
    ) -> None:
        self._client = client
        self._fleet = fleet
        self._scenario = scenario
        self._certificates = certificates
        self._campaign = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._events: Events = queue.SimpleQueue()
        self._waiting: dict[Ends, deque[Work]] = {}
        self._running: dict[str, Attempt] = {}
        self._last_seen: dict[str, float] = {}
        self._numbers = 0

    def run(self, points: list[Point], keep: Keep) -> None:
        """Raises FerryError when the scheduler is gone, or when cancelled."""
        for point in points:
            self._waiting.setdefault(_ends(point), deque()).append(Work(point))
        self._last_seen = {label: time.monotonic() for ends in self._waiting for label in ends}
        topic = f"ramferry-{self._campaign}"
        if self._certificates is not None:
            self._client.subscribe_topic(topic, self._heard)
        try:
            self._go(keep, topic)
        except (FerryError, OSError):
            raise
        except Exception as error:  # whatever a client says that has lost its scheduler
            if self._fleet.is_connected():
                raise
            raise RunFailed(SCHEDULER_GONE) from error
        finally:
            self._clean_up()

    def _go(self, keep: Keep, topic: str) -> None:
        refreshed = 0.0
        while self._running or any(self._waiting.values()):
            if time.monotonic() - refreshed > REFRESH_SECONDS:
                self._refresh(keep)
                refreshed = time.monotonic()
            self._start(topic)
            try:
                self._take(self._events.get(timeout=STEP_SECONDS), keep)
            except queue.Empty:
                pass

    def _refresh(self, keep: Keep) -> None:
        """Attempts whose worker is gone have failed, and so have points whose kind of host is gone."""
        self._fleet.refresh()
        for name, attempt in list(self._running.items()):
            for worker in attempt.workers:
                if worker.address not in self._fleet.workers and name in self._running:
                    why = f"the worker at {worker.address} died"
                    self._failed(name, Outcome(None, why), worker, keep)
        here = time.monotonic()
        self._last_seen |= dict.fromkeys(self._fleet.labels(), here)
        for ends, waiting in self._waiting.items():
            gone = [label for label in ends if here - self._last_seen[label] > PATIENCE_SECONDS]
            while gone and waiting:
                keep(waiting[0].point, failure(f"no worker of the host {gone[0]} is there"))
                waiting.popleft()

    def _start(self, topic: str) -> None:
        """Give work to the machines that are free."""
        busy = set().union(*(attempt.machines for attempt in self._running.values()))
        for ends, waiting in list(self._waiting.items()):
            while waiting and (workers := self._choose(ends, busy, waiting[0].failed_on)):
                self._begin(waiting.popleft(), workers, topic)
                busy |= {worker.machine for worker in workers}
                self._waiting[ends] = self._waiting.pop(ends)  # others are first the next time

    def _choose(self, ends: Ends, busy: set[str], failed_on: set[str]) -> tuple[Worker, ...]:
        """A free worker for each end, on machines where the point did not fail if there are any."""
        chosen: list[Worker] = []
        for label in ends:
            free = [
                worker
                for worker in self._fleet.workers.values()
                if worker.label == label and worker.machine not in busy and worker not in chosen
            ]
            if not free:
                return ()
            chosen.append(min(free, key=lambda worker: worker.machine in failed_on))
        return tuple(chosen)

    def _begin(self, work: Work, workers: tuple[Worker, ...], topic: str) -> None:
        work.tries += 1
        self._numbers += 1
        point, scenario = work.point, self._scenario
        image = ImageOf(point.image, scenario.size_bytes, scenario.fill)
        name = f"ramferry-{self._campaign}-{self._numbers}"
        single = len(workers) == 1
        arguments = [*arguments_of(point), *(["--prealloc"] if point.prealloc and single else [])]
        job = Job(name, self._campaign, image, tuple(arguments), point.prealloc)
        attempt = Attempt(self._client, work, job, workers, self._events)
        self._running[name] = attempt
        if single:
            attempt.start_point()
        elif self._certificates is not None:
            attempt.start_receiver(self._certificates, topic)

    def _heard(self, event: tuple[float, dict[str, str]]) -> None:
        """A receiver listens. Called by the client's own thread."""
        self._events.put(Event(event[1]["name"], None, event[1]["address"]))

    def _take(self, event: Event, keep: Keep) -> None:
        attempt = self._running.get(event.name)
        if attempt is None:
            return  # it was given up
        if event.future is None:
            if self._certificates is not None:
                attempt.start_sender(self._certificates, event.address)
            return
        decided = attempt.ended(event.future)
        if decided is None:
            return
        outcome, worker = decided
        if outcome.result is None:
            self._failed(event.name, outcome, worker, keep)
            return
        del self._running[event.name]
        keep(attempt.work.point, outcome.result)

    def _failed(self, name: str, outcome: Outcome, worker: Worker, keep: Keep) -> None:
        """Try again, elsewhere if there is an elsewhere; or keep a result that says why not."""
        attempt = self._running.pop(name)
        attempt.cancel()
        work = attempt.work
        work.failed_on.add(worker.machine)
        others = any(
            one.label == worker.label and one.machine not in work.failed_on
            for one in self._fleet.workers.values()
        )
        if work.tries < MAX_TRIES and (others or not outcome.elsewhere):
            say(f"{work.point.key}: {outcome.error}; it is tried again")
            self._waiting[_ends(work.point)].appendleft(work)
            return
        keep(work.point, failure(f"{outcome.error} ({work.tries} {'try' if work.tries == 1 else 'tries'})"))

    def _clean_up(self) -> None:
        """Nothing of ours is left running on a worker, and no file."""
        if not self._fleet.is_connected():
            return
        for attempt in self._running.values():
            attempt.cancel()
        until = time.monotonic() + END_SECONDS
        while self._running and time.monotonic() < until:
            if not any(self._fleet.everywhere(on_host.still_running)):
                break
            time.sleep(STEP_SECONDS)
        self._fleet.everywhere(machine.forget, self._campaign)


def _ends(point: Point) -> Ends:
    return (point.host, point.to_host) if point.to_host else (point.host,)


def failure(error: str) -> dict[str, Any]:
    """The result of a point that could not be measured."""
    return {"schema_version": RESULT_VERSION, "status": "failed", "error": error, "measured_at": now()}
