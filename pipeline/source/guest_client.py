"""The migration's side of its conversation with the guest (`guestmem.guest`).

The guest is a worker of this run, or one that somebody else keeps running and that this run
visits. Either way the same orders, and the same end: when the conversation closes, a visited
guest runs on at full speed, whatever became of the run.
"""

from __future__ import annotations

import functools
import time
from typing import Any

from guestmem.dirty_log.logs import DirtyLog, KernelDirtyLog, SharedDirtyLog
from guestmem.dirty_log.write_protect import NoKernelLog
from guestmem.guest import GuestExists, GuestSpec, NoSuchGuest, run_guest, visit
from guestmem.ipc import Connection
from guestmem.prefault import NoMemoryBehind
from guestmem.ram import GuestRam
from pipeline.errors import HostError, RunFailed
from pipeline.processes.deadline import Deadline
from pipeline.processes.supervisor import Supervisor, Worker

ANSWER_SECONDS = 5.0
STEP_SECONDS = 0.1

State = dict[str, Any]


def _live(spec: GuestSpec, owner: Connection) -> None:
    """The guest's process. What keeps it from coming to life is the host's fault."""
    try:
        run_guest(owner, spec)
    except (GuestExists, NoMemoryBehind) as error:
        raise HostError(str(error)) from error


class GuestClient:
    """An open guest: its RAM, read-only, its dirty log, and its obedience."""

    def __init__(self, supervisor: Supervisor, worker: Worker, log: str) -> None:
        """Ask the guest for its RAM and a log of a kind (auto, kernel, shared).

        Waits as long as the guest takes to fill its RAM. Raises HostError when it refuses.
        """
        self._supervisor = supervisor
        self.worker = worker
        self.state: State = {}
        try:
            self._open(log)
        except NoKernelLog as error:
            # The guest could be watched by the kernel, but not by this process.
            if log != "auto":
                raise HostError(str(error)) from error
            self._open("shared")

    def _open(self, log: str) -> None:
        self._supervisor.tell(self.worker, {"kind": "open", "log": log})
        while not self.worker.inbox:
            self._supervisor.wait(STEP_SECONDS)
        ready, descriptors = self.worker.inbox.pop(0)
        if ready["kind"] != "ready":
            raise HostError(f"the guest cannot be opened: {ready.get('text', ready['kind'])}")
        self.log_kind = str(ready["log"])
        self.self_checking = bool(ready["self_checking"])
        self.source = GuestRam(descriptors[0], writable=False)
        self.log: DirtyLog
        if self.log_kind == "kernel":
            self.log = KernelDirtyLog(int(ready["pid"]), int(ready["address"]), self.source.size_bytes)
        else:
            self.log = SharedDirtyLog(descriptors[1], self.source.pages)

    @classmethod
    def start(cls, supervisor: Supervisor, spec: GuestSpec, log: str) -> GuestClient:
        """Make a guest of this run's own."""
        return cls(supervisor, supervisor.start("guest", "source", functools.partial(_live, spec)), log)

    @classmethod
    def attach(cls, supervisor: Supervisor, name: str, log: str) -> GuestClient:
        """Visit a guest that is there. Raises HostError when it is not."""
        try:
            connection = visit(name)
        except NoSuchGuest as error:
            raise HostError(f"{error}; make one with python -m tools.dirtyrate --create {name}") from error
        return cls(supervisor, supervisor.adopt(f"guest {name}", "source", connection), log)

    def order(self, kind: str, **fields: object) -> State:
        """Give an order and wait until the guest has obeyed. Raises RunFailed when it does not."""
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

    def slowest_second(self, since: float, until: float) -> float | None:
        """The fewest bytes the guest wrote in any whole second that overlaps an interval."""
        slowest = self.order("ask", since=since, until=until)["slowest_second_bytes"]
        return None if slowest is None else float(slowest)

    def view(self, began: float, ended: float, released: float | None) -> State:
        """The guest's own view of a migration: what it reached, and its slowest second before, during and
        after. `released` is when it was let run again, if it was; times of the monotonic clock."""
        slowest = {
            "before": self.slowest_second(0.0, began - 1),
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
        """Let the guest run for a while, and watch the supervisor meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._supervisor.wait(min(left, STEP_SECONDS))
