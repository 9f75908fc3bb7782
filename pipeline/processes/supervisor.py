"""Start, watch and stop processes; nothing outlives a run.

Workers are forked, so they inherit shared memory and pipes that have no name. The
kernel kills a worker whose coordinator dies (PR_SET_PDEATHSIG); the coordinator hears of a worker's
death at once (a pidfd). Coordinator and worker talk over a socket pair.
"""

from __future__ import annotations

import gc
import logging
import os
import select
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from guestmem.ipc import Connection, Message, PeerGone
from guestmem.segment import SHM
from pipeline.errors import Cancelled, FerryError, HostError, RunFailed
from pipeline.processes.child import become_worker, error_of
from pipeline.processes.limits import limit_of
from pipeline.processes.memory import killed_for_memory_before
from pipeline.processes.placement import stay_on
from pipeline.processes.standstill import Standstill
from pipeline.progress import Eyes

GROUP_SIGNAL_SECONDS = 0.01
WAIT_SECONDS = 0.1
END_SECONDS = 5.0
"""How long a killed process may take to be gone; one in the kernel's hands (state D) may never be."""

log = logging.getLogger("ramferry.processes")


@dataclass
class Worker:
    """A process of this run, as its coordinator sees it. `pid` 0 is a process of somebody else's."""

    name: str
    side: str
    pid: int
    pidfd: int
    connection: Connection
    leaving: bool = False
    exit_status: int | None = None
    inbox: list[tuple[Message, list[int]]] = field(default_factory=list)

    @property
    def place(self) -> str:
        """Side and name, as error lines begin."""
        return f"{self.side} side: {self.name}"


