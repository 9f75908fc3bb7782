"""Start, watch and stop processes; nothing outlives a run.

Workers are forked, so they inherit shared memory and message queues that no longer have a name.
The kernel kills a worker whose coordinator dies (PR_SET_PDEATHSIG); the coordinator hears of a
worker's death at once (a pidfd). Coordinator and worker talk over a socket pair.
"""

from __future__ import annotations

import ctypes
import gc
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from guestmem.ipc import Connection, Message, PeerGone
from pipeline.errors import Cancelled, FerryError, HostError, RunFailed, one_line
from pipeline.processes.usage import SideFigures, Usage, private_bytes

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_HEAP_BYTES = 32 << 20
"""Freed memory a worker keeps instead of giving it back to the kernel (mallopt(3)). A codec that
allocates and frees per member otherwise meets fresh pages each time: 166,206 faults in 2 GiB of
qatzip at the receivers."""

_libc = ctypes.CDLL(None, use_errno=True)

GROUP_SIGNAL_SECONDS = 0.01
WAIT_SECONDS = 0.1

FAILED, CANNOT = 1, 2
"""Exit codes of a worker: it failed, or this host cannot do what it was started for."""


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it is gone."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def keep_heap() -> None:
    """Make this process keep freed memory, where its C library can be told so."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(M_MMAP_THRESHOLD, KEPT_HEAP_BYTES)
        _libc.mallopt(M_TRIM_THRESHOLD, KEPT_HEAP_BYTES)


@dataclass
class Worker:
    """A process of this run, as its coordinator sees it."""

    name: str
    side: str
    pid: int
    pidfd: int
    connection: Connection
    leaving: bool = False
    exit_status: int | None = None
    inbox: list[tuple[Message, list[int]]] = field(default_factory=list)


class Supervisor:
    """All processes of a run. Use as a context manager: leaving it kills what still runs."""

    def __init__(self) -> None:
        self.workers: list[Worker] = []
        self._selector = selectors.DefaultSelector()
        self._cancelled_by = 0
        self.private: set[int] = set()
        """Descriptors that workers must not hold open: a connection closed here is to be closed."""

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
        self._selector.close()

    def cancel(self, signal_number: int) -> None:
        """Make the next wait raise Cancelled. Safe in a signal handler."""
        self._cancelled_by = signal_number

    def forget_cancel(self) -> None:
        """Waits do not raise Cancelled any more, so that the end can be told to others."""
        self._cancelled_by = 0

    def wake_by(self, fd: int) -> None:
        """End a wait when `fd` (signal.set_wakeup_fd's other end) becomes readable."""
        self._selector.register(fd, selectors.EVENT_READ, None)

    def start(self, name: str, side: str, main: Callable[[Connection], None]) -> Worker:
        """Fork a process that runs `main` and ends.

        What `main` raises reaches the coordinator as the run's error, in one line.
        """
        ours, theirs = Connection.pair()
        gc.freeze()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_worker(name, side, main, theirs, ours, parent)
        theirs.close()
        worker = Worker(name, side, pid, os.pidfd_open(pid), ours)
        self.workers.append(worker)
        self._selector.register(worker.connection, selectors.EVENT_READ, worker)
        self._selector.register(worker.pidfd, selectors.EVENT_READ, worker)
        return worker

    def watch(self, sock: socket.socket, on_ready: Callable[[], None], *, to_write: bool = False) -> None:
        """Call `on_ready` in a wait when the socket can be read, or written. Workers do not inherit it."""
        self.private.add(sock.fileno())
        self._selector.register(sock, selectors.EVENT_WRITE if to_write else selectors.EVENT_READ, on_ready)

    def unwatch(self, sock: socket.socket) -> None:
        """Watch no more."""
        self.private.discard(sock.fileno())
        self._selector.unregister(sock)

    def dismiss(self, worker: Worker) -> None:
        """Kill a worker if it still runs, and forget it."""
        if worker.exit_status is None:
            signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)
            self._reap_quietly(worker)
        if worker.connection.socket in self._selector.get_map():
            self._selector.unregister(worker.connection)
        worker.connection.close()
        self.workers.remove(worker)

    def adopt(self, name: str, side: str, connection: Connection) -> Worker:
        """Watch a process that is not this run's: it is told things, but never killed."""
        worker = Worker(name, side, 0, -1, connection, exit_status=0)
        self.workers.append(worker)
        self._selector.register(connection, selectors.EVENT_READ, worker)
        return worker

    def _become_worker(
        self,
        name: str,
        side: str,
        main: Callable[[Connection], None],
        connection: Connection,
        others_end: Connection,
        parent: int,
    ) -> None:
        code = FAILED
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            die_with_parent()
            _libc.prctl(PR_SET_NAME, f"rf {name}".encode()[:15], 0, 0, 0)
            keep_heap()
            if os.getppid() != parent:
                os._exit(FAILED)
            others_end.close()
            for worker in self.workers:
                worker.connection.close()
                if worker.exit_status is None:
                    os.close(worker.pidfd)
            nowhere = os.open(os.devnull, os.O_RDWR)
            for descriptor in self.private:
                os.dup2(nowhere, descriptor)
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
            main(connection)
            code = 0
        except BaseException as error:  # a worker's every end is reported
            if isinstance(error, HostError):
                code = CANNOT
            try:
                connection.send({"kind": "error", "text": _described(error)})
            except PeerGone:
                pass
        finally:
            os._exit(code)

    def wait(self, timeout_seconds: float) -> None:
        """Wait for messages and put them into inboxes.

        Raises Cancelled after a signal; RunFailed or HostError when a worker has failed or died.
        """
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

    def _read(self, worker: Worker) -> None:
        try:
            message, descriptors = worker.connection.receive()
        except PeerGone:
            self._selector.unregister(worker.connection)
            if worker.pid == 0:
                raise RunFailed(f"{worker.side} side: {worker.name} is gone") from None
            return
        if message["kind"] == "error":
            self._reap_quietly(worker)
            self._raise(worker, str(message["text"]))
        worker.inbox.append((message, descriptors))

    def _reap(self, worker: Worker) -> None:
        worker.connection.socket.setblocking(False)
        while True:
            try:
                message, descriptors = worker.connection.receive()
            except (PeerGone, BlockingIOError):
                break
            if message["kind"] == "error":
                self._reap_quietly(worker)
                self._raise(worker, str(message["text"]))
            worker.inbox.append((message, descriptors))
        self._reap_quietly(worker)
        if not worker.leaving:
            if worker.exit_status == signal.SIGTERM:
                # One sent to the whole group reaches this process too, a moment later perhaps.
                time.sleep(GROUP_SIGNAL_SECONDS)
            self._raise(worker, _death(worker))

    def _reap_quietly(self, worker: Worker) -> None:
        if worker.exit_status is None:
            _, worker.exit_status = os.waitpid(worker.pid, 0)
            self._selector.unregister(worker.pidfd)
            os.close(worker.pidfd)

    def _raise(self, worker: Worker, text: str) -> None:
        if self._cancelled_by:
            raise _cancelled(self._cancelled_by)
        status = worker.exit_status
        cannot = status is not None and os.waitstatus_to_exitcode(status) == CANNOT
        kind: type[FerryError] = HostError if cannot else RunFailed
        raise kind(text if cannot else f"{worker.side} side: {worker.name}: {text}")

    def stop(self) -> None:
        """Kill what still runs, and reap all. Nothing of a worker needs a clean end."""
        running = [worker for worker in self.workers if worker.exit_status is None]
        for worker in running:
            # SIGCONT is not needed: SIGKILL ends stopped processes too.
            signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)
        for worker in running:
            _, worker.exit_status = os.waitpid(worker.pid, 0)
            os.close(worker.pidfd)
        for worker in self.workers:
            worker.connection.close()


