"""Ask a question in a process of its own, with a time limit.

What is asked may start a driver that must not be inherited, take memory that should go again, or
hang: it does so in a child, which is killed when it has answered or is late.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable

PIPE_BYTES = 64 << 10
"""The longest answer: what a pipe holds (pipe(7)), so that a child never waits for its reader."""


def ask_in_child(question: Callable[[], str], timeout_seconds: float | None = None) -> str | None:
    """The answer; empty when the child died before it had one, None when none came in time."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, question().encode())
        finally:
            os._exit(0)
    os.close(writing)
    try:
        readable, _, _ = select.select([reading], [], [], timeout_seconds)
        return os.read(reading, PIPE_BYTES).decode() if readable else None
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
