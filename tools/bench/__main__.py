"""`python -m tools.bench`: ours beside a real QEMU and beside each codec alone, in one run.

    python -m tools.bench --size 2G --fill corpus/          ours, QEMU's, the roofline, interleaved
    python -m tools.bench --suite auto --fill corpus/       auto against every fixed method
    python -m tools.bench --suite transports --fill corpus/ tcp beside the queue and QEMU
    python -m tools.bench --suite scale --fill corpus/      guest size, channels, start-up

Everything is measured in turn and repeated; figures are medians with the minimum and maximum. Two
figures whose ranges overlap are called a tie.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cli.arguments import MAX_WORKERS
from pipeline.cli.guest import (
    OneLineParser,
    RamOptions,
    add_ram_arguments,
    attach_negative,
    parse_ram,
    parse_within,
)
from pipeline.errors import FerryError, UsageError, one_line
from pipeline.options import writable_json
from pipeline.report.document import host_record, save_json
from tools.bench import auto, peers, scale, transports
from tools.bench.request import BenchRequest

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Suite:
    """A set of measurements: what it is, and how it is made and shown."""

    what: str
    measure: Callable[[BenchRequest], dict[str, Any]]
    render: Callable[[dict[str, Any]], str]


SUITES = {
    "peers": Suite("every method beside QEMU's and beside its codec alone", peers.measure, peers.render),
    "auto": Suite(
        "method auto against every fixed method, by image and bandwidth",
        auto.measure,
        auto.render,
    ),
    "transports": Suite(
        "channels over loopback TCP beside the queue, and beside QEMU's",
        transports.measure,
        transports.render,
    ),
    "scale": Suite("guest size, channels and start-up", scale.measure, scale.render),
}


def build_parser() -> argparse.ArgumentParser:
    """All options, with units and defaults."""
    parser = OneLineParser(
        prog="python -m tools.bench",
        description="Measure this program beside QEMU and beside each codec alone, interleaved.",
        epilog="Exit codes: 0 measured, 1 a run failed, 2 wrong usage or this host cannot do it.",
        allow_abbrev=False,
    )
    add_ram_arguments(parser)
    add = parser.add_argument
    suites = "; ".join(f"{name}: {suite.what}" for name, suite in SUITES.items())
    add("--suite", default="peers", help=f"{suites} (default peers)")
    add("--methods", metavar="LIST", help="peers: methods, with commas between (default all that are here)")
    add("--channels", metavar="N", default="2", help=f"channels, 1 to {MAX_WORKERS} (default 2)")
    add("--repeat", metavar="N", default="5", help="times each configuration is run, 1 to 100 (default 5)")
    add("--bandwidths", metavar="LIST", help="auto: rates, 0 is no limit (default 25M,50M,...,800M,0)")
    add("--images", metavar="LIST", help="auto: kinds of image (default all four)")
    add("--no-qemu", action="store_true", help="peers: leave QEMU out (default: run it)")
    add("--no-prealloc", action="store_true", help="peers: without prealloc, ours and QEMU's (default with)")
    add("--json", metavar="FILE", help="write all raw values as JSON; - is standard output (default none)")
    add("--markdown", metavar="FILE", help="write the tables to a file too (default none)")
    return parser


def _parse(arguments: list[str]) -> tuple[str, BenchRequest, str | None, str | None]:
    given = build_parser().parse_args(attach_negative(arguments))
    if given.suite not in SUITES:
        raise UsageError(f"--suite {given.suite}: must be one of {', '.join(SUITES)}")
    ram: RamOptions = parse_ram(given)
    request = BenchRequest(
        ram=ram,
        methods=_names(given.methods),
        channels=parse_within("--channels", given.channels, 1, MAX_WORKERS),
        repeat=parse_within("--repeat", given.repeat, 1, 100),
        bandwidths=_names(given.bandwidths),
        images=_names(given.images),
        qemu=not given.no_qemu,
        prealloc=not given.no_prealloc,
    )
    request.check()
    return given.suite, request, writable_json(given.json), writable_json(given.markdown)


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def main(arguments: list[str]) -> int:
    """Measure, print, and return the exit code."""
    try:
        name, request, target, markdown = _parse(arguments)
        suite = SUITES[name]
        document = {
            "schema_version": SCHEMA_VERSION,
            "suite": name,
            "command": ["python", "-m", "tools.bench", *arguments],
            "host": host_record(),
            **suite.measure(request),
        }
        if target is not None:
            save_json(document, target)
    except FerryError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("error: cancelled by SIGINT", file=sys.stderr)
        return 130
    text = suite.render(document)
    if target != "-":
        print(text)
    if markdown is not None and markdown != "-":
        Path(markdown).write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