class Supervisor:
    """All processes of a run. Use as a context manager: leaving it kills what still runs."""

    def __init__(
        self,
        warn: Callable[[str], None] = lambda text: None,
        cpus: Mapping[str, frozenset[int] | None] | None = None,
    ) -> None:
        """`warn` shows the user a worker's {"kind": "warning", "text": ...}. `cpus` are where a side's
        workers run; all where it is not named."""
        self._warn = warn
        self._cpus = cpus or {}
        self.workers: list[Worker] = []
        self._selector = selectors.DefaultSelector()
        self._cancelled_by = 0
        self._wake_fd: int | None = None
        self._private_fds: set[int] = set()
        self._killed_before = killed_for_memory_before()
        self._standstill = Standstill()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
        self._selector.close()

    # ---------------------------------------------------------------- being cancelled

    def cancel(self, signal_number: int) -> None:
        """Make the next wait raise Cancelled. Safe in a signal handler."""
        self._cancelled_by = signal_number

    def forget_cancel(self) -> None:
        """Waits do not raise Cancelled any more, so that the end can be told to others."""
        self._cancelled_by = 0

    def wake_by(self, fd: int | None) -> None:
        """End a wait when `fd`, the other end of signal.set_wakeup_fd, can be read; None takes it back."""
        if self._wake_fd is not None:
            self._selector.unregister(self._wake_fd)
        if fd is not None:
            self._selector.register(fd, selectors.EVENT_READ, None)
        self._wake_fd = fd

    # ---------------------------------------------------------------- processes and sockets

    def start(self, name: str, side: str, main: Callable[[Connection], None]) -> Worker:
        """Fork a process that runs `main` and ends.

        What `main` raises reaches the coordinator as the run's error, with its traceback. Raises HostError.
        """
        gc.freeze()
        parent = os.getpid()
        try:
            ours, theirs = Connection.pair()
            pid = os.fork()
        except OSError as error:
            raise limit_of(error) or HostError(f"cannot start a process: {error.strerror}") from error
        if pid == 0:
            for worker in self.workers:
                if worker.exit_status is None:
                    os.close(worker.pidfd)
            stay_on(self._cpus.get(side))
            inherited = [ours, *(worker.connection for worker in self.workers)]
            become_worker(name, main, theirs, parent, inherited, self._private_fds)
        theirs.close()
        worker = Worker(name, side, pid, _pidfd(pid), ours)
        self.workers.append(worker)
        self._selector.register(worker.connection, selectors.EVENT_READ, worker)
        self._selector.register(worker.pidfd, selectors.EVENT_READ, worker)
        log.debug("started %s, pid %d", worker.place, pid)
        return worker

    def adopt(self, name: str, side: str, connection: Connection) -> Worker:
        """Watch a process that is not this run's: it is told things, but never killed."""
        worker = Worker(name, side, 0, -1, connection, exit_status=0)
        self.workers.append(worker)
        self._selector.register(connection, selectors.EVENT_READ, worker)
        return worker

    def watch(self, sock: socket.socket, on_ready: Callable[[], None], *, to_write: bool = False) -> None:
        """Call `on_ready` in a wait when the socket can be read, or written. Workers do not inherit it."""
        self.mark_private(sock.fileno())
        self._selector.register(sock, selectors.EVENT_WRITE if to_write else selectors.EVENT_READ, on_ready)

    def unwatch(self, sock: socket.socket) -> None:
        """The opposite of `watch`."""
        self.unmark_private(sock.fileno())
        self._selector.unregister(sock)

    def mark_private(self, fd: int) -> None:
        """Workers started from now on do not hold `fd` open: a connection closed here is then closed."""
        self._private_fds.add(fd)

    def unmark_private(self, fd: int) -> None:
        """The opposite of `mark_private`."""
        self._private_fds.discard(fd)

    def dismiss(self, worker: Worker) -> None:
        """Kill a worker if it still runs, and forget it."""
        if worker.exit_status is None:
            os.kill(worker.pid, signal.SIGKILL)  # not reaped yet, so its number is still its own
            self._collect(worker)
        if worker.connection.socket in self._selector.get_map():
            self._selector.unregister(worker.connection)
        worker.connection.close()
        self.workers.remove(worker)

    # ---------------------------------------------------------------- talking

    def wait(self, timeout_seconds: float) -> None:
        """Wait for messages and put them into inboxes.

        Raises Cancelled after a signal, the FerryError that a worker ended with, and RunFailed for one that
        stands still alone.
        """
        self._check_standstill()
        for key, _ in self._selector.select(timeout_seconds):
            worker = key.data
            if worker is None:
                _drain(key.fd)
            elif callable(worker):
                worker()
            elif key.fd == worker.pidfd:
                self._reap(worker)
            else:
                self._read(worker)
        if self._cancelled_by:
            raise _cancelled(self._cancelled_by)

    def take(self, worker: Worker, kind: str) -> tuple[Message, list[int]] | None:
        """The worker's next message if it has come. Raises RunFailed for one of another kind."""
        if not worker.inbox:
            return None
        message, descriptors = worker.inbox.pop(0)
        if message["kind"] != kind:
            raise RunFailed(f"{worker.name} said {message['kind']!r} where {kind!r} was due")
        return message, descriptors

    def await_message(self, worker: Worker, kind: str) -> Message:
        """Wait for the worker's next message, of that kind. Raises what `wait` and `take` raise."""
        while (found := self.take(worker, kind)) is None:
            self.wait(WAIT_SECONDS)
        return found[0]

    def tell(self, worker: Worker, message: Message) -> None:
        """Send a worker a message; when it is gone, the next wait says so."""
        try:
            worker.connection.send(message)
        except PeerGone:
            pass

    def finish(self, workers: list[Worker]) -> list[Message]:
        """Tell workers to end; what they say of themselves (`usage_message`), in order."""
        for worker in workers:
            worker.leaving = True
            self.tell(worker, {"kind": "finish"})
        return [self.await_message(worker, "usage") for worker in workers]

    def _check_standstill(self) -> None:
        """Raises RunFailed for a worker that stands still while this process runs."""
        running = {worker.pid: worker for worker in self.workers if worker.exit_status is None}
        found = self._standstill.look(running)
        if found is not None:
            pid, why = found
            self._raise(RunFailed(f"{running[pid].place} (pid {pid}) {why}"))

    def _read(self, worker: Worker) -> None:
        try:
            self._receive(worker)
        except PeerGone:
            self._selector.unregister(worker.connection)
            if worker.pid == 0:
                raise RunFailed(f"{worker.place} is gone") from None

    def _receive(self, worker: Worker) -> None:
        message, descriptors = worker.connection.receive()
        if message["kind"] == "error":
            self._collect(worker)
            self._raise(error_of(message, worker.place))
        if message["kind"] == "warning":
            self._warn(str(message["text"]))
            return
        worker.inbox.append((message, descriptors))

    def _reap(self, worker: Worker) -> None:
        """A worker has ended: what it said before, then how it ended."""
        worker.connection.socket.setblocking(False)
        try:
            while True:
                self._receive(worker)
        except (PeerGone, BlockingIOError):
            pass
        self._collect(worker)
        if not worker.leaving:
            if worker.exit_status == signal.SIGTERM:
                # One sent to the whole group reaches this process too, a moment later perhaps.
                time.sleep(GROUP_SIGNAL_SECONDS)
            starved = killed_for_memory_before() > self._killed_before
            self._raise(RunFailed(f"{worker.place}: {_death(worker, starved=starved)}"))

    def _collect(self, worker: Worker) -> None:
        """Take a worker's exit status, so that it is no zombie."""
        if worker.exit_status is None:
            worker.exit_status = _wait_for(worker, time.monotonic() + END_SECONDS)
            self._selector.unregister(worker.pidfd)
            os.close(worker.pidfd)
            log.debug("%s has ended, wait status %d", worker.place, worker.exit_status)

    def _raise(self, error: FerryError) -> None:
        if self._cancelled_by:
            raise _cancelled(self._cancelled_by)
        raise error

    def stop(self) -> None:
        """Kill what still runs, and reap all. Nothing of a worker needs a clean end."""
        running = [worker for worker in self.workers if worker.exit_status is None]
        for worker in running:
            # SIGCONT is not needed: SIGKILL ends stopped processes too.
            os.kill(worker.pid, signal.SIGKILL)
        deadline = time.monotonic() + END_SECONDS
        for worker in running:
            worker.exit_status = _wait_for(worker, deadline)
            os.close(worker.pidfd)
        for worker in self.workers:
            worker.connection.close()


