"""`python -m tools.dirtyrate`: a guest that writes, kept running for a migration, or measured.

    python -m tools.dirtyrate --create web --size 2G --preset database     keeps a guest running
    python -m tools.dirtyrate --attach web --for 10 --measure              its dirty curve
    python -m pipeline.run --attach web --prealloc                         migrates it

The dirty curve is the number of distinct pages written within a time, since a moment when none
was dirty. A rate alone misleads: the curve is what decides how many rounds a migration takes.
"""

from __future__ import annotations

if __name__ == "__main__":  # in front of imports that take time, in which a signal may come
    import sys

    from pipeline.cli.main import execute

    sys.exit(execute("tools.dirtyrate", sys.argv[1:]))

import functools
import math
import time
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from guestmem.dirty_log import LOGS
from guestmem.guest import UNWATCHED, GuestSpec
from guestmem.page import PAGE_BYTES
from guestmem.units import show_size
from guestmem.workload import HELD_SHARE
from pipeline.cli.guest import add_guest_arguments, read_attach, read_guest, read_guest_name
from pipeline.cli.main import Command, show
from pipeline.cli.memory import add_memory_arguments, read_huge_pages
from pipeline.cli.parser import SIZES, Parser
from pipeline.cli.result import add_output_arguments
from pipeline.cli.values import Given
from pipeline.errors import UsageError
from pipeline.options import GuestOptions
from pipeline.processes.memory import check_huge_pages, check_memory
from pipeline.processes.signals import signals_cancel
from pipeline.processes.supervisor import Supervisor
from pipeline.progress import Progress, Stage, open_progress
from pipeline.report.files import save_json
from pipeline.source.guest_client import GuestClient

POINTS_SECONDS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
REPORT_SECONDS = 1.0
DEFAULT_MEASURE_SECONDS = 10.0
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Request:
    """A validated command line. `seconds` 0 is until Ctrl-C."""

    create: str | None
    attach: str | None
    guest: GuestOptions | None
    seconds: float
    measure: bool
    dirty_log: str
    huge_pages: str
    json: str | None
    quiet: bool


def build_parser(program: str) -> Parser:
    """All options, with units and defaults."""
    parser = Parser(
        program,
        "Make a guest that writes and keep it running, or measure how a guest dirties its RAM.",
        1,
        epilog="Three commands: --create NAME keeps a guest running; --attach NAME --measure prints its "
        f"dirty curve; python -m pipeline.run --attach NAME migrates it. {SIZES}",
    )
    add = parser.add_argument
    add(
        "--create",
        metavar="NAME",
        help="make a guest of this name, for others to attach to (default none)",
    )
    add("--attach", metavar="NAME", help="measure the guest of this name (default: make one)")
    add(
        "--for",
        metavar="SECONDS",
        help=f"how long, seconds; 0 is until Ctrl-C (default 0; {DEFAULT_MEASURE_SECONDS:g} with --measure)",
    )
    add(
        "--measure",
        action="store_true",
        default=None,
        help="print the dirty curve at the end (default off)",
    )
    add(
        "--dirty-log",
        metavar="LOG",
        help=f"who notes the writes that are measured: {', '.join(LOGS)} (default auto)",
    )
    add_output_arguments(parser)
    add_guest_arguments(parser)
    add_memory_arguments(parser)
    return parser


def read(given: Given) -> Request:
    """Raises UsageError."""
    measure = given.flag("measure")
    attach = read_attach(given)
    create = given.text("create")
    if attach is not None:
        given.refuse(("create",), f"either this or --attach {attach}")
        if not measure:
            raise UsageError(f"--attach {attach}: say --measure; a guest writes by itself")
    elif create is None and not measure:
        raise UsageError("give --create NAME, --measure, or both (see --help)")
    log = given.choice("dirty_log", LOGS, "auto")
    if not measure:
        given.refuse(("dirty_log",), "is for --measure")
    return Request(
        create=None if create is None else read_guest_name("--create", create),
        attach=attach,
        guest=read_guest(given) if attach is None else None,
        seconds=given.number(
            "for",
            POINTS_SECONDS[0] if measure else 0,
            math.inf,
            "seconds",
            DEFAULT_MEASURE_SECONDS if measure else 0,
        ),
        measure=measure,
        dirty_log=log,
        huge_pages=read_huge_pages(given, makes_images=attach is None, why_not="no image is made here"),
        json=given.new_file("json"),
        quiet=given.flag("quiet"),
    )


@dataclass
class Curve:
    """Samples of distinct pages, by the seconds since the log was clean."""

    samples: dict[float, list[int]] = field(default_factory=dict)

    def record(self, ram_pages: int) -> list[dict[str, Any]]:
        """A row a point: seconds, pages (minimum, median, maximum, samples), share of RAM."""
        return [
            {
                "seconds": seconds,
                "pages_min": min(found),
                "pages_median": int(median(found)),
                "pages_max": max(found),
                "samples": len(found),
                "share_of_ram": median(found) / ram_pages,
            }
            for seconds, found in sorted(self.samples.items())
        ]


def measure_curve(supervisor: Supervisor, link: GuestClient, seconds: float) -> Curve:
    """Sync, then count at each point; over again as long as another point fits into `seconds`."""
    curve = Curve()
    scratch = np.zeros(link.source.pages, np.uint32)
    end = time.monotonic() + seconds
    while time.monotonic() + POINTS_SECONDS[0] <= end + 0.01:
        link.log.sync(scratch)
        began = time.monotonic()
        for point in POINTS_SECONDS:
            if began + point > end + 0.01:
                break
            while (left := began + point - time.monotonic()) > 0:
                supervisor.wait(left)
            curve.samples.setdefault(point, []).append(link.log.count())
    return curve


