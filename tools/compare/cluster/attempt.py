"""One attempt at a point: its tasks on the workers, and what becomes of them."""

from __future__ import annotations

import queue
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.errors import one_line
from tools.compare.cluster import on_host
from tools.compare.cluster.fleet import RESOURCE, Worker
from tools.compare.cluster.job import Certificates, Job, Outcome
from tools.compare.scenario import Point

if TYPE_CHECKING:
    from distributed import Client, Future


@dataclass
class Work:
    """A point that is not finished, how often it was tried, and the machines on which that failed."""

    point: Point
    tries: int = 0
    failed_on: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Event:
    """A task of an attempt has ended; or, with an address, its receiver listens."""

    name: str
    future: Future[Any] | None
    address: str = ""


Events = queue.SimpleQueue[Event]


class Attempt:
    """A point on one worker, or its two ends on two: the receiver first, the sender once it listens."""

    def __init__(
        self, client: Client, work: Work, job: Job, workers: tuple[Worker, ...], events: Events
    ) -> None:
        self.work = work
        self.job = job
        self.workers = workers
        self._client = client
        self._events = events
        self._futures: list[Future[Any]] = []
        self._sent: Outcome | None = None
        self._received: Outcome | None = None

    @property
    def machines(self) -> set[str]:
        return {worker.machine for worker in self.workers}

    def start_point(self) -> None:
        """Both ends on the one worker."""
        self._submit(self.workers[0], on_host.run_point, self.job)

    def start_receiver(self, certificates: Certificates, topic: str) -> None:
        self._submit(self.workers[1], on_host.receive, self.job, certificates, topic)

    def start_sender(self, certificates: Certificates, address: str) -> None:
        shares = len(self.machines) == 1
        self._submit(self.workers[0], on_host.send, self.job, certificates, address, shares)

    def ended(self, future: Future[Any]) -> tuple[Outcome, Worker] | None:
        """What came of the attempt and on which worker, if this task's end decides it.

        Of a pair the sender's end does, since it knows more: a receiver whose sender gave up has failed too.
        """
        outcome = _outcome_of(future)
        receiver = self._futures[0]
        if len(self.workers) == 1 or len(self._futures) == 1:
            return outcome, self.workers[-1]
        if future is receiver:
            self._received = outcome
        else:
            self._sent = outcome
        if self._sent is None or (self._sent.result is not None and not receiver.done()):
            return None
        if self._sent.result is None and self._received is not None and self._received.result is None:
            return self._received, self.workers[1]
        return self._sent, self.workers[0]

    def cancel(self) -> None:
        """Nobody waits for its tasks: their workers end them."""
        pending = [future for future in self._futures if not future.done()]
        if pending:
            self._client.cancel(pending, force=True)

    def _submit(self, worker: Worker, function: Any, *arguments: Any) -> None:
        future = self._client.submit(
            function,
            *arguments,
            key=f"{self.job.name}-{function.__name__}",
            workers=[worker.address],
            resources={RESOURCE: 1},
            pure=False,
        )
        self._futures.append(future)
        future.add_done_callback(lambda one: self._events.put(Event(self.job.name, one)))


def _outcome_of(future: Future[Any]) -> Outcome:
    if future.status == "finished":
        outcome: Outcome = future.result()
        return outcome
    if future.status == "cancelled":
        return Outcome(None, "the scheduler lost it")
    error = future.exception()
    return Outcome(None, one_line(error) if error is not None else "the worker failed")
