"""One main for every command: what it raises becomes a line on standard error and an exit code.

Signals are caught before anything heavy is imported, so that Ctrl-C ends in one line at any time.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING

from pipeline.errors import Cancelled, FerryError, InternalError, RunFailed, one_line, traceback_of
from pipeline.processes.limits import check_address_space, limit_of
from pipeline.processes.signals import end_at_once, ending_signals, leave, raise_cancelled
from pipeline.report.files import drop_output, save_json, was_saved, write_output

if TYPE_CHECKING:
    from pipeline.cli.parser import Parser
    from pipeline.cli.values import Given

DEBUG_VARIABLE = "RAMFERRY_DEBUG"
SCHEMA_VERSION = 2
CLOSED = "standard output is closed: nobody reads it"

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
    fill_closed_streams()
    words = program.split() if program else ["python", "-m", _public_name(module)]
    ending = _Ending([*words, *arguments], _json_asked(arguments))
    for number in ending_signals():
        signal.signal(number, ending.at_once)
    # numpy's BLAS would start a thread a core, and a process with threads should not fork.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    debug = _wants_debug(arguments)
    try:
        check_address_space()
        command: Command = importlib.import_module(module).COMMAND
        given = command.build_parser(" ".join(words)).read(arguments)
        if debug:
            _log_to_stderr()
        for number in ending_signals():
            signal.signal(number, raise_cancelled)
        return command.run(given, [*words, *arguments])
    except BrokenPipeError:
        drop_output()
        return _end_of(RunFailed(CLOSED), debug)
    except FerryError as error:
        ending.leave_document(error)
        return _end_of(error, debug)
    except Exception as error:  # a fault of ours, whatever it is
        found = limit_of(error) or InternalError.of(error)
        ending.leave_document(found)
        return _end_of(found, debug)


class _Ending:
    """A command that ends before it has a result still leaves the document that was asked for."""

    def __init__(self, command: list[str], path: str | None) -> None:
        self._command = command
        self._path = path

    def leave_document(self, error: FerryError) -> None:
        """How it ended, where no result says it."""
        if self._path is None or was_saved(self._path) or _holds_something_else(self._path):
            return
        document = {
            "schema_version": SCHEMA_VERSION,
            "status": error.status,
            "error": one_line(error),
            "traceback": traceback_of(error),
            "command": self._command,
        }
        try:
            save_json(document, self._path)
        except (FerryError, OSError):
            pass  # the error that is told is the first one

    def at_once(self, number: int, frame: FrameType | None) -> None:
        """A signal while modules are loaded and options read: there is nothing to clean up."""
        self.leave_document(Cancelled(f"cancelled by {signal.Signals(number).name}"))
        end_at_once(number, frame)


def _holds_something_else(path: str) -> bool:
    """Whether a file is there that is no document: a plan or an image that was named by mistake."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            begin = file.read(1)
    except OSError:
        return False
    return begin not in (b"", b"{")


def fill_closed_streams() -> None:
    """Standard streams that are closed (a daemon's) become /dev/null, so that no file of ours gets their
    numbers. Standard output is opened for reading only: who asks for a result there is told."""
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)


def _json_asked(arguments: list[str]) -> str | None:
    """What --json names, before anything has been read."""
    own = _own(arguments)
    for index, argument in enumerate(own):
        if argument == "--json":
            return own[index + 1] if index + 1 < len(own) else None
        if argument.startswith("--json="):
            return argument.partition("=")[2]
    return None


def _own(arguments: list[str]) -> list[str]:
    """Those in front of a command that is run."""
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _end_of(error: FerryError, debug: bool) -> int:
    """Print the line, and the traceback if it was asked for; the exit code."""
    for number in ending_signals():
        signal.signal(number, leave)  # nobody may be reading
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
        write_output(text + "\n")
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RunFailed(f"standard output cannot be written: {error.strerror}") from error


def said(what: str | FerryError) -> int:
    """Show a text, or an error's line: the exit code, for a program that does no more."""
    try:
        if isinstance(what, FerryError):
            return _end_of(what, debug=False)
        show(what)
        return 0
    except BrokenPipeError:
        drop_output()
        return _end_of(RunFailed(CLOSED), debug=False)
    except RunFailed as error:
        return _end_of(error, debug=False)


def _wants_debug(arguments: list[str]) -> bool:
    return "--debug" in _own(arguments) or os.environ.get(DEBUG_VARIABLE) == "1"


def _log_to_stderr() -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG,
        format="[%(relativeCreated)8.0f ms] %(process)d %(name)s: %(message)s",
    )


def _public_name(module: str) -> str:
    """`pipeline.cli.run` as users know it."""
    return module.replace(".cli.", ".").removesuffix(".__main__")
