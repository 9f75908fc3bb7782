"""One main for every command: what it raises becomes a line on standard error and an exit code.

Signals are caught before anything heavy is imported, so that Ctrl-C ends in one line at any time.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING

from pipeline.errors import Cancelled, FerryError, InternalError, RunFailed, one_line, traceback_of
from pipeline.processes.limits import limit_of
from pipeline.processes.signals import end_at_once, ending_signals

if TYPE_CHECKING:
    from pipeline.cli.parser import Parser
    from pipeline.cli.values import Given

DEBUG_VARIABLE = "RAMFERRY_DEBUG"

logging.getLogger("ramferry").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Command:
    """What a command is made of. A module that has one names it COMMAND.

    `build_parser` takes the program's name as a user types it; `run` takes what was given and the whole
    command line (for the result document), and returns the exit code. Both raise FerryError.
    """

    build_parser: Callable[[str], Parser]
    run: Callable[[Given, list[str]], int]


def execute(module: str, arguments: list[str], program: str = "") -> int:
    """Run the command of a module; `program` is how the user called it, `python -m MODULE` by default.

    Prints at most one line to standard error (more with --debug) and returns the exit code.
    """
    for number in ending_signals():
        signal.signal(number, end_at_once)
    # numpy's BLAS would start a thread a core, and a process with threads should not fork.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    debug = _wants_debug(arguments)
    try:
        command: Command = importlib.import_module(module).COMMAND
        words = program.split() if program else ["python", "-m", _public_name(module)]
        given = command.build_parser(" ".join(words)).read(arguments)
        if debug:
            _log_to_stderr()
        for number in ending_signals():
            signal.signal(number, _raise_cancelled)
        return command.run(given, [*words, *arguments])
    except BrokenPipeError:
        _drop_output()
        return FerryError.exit_code
    except FerryError as error:
        return end_of(error, debug)
    except Exception as error:  # a fault of ours, whatever it is
        return end_of(limit_of(error) or InternalError.of(error), debug)


def end_of(error: FerryError, debug: bool = False) -> int:
    """Print the line, and the traceback if it was asked for; the exit code."""
    hint = "; --debug says where" if isinstance(error, InternalError) and not debug else ""
    trace = f"{traceback_of(error)}\n" if debug else ""
    try:
        sys.stderr.write(f"{trace}error: {one_line(error)}{hint}\n")
        sys.stderr.flush()
    except OSError:
        pass  # nobody can be told
    return error.exit_code


def show(text: str) -> None:
    """What was asked for, on standard output. Raises RunFailed where it cannot be written."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_output()
        raise RunFailed(f"standard output cannot be written: {error.strerror}") from error


def _drop_output() -> None:
    """Nothing more goes to standard output, at the interpreter's end neither."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _wants_debug(arguments: list[str]) -> bool:
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--debug" in own or os.environ.get(DEBUG_VARIABLE) == "1"


def _log_to_stderr() -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG,
        format="[%(relativeCreated)8.0f ms] %(process)d %(name)s: %(message)s",
    )


def _raise_cancelled(number: int, frame: FrameType | None) -> None:
    """Unwinds whatever runs, so that it cleans up. Commands with workers catch signals themselves."""
    raise Cancelled(f"cancelled by {signal.Signals(number).name}")


def _public_name(module: str) -> str:
    """`pipeline.cli.run` as users know it."""
    return module.replace(".cli.", ".").removesuffix(".__main__")
