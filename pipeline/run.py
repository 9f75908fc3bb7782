"""`python -m pipeline.run`: one migration, from the command line to the result.

Signals are caught before anything heavy is imported, so that Ctrl-C ends in one line at any time.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def _cancelled_early(number: int, frame: FrameType | None) -> None:
    os.write(2, b"error: cancelled before the migration began\n")
    os._exit(130)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _cancelled_early)
    signal.signal(signal.SIGTERM, _cancelled_early)
    # numpy's BLAS would start a thread a core, and a process with threads should not fork.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import dataclasses  # noqa: E402

from pipeline.arguments import AUTO  # noqa: E402
from pipeline.codecs.qatzip import device_needed  # noqa: E402
from pipeline.errors import FerryError, HostError, one_line  # noqa: E402
from pipeline.migration import Migration, status_of  # noqa: E402
from pipeline.options import Options, parse, resolved_level  # noqa: E402
from pipeline.progress import Progress, open_progress  # noqa: E402
from pipeline.report import Result, build_result, render_summary, save_json  # noqa: E402
from pipeline.workers import Crew, signals_cancel  # noqa: E402
from qat.probe import ANSWERED, probe  # noqa: E402


def resolve_method(options: Options, progress: Progress) -> Options:
    """Ask the device where it may be used, and settle the level. Raises UsageError, HostError."""
    method = options.method
    if method == AUTO:
        answer = probe()
        progress.say(f"method auto; the QAT device says: {answer}")
        return dataclasses.replace(options, auto_with_qat=answer == ANSWERED)
    if method == "qatzip" and not options.qat_fallback:
        answer = probe()
        if answer != ANSWERED:
            raise HostError(device_needed(answer))
    level = resolved_level(method, options.level)
    return dataclasses.replace(options, method=method, level=level)


def migrate(options: Options, command: list[str]) -> tuple[Result, FerryError | None]:
    """One run with resolved options: its result, and the error that ended it, if any."""
    progress = open_progress(options.quiet)
    error: FerryError | None = None
    try:
        with Crew() as crew, signals_cancel(crew):
            options = resolve_method(options, progress)
            migration = Migration(options, crew, progress)
            try:
                migration.run()
            except FerryError as raised:
                error = raised
            except Exception as raised:
                error = FerryError(f"{type(raised).__name__}: {one_line(raised)}")
            measured = migration.measured
    finally:
        progress.close()
    text = one_line(error) if error else None
    return build_result(options, measured, command, status_of(error), text), error


def main(arguments: list[str]) -> int:
    """Run, print, and return the exit code."""
    try:
        options = parse(arguments)
        result, error = migrate(options, ["python", "-m", "pipeline.run", *arguments])
    except FerryError as raised:
        print(f"error: {one_line(raised)}", file=sys.stderr)
        return raised.exit_code
    if options.json is not None:
        try:
            save_json(result, options.json)
        except FerryError as raised:
            print(f"error: {one_line(raised)}", file=sys.stderr)
            return raised.exit_code
    if error is not None:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    if options.json != "-":
        print(render_summary(result))
    return 0


def guarded(arguments: list[str]) -> int:
    """`main`, for a reader of standard output that may go away."""
    try:
        code = main(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    return code


if __name__ == "__main__":
    sys.exit(guarded(sys.argv[1:]))
