"""The migration's side of its conversation with the guest (`guestmem.guest`).

The guest is a worker of this run, or one that another command keeps running and that this run
visits. The orders are the same. When the connection closes, a visited guest runs on at full speed,
whatever became of the run.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any

from guestmem.content import ImageChanged
from guestmem.dirty_log import AUTO, KINDS, names_to_try
from guestmem.dirty_log.contract import DirtyLog, NoDirtyLog, Opening
from guestmem.guest import UNWATCHED, GuestExists, GuestSpec, NoSuchGuest, run_guest, visit
from guestmem.images import ImageError
from guestmem.ipc import Connection, Message
from guestmem.prefault import NoMemoryBehind
from guestmem.ram import GuestRam
from pipeline.errors import HostError, RunFailed
from pipeline.processes.deadline import Deadline
from pipeline.processes.supervisor import Supervisor, Worker

ANSWER_SECONDS = 5.0
LEASE_SECONDS, RENEW_SECONDS = 4.0, 1.0
"""A guest stands still for so long on a coordinator that says nothing; one at work speaks up in time."""

STEP_SECONDS = 0.1

State = dict[str, Any]
OnFilling = Callable[[float], None]
"""Told what share of a new guest's RAM, 0 to 1, is filled; at most ten times a second."""


def _live(spec: GuestSpec, owner: Connection) -> None:
    """The guest's process. What keeps a guest from being made is the host's fault."""
    try:
        run_guest(owner, spec)
    except (ImageChanged, ImageError) as error:
        raise HostError(f"--image {error}") from error
    except (GuestExists, NoMemoryBehind) as error:
        raise HostError(str(error)) from error


