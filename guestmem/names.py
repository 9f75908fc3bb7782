"""Names of shared memory that outlive no process, not even a killed one.

POSIX cannot create a segment without a name, so each has one from its creation to its
unlinking in the next statement. A `kill -9` in between would leave the name behind (it did, once in
300 kills of a whole process group). A name is therefore first given to a guard: a small process in
a session of its own, which a signal to the process group does not reach. When the creator is gone,
the guard unlinks the names that were not taken back, and ends.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import posix_ipc

QUIT = "="
MAX_DESCRIPTORS = 4096
"""The guard closes the descriptors below this that it inherited."""

GUARD_SECONDS = 2.0
"""How long a guard may take to start, and to end. It needs a millisecond; a stopped one is killed."""

LOOK_SECONDS = 0.001

PR_SET_PDEATHSIG = 1
"""linux/prctl.h."""


class _Guard:
    """The guard of the process that started it, `owner`."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        reading, self._tell = os.pipe()
        ready, say_ready = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _guard(reading, say_ready)
        os.close(reading)
        os.close(say_ready)
        starting = select.poll()
        starting.register(ready, select.POLLIN)
        if not starting.poll(GUARD_SECONDS * 1e3):
            os.kill(self._pid, signal.SIGKILL)  # somebody stopped it: no worse than having none
        os.close(ready)

    def tell(self, line: str) -> None:
        try:
            os.write(self._tell, line.encode() + b"\n")
        except BrokenPipeError:
            pass  # the guard was killed: no worse than having none

    def end(self) -> None:
        """Its creator ends in good order: no name is left to guard, and nobody else would reap it."""
        self.tell(QUIT)
        os.close(self._tell)
        try:
            if not self._reaped():
                os.kill(self._pid, signal.SIGKILL)
                self._reaped()
        except (ChildProcessError, ProcessLookupError):
            pass  # somebody reaped it already

    def _reaped(self) -> bool:
        """Whether it ended within GUARD_SECONDS."""
        until = time.monotonic() + GUARD_SECONDS
        while os.waitpid(self._pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > until:
                return False
            time.sleep(LOOK_SECONDS)
        return True


def _guard(reading: int, say_ready: int) -> None:
    """The guard's process: read names until the creator is gone, then unlink what is left."""
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        # Stopped, it would outlive everybody: its creator's end lets it go on.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)
        os.write(say_ready, b"x")
        with open("/proc/self/comm", "w") as comm:
            comm.write("rf guard")
        # An inherited descriptor that stays open here would hide from its peer that the creator closed it.
        os.dup2(reading, 3)
        sink = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(sink, standard)
        os.closerange(4, MAX_DESCRIPTORS)
        told: set[str] = set()
        with os.fdopen(3) as lines:
            for line in lines:
                if line.strip() == QUIT:
                    break
                sign, name = line.split()
                (told.add if sign == "+" else told.discard)(name)
        for name in told:
            try:
                posix_ipc.unlink_shared_memory(name)
            except posix_ipc.Error:
                pass
    finally:
        os._exit(0)


_current: _Guard | None = None


def end_guard() -> None:
    """End this process's guard and reap it. Called where a process ends; a later name gets a new guard."""
    global _current
    if _current is not None and _current.owner == os.getpid():
        _current.end()
    _current = None


atexit.register(end_guard)


@contextmanager
def guarded_name(name: str) -> Iterator[None]:
    """Within this context create and unlink `name`: it cannot outlive this process, however that ends."""
    global _current
    if _current is None or _current.owner != os.getpid():
        _current = _Guard()
    _current.tell(f"+ {name}")
    yield
    _current.tell(f"- {name}")