def _pidfd(pid: int) -> int:
    """A descriptor that tells of a child's end. Raises HostError, and then the child is gone."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise HostError(
            f"pidfd_open is refused ({error.strerror}): Linux 5.3 or later has it, unless a seccomp profile "
            "forbids it"
        ) from error


def _wait_for(worker: Worker, deadline: float) -> int:
    """The wait status of a worker that has ended or was killed; names it when it does not end in time."""
    room = select.poll()
    room.register(worker.pidfd, select.POLLIN)
    if not room.poll(max(0.0, deadline - time.monotonic()) * 1e3):
        Eyes().write(
            f"warning: {worker.place} (pid {worker.pid}) was killed and does not end: the kernel holds it, "
            "and it is left behind\n"
        )
        return signal.SIGKILL
    return os.waitpid(worker.pid, 0)[1]


def _cancelled(number: int) -> Cancelled:
    return Cancelled(f"cancelled by {signal.Signals(number).name}")


def _death(worker: Worker, *, starved: bool) -> str:
    """How a worker that said nothing ended. `starved`: the kernel has killed for memory meanwhile."""
    assert worker.exit_status is not None
    code = os.waitstatus_to_exitcode(worker.exit_status)
    if code >= 0:
        return f"ended with exit code {code} and said nothing"
    name = signal.Signals(-code).name
    if -code == signal.SIGBUS:
        return f"was killed by {name}: no memory for a shared page, {SHM} or the host is full"
    if -code == signal.SIGKILL and starved:
        return (
            f"was killed by {name}: the kernel's OOM killer was at work, so this host or its control group "
            "(MemoryMax=, a container's limit) is out of memory"
        )
    return f"was killed by {name}"


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 512):
            pass
    except BlockingIOError:
        pass
