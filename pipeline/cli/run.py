"""The command `run`: migrations with both ends on this host, one for each method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.cli import channels
from pipeline.cli.connection import CONNECTION_OPTIONS, add_connection_arguments, read_connection
from pipeline.cli.forecast import add_forecast_argument, check_forecast, render_score
from pipeline.cli.main import Command, show
from pipeline.cli.migrate import add_migration_arguments, migrate, read_options
from pipeline.cli.parser import SIZES, Parser
from pipeline.cli.values import Given
from pipeline.errors import Cancelled, FerryError, NotConverged
from pipeline.net.tls import CLIENT, SERVER
from pipeline.options import DEFAULT_TRANSPORT, MAX_WORKERS, Options
from pipeline.progress import open_progress
from pipeline.report.columns import Result
from pipeline.report.document import SCHEMA_VERSION
from pipeline.report.files import save_json
from pipeline.report.table import render_runs, render_summary
from pipeline.transports import TRANSPORTS


@dataclass(frozen=True)
class RunRequest:
    """A command line of `run`, checked: the runs in turn."""

    runs: tuple[Options, ...]
    json: str | None
    quiet: bool
    forecast: bool = False


def build_parser(program: str) -> Parser:
    """All options, with what each is, its unit and its default."""
    parser = Parser(
        program,
        "Migrate a live guest's RAM from a source image to a destination mapping, through channels that "
        "compress on Intel QAT or on the CPU, and measure it.",
        *(1, 3),
        epilog=SIZES,
    )
    add_migration_arguments(parser, several_methods=True)
    add = parser.add_argument_group("receivers").add_argument
    add(
        "--receivers",
        metavar="N",
        help=f"receive processes, 1 to {MAX_WORKERS} (default: the number of channels)",
    )
    add(
        "--prealloc",
        action="store_true",
        default=None,
        help="give the destination its pages before the clock starts (default: on first touch)",
    )
    channels.add_decode_argument(parser)
    add_forecast_argument(parser)
    names = ", ".join(f"{name} ({what})" for name, (_, what) in TRANSPORTS.items())
    add = parser.add_argument_group("transport").add_argument
    add("--transport", metavar="NAME", help=f"{names} (default {DEFAULT_TRANSPORT})")
    add_connection_arguments(parser, with_secret=False)
    return parser


def read(given: Given) -> RunRequest:
    """Raises UsageError with the value and the valid range."""
    transport = given.choice("transport", tuple(TRANSPORTS), DEFAULT_TRANSPORT)
    connection = None
    if transport == DEFAULT_TRANSPORT:
        given.refuse(CONNECTION_OPTIONS, "is for --transport tcp")
    else:
        given.refuse(("receivers",), f"with {transport} there is one for each channel; leave it out")
        connection = read_connection(given, CLIENT, SERVER)
    count = channels.read_channels(given)
    methods = channels.read_methods(given)
    runs = tuple(
        read_options(
            given,
            method,
            connection,
            transport=transport,
            receivers=given.whole("receivers", 1, MAX_WORKERS, count),
            prealloc=given.flag("prealloc"),
            qat_methods=methods,
            decode=channels.read_decode(given),
        )
        for method in methods
    )
    forecast = given.flag("forecast")
    for options in runs if forecast else ():
        check_forecast(options)
    return RunRequest(runs, given.new_file("json"), given.flag("quiet"), forecast)


def run(given: Given, command: list[str]) -> int:
    """Migrate, print, and return the exit code."""
    request = read(given)
    results: list[Result] = []
    errors: list[FerryError | None] = []
    for number, options in enumerate(request.runs, 1):
        several = len(request.runs) > 1
        title = f"{number}/{len(request.runs)} {options.method_name}" if several else ""
        result, error = _one(options, command, request, title)
        results.append(result)
        errors.append(error)
        if isinstance(error, Cancelled):
            break
    if request.json is not None:
        save_json(_document(request, results, command), request.json)
    if len(request.runs) == 1 and errors[0] is not None:
        raise errors[0]
    if request.json != "-":
        show(render_summary(results[0]) if len(request.runs) == 1 else render_runs(results))
        for result in results:
            if result.get("score") is not None:
                show(("" if len(results) == 1 else f"{result['options']['method']}\n") + render_score(result))
    failed = _failure(errors)
    if failed is not None:
        raise failed
    return 0


def _one(
    options: Options, command: list[str], request: RunRequest, title: str
) -> tuple[Result, FerryError | None]:
    progress = open_progress(request.quiet, title)
    try:
        if title:
            progress.say(f"run {title}")
        return migrate(options, command, progress, forecast=request.forecast)
    finally:
        progress.close()


def _document(request: RunRequest, results: list[Result], command: list[str]) -> dict[str, Any]:
    """A single run's document, or one that holds those of all."""
    if len(request.runs) == 1:
        return results[0]
    failed = next((one for one in results if one["status"] not in ("completed", "not-converged")), None)
    completed = any(one["status"] == "completed" for one in results)
    ended = failed or (None if completed else results[-1])
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "completed" if ended is None else ended["status"],
        "error": None if ended is None else ended["error"],
        "traceback": None if ended is None else ended["traceback"],
        "command": command,
        "runs": results,
    }


def _failure(errors: list[FerryError | None]) -> FerryError | None:
    """That of the first run that failed; one that did not converge counts only when none completed."""
    for error in errors:
        if error is not None and not isinstance(error, NotConverged):
            return error
    return errors[0] if all(errors) else None


COMMAND = Command(build_parser, run)
