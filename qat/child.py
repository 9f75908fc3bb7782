"""Call a function in a child process, with a time limit.

For calls that start a driver which must not be inherited, that need memory which should be given back
afterwards, or that may hang. The child is killed once it has answered, or when the time is up.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable

PIPE_BYTES = 64 << 10
"""The longest answer: what a pipe holds (pipe(7)), so that the child never waits for a reader."""


def ask_in_child(question: Callable[[], str], timeout_seconds: float | None = None) -> str | None:
    """The answer: empty when the child died before it answered, None when it did not answer in time."""
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