def keep_running(supervisor: Supervisor, link: GuestClient, seconds: float, progress: Progress) -> None:
    """Let the guest write, and say each second what it reaches."""
    end = time.monotonic() + seconds if seconds else float("inf")
    before = link.order("ask")
    held = True
    while (now := time.monotonic()) < end:
        link.rest(min(REPORT_SECONDS, end - now))
        state = link.order("ask")
        elapsed = state["written_seconds"] - before["written_seconds"]
        if elapsed >= REPORT_SECONDS / 2:
            reached = (state["written_bytes"] - before["written_bytes"]) / elapsed
            asked = float(before["rate_asked"])
            steady = asked == float(state["rate_asked"])
            progress.say(f"the guest writes {show_size(reached)} bytes/s, asked for {show_size(asked)}")
            if steady and reached < HELD_SHARE * asked and held:
                progress.warn(
                    f"the guest reaches {show_size(reached)} of {show_size(asked)} bytes/s: "
                    "one process cannot hold that rate here"
                )
            held = not steady or reached >= HELD_SHARE * asked
        before = state


def keep_or_measure(request: Request, progress: Progress) -> dict[str, Any]:
    """Do what was asked; the figures. Raises FerryError."""
    with Supervisor() as supervisor, signals_cancel(supervisor):
        if request.attach is not None:
            link = GuestClient.attach(supervisor, request.attach, request.dirty_log)
        else:
            assert request.guest is not None
            advice = request.guest.advice
            check_memory(request.guest.size_bytes, images=1, queue_bytes=0, workers=1, advice=advice)
            progress.say(f"filling {request.guest.size_bytes >> 20} MiB of guest RAM")
            spec = GuestSpec(
                request.guest.size_bytes,
                request.guest.content(),
                request.guest.workload,
                request.create,
                huge_pages=request.huge_pages != "off",
            )
            log = request.dirty_log if request.measure else UNWATCHED
            link = GuestClient.start(supervisor, spec, log, functools.partial(progress.reach, Stage.FILLING))
            check_huge_pages(request.huge_pages, link.huge_bytes, request.guest.size_bytes)
            link.order("run")
        if request.create is not None:
            progress.say(f"guest {request.create} runs; python -m pipeline.run --attach {request.create}")
        began = time.monotonic()
        first = link.order("ask")
        points: list[dict[str, Any]] = []
        if request.measure:
            progress.say(f"measuring for {request.seconds:g} s")
            points = measure_curve(supervisor, link, request.seconds).record(link.source.pages)
        else:
            keep_running(supervisor, link, request.seconds, progress)
        slowest = link.slowest_second(began, time.monotonic() - 1)
        return _figures(request, link, first, points, slowest)


def _figures(
    request: Request,
    link: GuestClient,
    first: dict[str, Any],
    points: list[dict[str, Any]],
    slowest: float | None,
) -> dict[str, Any]:
    last = link.state
    seconds = last["written_seconds"] - first["written_seconds"]
    reached = (last["written_bytes"] - first["written_bytes"]) / seconds if seconds else 0.0
    asked = float(last["rate_asked"])
    return {
        "schema_version": SCHEMA_VERSION,
        "guest": request.attach or request.create,
        "size_bytes": link.source.size_bytes,
        "dirty_log": None if link.log_kind == UNWATCHED else link.log_kind,
        "bytes_per_second_mean": reached,
        "bytes_per_second_asked": asked,
        "rate_held": reached >= HELD_SHARE * asked,
        "slowest_second_bytes": slowest,
        "writes": last["writes"] - first["writes"],
        "curve": points,
        "options": request.guest.record() if request.guest else None,
    }


def render(figures: dict[str, Any]) -> str:
    """The curve as a table, with the mean rate below."""
    lines = []
    if figures["curve"]:
        lines.append("| within s | distinct pages |       min |       max |      MiB | % of RAM | samples |")
        lines.append("| -------- | -------------- | --------- | --------- | -------- | -------- | ------- |")
        lines += [
            f"| {row['seconds']:8g} | {row['pages_median']:14d} | {row['pages_min']:9d} "
            f"| {row['pages_max']:9d} | {row['pages_median'] * PAGE_BYTES / (1 << 20):8.1f} "
            f"| {row['share_of_ram']:8.2%} | {row['samples']:7d} |"
            for row in figures["curve"]
        ]
        lines.append("")
    asked = show_size(figures["bytes_per_second_asked"])
    held = "" if figures["rate_held"] else f", not the {asked} asked for"
    slowest = figures["slowest_second_bytes"]
    lines.append(
        f"wrote {show_size(figures['bytes_per_second_mean'])} bytes/s on average{held}"
        + (f", slowest second {show_size(slowest)}" if slowest is not None else "")
        + (f" ({figures['dirty_log']} log)" if figures["dirty_log"] is not None else "")
    )
    return "\n".join(lines)


def run(given: Given, command: list[str]) -> int:
    """Keep or measure, print, and return the exit code."""
    request = read(given)
    progress = open_progress(request.quiet)
    try:
        figures = {**keep_or_measure(request, progress), "command": command}
    finally:
        progress.close()
    if request.json is not None:
        save_json(figures, request.json)
    if request.json != "-":
        show(render(figures))
    return 0


COMMAND = Command(build_parser, run)
