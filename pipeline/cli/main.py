"""What the commands share: an end in one line, at any time."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import FrameType

from pipeline.errors import FerryError, one_line


def cancelled_early(number: int, frame: FrameType | None) -> None:
    """A signal handler for the time in which modules are loaded."""
    os.write(2, b"error: cancelled before the migration began\n")
    os._exit(130)


def end_of(error: FerryError) -> int:
    """Print the line; the exit code."""
    print(f"error: {one_line(error)}", file=sys.stderr)
    return error.exit_code


def guarded(main: Callable[[list[str]], int], arguments: list[str]) -> int:
    """`main`, for a reader of standard output that may go away."""
    try:
        code = main(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    return code