class GuestClient:
    """An open guest: its RAM, read-only, its dirty log, and the orders that it obeys.

    `log_kind` is the name of the log in use; UNWATCHED when none was asked for.
    """

    def __init__(
        self, supervisor: Supervisor, worker: Worker, log: str, on_filling: OnFilling | None = None
    ) -> None:
        """Open the guest with a log: one of `guestmem.dirty_log.LOGS`, or UNWATCHED.

        Waits until the guest has filled its RAM. Raises HostError when the guest refuses, or when
        the log cannot be had.
        """
        self._supervisor = supervisor
        self._on_filling = on_filling
        self._log: DirtyLog | None = None
        self.worker = worker
        self.state: State = {}
        self._lease = 0
        self._renewed_at = 0.0
        self._open(log)
        self._opened_at = time.monotonic()

    @property
    def pid(self) -> int:
        """The guest's process, as the kernel names it."""
        return self.worker.pid or self.worker.connection.peer()[0]

    @property
    def log(self) -> DirtyLog:
        """The log that was asked for; there is none when that was UNWATCHED."""
        assert self._log is not None, "this guest was opened unwatched"
        return self._log

    def _open(self, log: str) -> None:
        reason = ""
        for name in names_to_try(log):
            try:
                self._open_with(name)
                return
            except NoDirtyLog as error:
                reason = str(error)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise HostError(
                    f"{self.worker.name} gave an answer that cannot be read ({error}): "
                    "is it of another version?"
                ) from error
        advice = "" if log == AUTO else f"; --dirty-log {AUTO} takes one that works here"
        raise HostError(f"--dirty-log {log}: {reason}{advice}")

    def _open_with(self, name: str) -> None:
        """Open the guest with the log of this name. Raises NoDirtyLog, HostError."""
        self._supervisor.tell(self.worker, {"kind": "open", "log": name})
        ready, descriptors = self._await_opened()
        if ready["kind"] == "no-log":
            raise NoDirtyLog(str(ready["text"]))
        if ready["kind"] != "ready":
            raise HostError(f"the guest cannot be opened: {ready.get('text', ready['kind'])}")
        try:
            source = GuestRam(descriptors[0], writable=False)
            if name != UNWATCHED:
                opening = Opening(self.pid, source.fd, source.pages, ready["log_fields"], descriptors[1:])
                self._log = KINDS[name].open(opening)
            self.self_checking = bool(ready["self_checking"])
            self.bytes_by_node = dict(ready.get("bytes_by_node", {}))
            self.huge_bytes = int(ready.get("huge_bytes", 0))
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        self.log_kind, self.source = name, source

    def _await_opened(self) -> tuple[Message, list[int]]:
        """Wait for the answer to `open`; how far the filling is comes before it."""
        while True:
            while not self.worker.inbox:
                self._supervisor.wait(STEP_SECONDS)
            message, descriptors = self.worker.inbox.pop(0)
            if message["kind"] != "filling":
                return message, descriptors
            if self._on_filling is not None:
                self._on_filling(float(message["share"]))

    @classmethod
    def start(
        cls, supervisor: Supervisor, spec: GuestSpec, log: str, on_filling: OnFilling | None = None
    ) -> GuestClient:
        """Make a guest that belongs to this run, and open it. Raises what the constructor raises."""
        worker = supervisor.start("guest", "source", functools.partial(_live, spec))
        return cls(supervisor, worker, log, on_filling)

    @classmethod
    def attach(cls, supervisor: Supervisor, name: str, log: str) -> GuestClient:
        """Visit a guest that another command keeps running. Raises HostError when there is none."""
        try:
            connection = visit(name)
        except NoSuchGuest as error:
            raise HostError(f"{error}; make one with python -m tools.dirtyrate --create {name}") from error
        return cls(supervisor, supervisor.adopt(f"guest {name}", "source", connection), log)

    def order(self, kind: str, **fields: object) -> State:
        """Give an order and wait until the guest has obeyed; returns its counters.

        Raises RunFailed when the guest does not answer within ANSWER_SECONDS.
        """
        self._supervisor.tell(self.worker, {"kind": kind, **fields})
        deadline = Deadline(ANSWER_SECONDS)
        while not self.worker.inbox:
            self._supervisor.wait(STEP_SECONDS)
            if deadline.passed():
                raise RunFailed(f"the guest did not answer {kind!r} for {ANSWER_SECONDS:g} s")
        message, _ = self.worker.inbox.pop(0)
        if message["kind"] != "state":
            raise RunFailed(f"the guest said {message['kind']!r} to {kind!r}: {message.get('text')}")
        self.state = message
        return message

    def pause(self) -> None:
        """The guest stands still, under a new lease. Raises RunFailed."""
        self._lease += 1
        self._renewed_at = time.monotonic()
        self.order("pause", lease=self._lease, seconds=LEASE_SECONDS)

    def renew(self) -> bool:
        """Keep the guest standing while this side is at work; whether it has stood still since `pause`."""
        if time.monotonic() - self._renewed_at < RENEW_SECONDS:
            return True
        self._renewed_at = time.monotonic()
        return bool(self.order("renew", lease=self._lease, seconds=LEASE_SECONDS)["lease"] == self._lease)

    @property
    def stands_until(self) -> float:
        """When a paused guest runs again by itself, on the monotonic clock."""
        return self._renewed_at + LEASE_SECONDS

    def stand_on(self) -> bool:
        """The guest runs elsewhere now, and stands here for good; whether it stood still since `pause`."""
        return bool(self.order("hold", lease=self._lease)["lease"] == self._lease)

    def run(self) -> bool:
        """Let the guest run; whether it stood still from `pause` until now."""
        return bool(self.order("run")["lease"] == self._lease)

    def let_go(self) -> None:
        """The guest runs, at full speed, without an answer being waited for."""
        self._supervisor.tell(self.worker, {"kind": "throttle", "percent": 0})
        self._supervisor.tell(self.worker, {"kind": "run"})

    def slowest_second(self, since: float, until: float) -> float | None:
        """The fewest bytes that the guest wrote in any whole second that overlaps an interval.

        Times are of the monotonic clock. None when no whole second does.
        """
        slowest = self.order("ask", since=since, until=until)["slowest_second_bytes"]
        return None if slowest is None else float(slowest)

    def view(self, began: float, ended: float, released: float | None) -> State:
        """What the guest saw of a migration: the rate it reached, and its slowest second before, during
        and after. `released` is when the guest was let run again, or None; times are of the monotonic
        clock.
        """
        slowest = {
            "before": self.slowest_second(self._opened_at + 1, began - 1),
            "during": self.slowest_second(began, ended - 1),
            "after": None if released is None else self.slowest_second(released + 1, time.monotonic()),
        }
        state = self.state
        seconds = float(state["written_seconds"])
        return {
            "state": state["state"],
            "writes": state["writes"],
            "written_bytes": state["written_bytes"],
            "written_seconds": seconds,
            "bytes_per_second_reached": state["written_bytes"] / seconds if seconds else 0.0,
            "slowest_second_bytes": slowest,
        }

    def rest(self, seconds: float) -> None:
        """Let the guest run for a while; raises what Supervisor.wait raises meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._supervisor.wait(min(left, STEP_SECONDS))
