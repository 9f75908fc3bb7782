"""The forked side of a worker: what it does before its own work begins, and how its end is told."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
from collections.abc import Callable, Iterable

from guestmem.ipc import Connection, Message, PeerGone
from guestmem.names import end_guard
from pipeline import errors
from pipeline.errors import FerryError, InternalError, RunFailed, one_line, traceback_of
from pipeline.processes.limits import limit_of

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_HEAP_BYTES = 32 << 20
"""Freed memory a worker keeps instead of giving it back to the kernel (mallopt(3)). A codec that
allocates and frees per member otherwise meets fresh pages each time: 166,206 faults in 2 GiB of
qatzip at the receivers."""

MAX_TRACEBACK = 8 << 10
"""Characters of a traceback that cross the border: a message has a limit (`guestmem.ipc`)."""

_libc = ctypes.CDLL(None, use_errno=True)

log = logging.getLogger("ramferry.processes")


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it is gone."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def keep_heap() -> None:
    """Make this process keep freed memory, where its C library can be told so."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(M_MMAP_THRESHOLD, KEPT_HEAP_BYTES)
        _libc.mallopt(M_TRIM_THRESHOLD, KEPT_HEAP_BYTES)


def become_worker(
    name: str,
    main: Callable[[Connection], None],
    connection: Connection,
    parent: int,
    inherited: Iterable[Connection],
    private_fds: Iterable[int],
) -> None:
    """Set this forked process up, run `main`, and end. Never returns.

    `inherited` connections are other workers'; `private_fds` are the parent's alone, and are pointed at
    /dev/null so that a connection that the parent closes is really closed.
    """
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        die_with_parent()
        _libc.prctl(PR_SET_NAME, f"rf {name}".encode()[:15], 0, 0, 0)
        keep_heap()
        if os.getppid() != parent:
            os._exit(1)  # it died before the kernel was told
        for other in inherited:
            other.close()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in private_fds:
            os.dup2(nowhere, descriptor)
        _schedule_as_batch()
        main(connection)
        code = 0
    except BaseException as error:  # a worker's every end is told
        try:
            connection.send(_error_message(error))
        except PeerGone:
            pass
    finally:
        end_guard()
        os._exit(code)


def _schedule_as_batch() -> None:
    """A wake-up waits for a slice instead of throwing another worker's cache away: 5 % of zstd's CPU here. A
    sandbox may forbid it, and a scheduling class that cannot be left stays."""
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError as error:
        log.debug("SCHED_BATCH is refused: %s", error)


def _error_message(error: BaseException) -> Message:
    trace = traceback_of(error)
    error = limit_of(error) or error
    ours = isinstance(error, FerryError)
    return {
        "kind": "error",
        "class": type(error).__name__ if ours else InternalError.__name__,
        "text": one_line(error) if ours else f"{type(error).__name__}: {one_line(error)}",
        "traceback": trace[-MAX_TRACEBACK:],
    }


def error_of(message: Message, where: str) -> FerryError:
    """The exception that a worker told of. `where` names side and worker; the host's and the peer's own
    faults are everybody's, and stand without it."""
    found = getattr(errors, str(message["class"]), RunFailed)
    text, traceback = str(message["text"]), str(message["traceback"])
    if issubclass(found, RunFailed | InternalError):
        return found(f"{where}: {text}", traceback)
    error: FerryError = found(text, traceback)
    return error
