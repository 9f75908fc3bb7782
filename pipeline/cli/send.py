"""The command `send`: this end of a migration to another host."""

from __future__ import annotations

from pipeline.cli import channels
from pipeline.cli.connection import (
    ADDRESSES,
    add_connection_arguments,
    read_address,
    read_connection,
)
from pipeline.cli.forecast import add_forecast_argument, check_forecast, render_score
from pipeline.cli.main import Command, show
from pipeline.cli.migrate import add_migration_arguments, migrate, read_options
from pipeline.cli.parser import SIZES, Parser
from pipeline.cli.values import Given
from pipeline.net.tls import CLIENT
from pipeline.options import Options
from pipeline.progress import open_progress
from pipeline.report.files import save_json
from pipeline.report.table import render_summary


def build_parser(program: str) -> Parser:
    """All options, with what each is, its unit and its default."""
    parser = Parser(
        program,
        "Migrate a guest's RAM to another host, where python -m pipeline.recv waits for it.",
        *(1, 3, 4),
        epilog=SIZES,
    )
    add = parser.add_argument_group("transport").add_argument
    add("--to", metavar="ADDRESS", required=True, help=f"where pipeline.recv listens: {ADDRESSES}")
    add_connection_arguments(parser, with_secret=True)
    add_migration_arguments(parser, several_methods=False)
    add_forecast_argument(parser)
    return parser


def read(given: Given) -> Options:
    """Raises UsageError."""
    connection = read_connection(given, CLIENT)
    to = read_address(given, "to", connection)
    return read_options(given, channels.read_method(given), connection, transport="tcp", to=to)


def run(given: Given, command: list[str]) -> int:
    """Migrate, print, and return the exit code."""
    options = read(given)
    forecast = given.flag("forecast")
    if forecast:
        check_forecast(options)
    target = given.new_file("json")
    progress = open_progress(given.flag("quiet"))
    try:
        result, error = migrate(options, command, progress, forecast=forecast)
    finally:
        progress.close()
    if target is not None:
        save_json(result, target)
    if error is not None:
        raise error
    if target != "-":
        show(render_summary(result))
        if result.get("score") is not None:
            show(render_score(result))
    return 0


COMMAND = Command(build_parser, run)
