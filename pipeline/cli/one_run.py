"""One migration of a command, from options to printed result: for `pipeline.run` and `pipeline.send`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from pipeline.cli.arguments import AUTO
from pipeline.cli.main import end_of
from pipeline.codecs.qatzip import device_needed
from pipeline.errors import FerryError, HostError, one_line
from pipeline.migration import Migration, status_of
from pipeline.options import Options, resolved_level
from pipeline.processes.supervisor import Supervisor, signals_cancel
from pipeline.progress import Progress, open_progress
from pipeline.report.document import Result, build_result, render_summary, save_json
from qat.probe import ANSWERED, probe


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
    if options.insecure:
        progress.warn("--insecure: whoever is on the way can read and change guest RAM")
    try:
        with Supervisor() as supervisor, signals_cancel(supervisor):
            options = resolve_method(options, progress)
            migration = Migration(options, supervisor, progress)
            try:
                migration.run()
            except FerryError as raised:
                error = raised
            except Exception as raised:
                error = FerryError(f"{type(raised).__name__}: {one_line(raised)}")
            if error is not None:
                migration.abandon(error)
            metrics = migration.metrics
    finally:
        progress.close()
    text = one_line(error) if error else None
    return build_result(options, metrics, command, status_of(error), text), error


def run_command(program: str, parse: Callable[[list[str]], Options], arguments: list[str]) -> int:
    """Run, print, and return the exit code."""
    try:
        options = parse(arguments)
        result, error = migrate(options, ["python", "-m", program, *arguments])
        if options.json is not None:
            save_json(result, options.json)
    except FerryError as raised:
        return end_of(raised)
    if error is not None:
        return end_of(error)
    if options.json != "-":
        print(render_summary(result))
    return 0
