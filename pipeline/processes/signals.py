"""Signals that end a command cleanly: Ctrl-C, SIGTERM, and SIGHUP unless nohup had it ignored."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline.errors import Cancelled
from pipeline.processes.supervisor import Supervisor

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def ending_signals() -> list[signal.Signals]:
    """Those that end this command: one that was ignored when it started stays ignored."""
    return [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]


def end_at_once(number: int, frame: FrameType | None) -> None:
    """A handler for the time in which modules are loaded and options read: there is nothing to clean up."""
    room = select.poll()
    room.register(2, select.POLLOUT)
    if room.poll(0):
        os.write(2, f"error: cancelled by {signal.Signals(number).name}\n".encode())
    leave(number, frame)


def leave(number: int, frame: FrameType | None) -> None:
    """A handler for the time in which the last line is written, which nobody may be reading."""
    os._exit(Cancelled.exit_code)


_pending: list[int] = []


def raise_cancelled(number: int, frame: FrameType | None) -> None:
    """A handler that unwinds whatever runs, so that it cleans up.

    Python ignores what is raised in some places (hooks of a fork, destructors), so the signal is noted as
    well: the next run of the command does not begin.
    """
    _pending.append(number)
    raise Cancelled(f"cancelled by {signal.Signals(number).name}")


def raise_if_cancelled() -> None:
    """For whoever starts many processes one after the other, and so is often in such a place."""
    if _pending:
        raise Cancelled(f"cancelled by {signal.Signals(_pending[0]).name}")


@contextmanager
def signals_cancel(supervisor: Supervisor) -> Iterator[None]:
    """Ending signals make the supervisor's next wait raise Cancelled. One that came before raises it here."""
    raise_if_cancelled()
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    writing.setblocking(False)
    supervisor.wake_by(reading.fileno())
    before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    handlers = {
        number: signal.signal(number, lambda received, frame: supervisor.cancel(received))
        for number in ending_signals()
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        supervisor.wake_by(None)
        reading.close()
        writing.close()
