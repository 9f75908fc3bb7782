"""Carry a plan out: each migration when its place is free, each end on its host, and what became of it.

Who starts is decided as in the simulation, by the same strategy, when a migration ends and not by the clock.
A VM that does not converge, or whose destination fails, gets a second try when all others are through: alone,
throttled, or at another host. A guest whose migration failed or was cancelled runs on where it was.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from guestmem.units import show_size
from pipeline.errors import NotConverged, RunFailed, UsageError
from tools.evacuate.admission import Start
from tools.evacuate.ends import End, Ended, Starter
from tools.evacuate.fabric import Fabric
from tools.evacuate.placement import Placement
from tools.evacuate.plan_file import Host
from tools.evacuate.planner import Planned
from tools.evacuate.state import State
from tools.evacuate.work import Job

LOOK_SECONDS = 0.02
PORT_IS_TAKEN = os.strerror(errno.EADDRINUSE)
NO_ROOM = "its host failed before, and no other has room for it"
CLOSING_SECONDS = 15.0
"""So long a destination may take after its source is through, and the other way round."""

DID_NOT_CONVERGE, WRONG_USAGE, CANCELLED = 3, 2, 130
Say = Callable[[str], None]


@dataclass
class Carried:
    """One migration as it was carried out; seconds since the plan was begun."""

    vm: str
    source: str
    destination: str
    start_seconds: float
    end_seconds: float = 0.0
    status: str = "running"
    why: str = ""
    attempts: int = 1
    result: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Running:
    number: int
    row: Carried
    destination: Host
    send: End
    recv: End
    port: int
    limit: float | None
    before: Carried | None
    closing_at: float | None = None

    @property
    def second(self) -> bool:
        """Whether it was tried before."""
        return self.before is not None


class Execution:
    """`security` are options for both ends (TLS, secret, insecure)."""

    def __init__(
        self, planned: Planned, starter: Starter, state: State, security: Sequence[str], say: Say
    ) -> None:
        self._question = planned.question
        self._plan = planned.question.plan
        self._starter, self._state, self._security, self._say = starter, state, list(security), say
        self._admission = self._question.admission(planned.chosen.strategy)
        self._placement = Placement(self._plan, Fabric(self._plan))
        self._destinations = [job.destination for job in self._question.jobs]
        for job in self._question.jobs:
            self._placement.put(job.vm, job.destination, 0.0)
        self._gone: set[str] = set()
        self._ports: dict[str, set[int]] = {}
        self._running: list[_Running] = []
        self._again: list[tuple[int, Carried]] = []
        self.rows: list[Carried] = []
        self._begun = 0.0

    def run(self) -> None:
        """Until every VM has moved or been given up. Raises Cancelled, after both ends of all that was under
        way are gone; NotConverged or RunFailed where VMs are left."""
        self._begun = time.monotonic()
        try:
            self._start(self._admission.first())
            while self._running:
                self._look()
            for number, before in self._again:
                self._once_more(number, before)
                while self._running:
                    self._look()
        finally:
            self._stop_all()
        left = [row for row in self.rows if row.status != "moved"]
        if left:
            kind = NotConverged if all(row.status == "not-converged" for row in left) else RunFailed
            first = next((row for row in left if row.why != NO_ROOM), left[0])
            raise kind(f"{len(left)} VMs are left where they were; {first.vm}: {first.status}, {first.why}")

    # ------------------------------------------------------------- starting

    def _now(self) -> float:
        return time.monotonic() - self._begun

    def _start(self, starts: Sequence[Start]) -> None:
        for start in starts:
            job = self._question.jobs[start.job]
            self._launch(start.job, self._destination(start.job, job), start.limit, None)

    def _destination(self, number: int, job: Job) -> Host | None:
        """As planned, or another one where that is gone."""
        planned = self._destinations[number]
        if planned.name not in self._gone:
            return planned
        self._placement.take_back(job.vm, planned)
        other = self._placement.other(job.vm, self._gone)
        if other is not None:
            self._destinations[number] = other
        return other

    def _launch(self, number: int, host: Host | None, limit: float | None, before: Carried | None) -> None:
        job = self._question.jobs[number]
        row = Carried(job.vm.name, job.source.name, "" if host is None else host.name, self._now())
        row.attempts = 1 if before is None else before.attempts + 1
        if host is None:
            why = NO_ROOM if before is None else f"{before.why}; no other host has room for it"
            row.status, row.why, row.end_seconds = "failed", why, row.start_seconds
            self.rows.append(row)
            self._start(self._admission.release(number) if before is None else [])
            return
        throttled = before is not None and before.status == "not-converged"
        port = self._port(host)
        send, recv = self._commands(job, host, port, limit, throttled)
        self._say(f"{row.start_seconds:7.1f} s  {row.vm}: {row.source} -> {row.destination}")
        receiving = self._starter.start(host, recv)
        sending = self._starter.start(job.source, send)
        self._running.append(_Running(number, row, host, sending, receiving, port, limit, before))

    def _port(self, host: Host) -> int:
        taken = self._ports.setdefault(host.address or host.name, set())
        first, last = host.ports
        port = next((one for one in range(first, last + 1) if one not in taken), None)
        if port is None:
            raise UsageError(f"host {host.name}: ports {first} to {last} are not enough; give it more")
        taken.add(port)
        return port

    def _commands(
        self, job: Job, host: Host, port: int, limit: float | None, throttled: bool
    ) -> tuple[list[str], list[str]]:
        """Of the source and of the destination."""
        address, vm = f"{host.address}:{port}", job.vm
        level = "" if job.option.level is None else f":{job.option.level}"
        how = ["--method", f"{job.option.method}{level}", "--channels", str(job.option.channels)]
        how += [] if limit is None else ["--max-bandwidth", str(round(limit))]
        beside = [*self._security, "--json", "-", "--quiet"]
        if vm.relayed is not None:
            relayed = vm.relayed
            send = ["pipeline.relay", "--listen", f"unix:{relayed.socket}", "--to", address, "--migrate"]
            recv = ["pipeline.relay", "--accept", address, "--deliver", f"unix:{relayed.incoming}"]
            return (
                [*send, "--qmp", relayed.qmp, *how, *beside],
                [*recv, "--qmp", relayed.incoming_qmp, *beside],
            )
        policy = self._plan.limits.policy
        converge = "throttle" if throttled else policy.converge
        send = ["pipeline.send", "--to", address, "--attach", str(vm.attach), *how]
        send += ["--downtime-limit", f"{policy.downtime_limit_ms:g}", "--converge", converge]
        return [*send, *beside], ["pipeline.recv", "--listen", address, "--once", *beside]

    # ------------------------------------------------------------- ending

    def _look(self) -> None:
        time.sleep(LOOK_SECONDS)
        for one in list(self._running):
            sent, received = one.send.ended(), one.recv.ended()
            if sent is not None and received is not None:
                self._running.remove(one)
                self._settle(one, sent, received)
            elif sent is None and received is None:
                continue
            elif one.closing_at is None:
                one.closing_at = time.monotonic() + CLOSING_SECONDS
                if received is not None and received.code != 0:
                    one.send.stop()
                if sent is not None and sent.code != 0:
                    one.recv.stop()
            elif time.monotonic() > one.closing_at:
                one.send.stop()
                one.recv.stop()

    def _settle(self, one: _Running, sent: Ended, received: Ended) -> None:
        row = one.row
        row.end_seconds = self._now()
        row.result = _result_of(sent.output)
        ports = self._ports[one.destination.address or one.destination.name]
        if sent.code != 0 and PORT_IS_TAKEN in received.said and len(ports) < _port_count(one.destination):
            self._say(
                f"{row.end_seconds:7.1f} s  {row.vm}: port {one.port} is taken there, another one is tried"
            )
            # The port stays marked as in use.
            self._launch(one.number, one.destination, one.limit, one.before)
            return
        ports.discard(one.port)
        if sent.code == 0:
            row.status, row.why = "moved", self._not_as_planned(one.number, row)
            self._say(f"{row.end_seconds:7.1f} s  {row.vm}: moved")
            self._note_moved(row)
        else:
            self._failed(one, sent, received)
        if row.status == "moved" or one.second:
            self.rows.append(row)
        else:
            self._again.append((one.number, row))
        if not one.second:
            self._start(self._admission.release(one.number))

    def _note_moved(self, row: Carried) -> None:
        """Raises RunFailed where the state cannot be written: then nothing more is started."""
        self._state.moved[row.vm] = row.destination
        try:
            self._state.save()
        except UsageError as error:
            self.rows.append(row)
            raise RunFailed(
                f"{row.vm} has moved to {row.destination}, but that could not be noted: {error}; take it out "
                "of the plan before you go on"
            ) from error

    def _not_as_planned(self, number: int, row: Carried) -> str:
        """What is to be said of a VM that has moved: that it was of another size than the plan says. Relays
        do not tell."""
        planned = self._question.jobs[number].vm.size_bytes
        found = row.result.get("options", {}).get("size_bytes")
        if found is None or found == planned:
            return ""
        return f"its RAM is {show_size(found)}, the plan says {show_size(planned)}"

    def _failed(self, one: _Running, sent: Ended, received: Ended) -> None:
        row = one.row
        row.status = "not-converged" if sent.code == DID_NOT_CONVERGE else "failed"
        cancelled = sent.code in (CANCELLED, -15) and received.code != 0
        row.why = (received if cancelled else sent).said.removeprefix("error: ") or f"exit code {sent.code}"
        if row.status == "failed" and sent.code != WRONG_USAGE:
            self._gone.add(row.destination)
        self._say(f"{row.end_seconds:7.1f} s  {row.vm}: {row.status}, {row.why}")

    def _once_more(self, number: int, before: Carried) -> None:
        job = self._question.jobs[number]
        self._launch(number, self._destination(number, job), None, before)

    def _stop_all(self) -> None:
        """Nothing of a migration stays: the guest runs on at its source, the copy is dropped."""
        for one in self._running:
            one.send.stop()
            one.recv.stop()
        while self._running:
            time.sleep(LOOK_SECONDS)
            for one in list(self._running):
                sent, received = one.send.ended(), one.recv.ended()
                if sent is None or received is None:
                    continue
                self._running.remove(one)
                one.row.end_seconds = self._now()
                self.rows.append(one.row)
                if sent.code == 0:  # it was through before it was told
                    one.row.status = "moved"
                    self._state.moved[one.row.vm] = one.row.destination
                else:
                    one.row.status, one.row.why = "cancelled", f"it runs on at {one.row.source}"
        try:
            self._state.save()
        except UsageError as error:
            self._say(str(error))


def _port_count(host: Host) -> int:
    first, last = host.ports
    return last - first + 1


def _result_of(output: str) -> dict[str, Any]:
    try:
        found = json.loads(output)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