def usage_message(before: Usage, fallback_reason: str) -> Message:
    """What a worker says at its end: what it used since `before`, and why software did QAT's work."""
    return {
        "kind": "usage",
        "private_bytes": private_bytes(),
        "fallback_reason": fallback_reason,
        **asdict(Usage.now() - before),
    }


def usage_of(message: Message) -> Usage:
    """Read it."""
    return Usage(**{name: message[name] for name in Usage.__dataclass_fields__})


def finish_workers(supervisor: Supervisor, workers: list[Worker]) -> list[Message]:
    """Tell workers to end; what they say of themselves (`usage_message`), in order."""
    for worker in workers:
        worker.leaving = True
        supervisor.tell(worker, {"kind": "finish"})
    return [supervisor.await_message(worker, "usage") for worker in workers]


def figures_of(messages: list[Message]) -> tuple[SideFigures, set[str]]:
    """What workers used together, and their reasons for software."""
    figures = SideFigures()
    for message in messages:
        figures.add(usage_of(message), int(message["private_bytes"]))
    return figures, {str(message["fallback_reason"]) for message in messages} - {""}


def _cancelled(number: int) -> Cancelled:
    return Cancelled(f"cancelled by {signal.Signals(number).name}")


def _described(error: BaseException) -> str:
    if isinstance(error, FerryError):
        return one_line(error)
    return f"{type(error).__name__}: {one_line(error)}"


def _death(worker: Worker) -> str:
    assert worker.exit_status is not None
    code = os.waitstatus_to_exitcode(worker.exit_status)
    if code >= 0:
        return f"ended with exit code {code} and said nothing"
    name = signal.Signals(-code).name
    if -code == signal.SIGBUS:
        return f"was killed by {name}: no memory for a shared page, /dev/shm or the host is full"
    return f"was killed by {name}"


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 512):
            pass
    except BlockingIOError:
        pass


@contextmanager
def signals_cancel(supervisor: Supervisor) -> Iterator[None]:
    """Ctrl-C and SIGTERM make the supervisor's next wait raise Cancelled."""
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    writing.setblocking(False)
    supervisor.wake_by(reading.fileno())
    before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    handlers = {
        number: signal.signal(number, lambda received, frame: supervisor.cancel(received))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        reading.close()
        writing.close()


class Deadline:
    """A point in time of the monotonic clock; 0 seconds is never."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds if seconds else None

    def passed(self) -> bool:
        """Whether it is over."""
        return self._at is not None and time.monotonic() >= self._at
