"""`python -m tools.bench`: ours beside a real QEMU and beside each codec alone, in one run.

    python -m tools.bench --size 2G --fill corpus/          ours, QEMU's, the roofline, interleaved
    python -m tools.bench --suite auto --fill corpus/       auto against every fixed method
    python -m tools.bench --suite transports --fill corpus/ tcp beside the queue and QEMU
    python -m tools.bench --suite scale --fill corpus/      guest size, channels, start-up
    python -m tools.bench --suite docs --fill corpus/       every table of docs/measurements.md, and the chart

Everything is measured in turn and repeated; figures are medians with the minimum and maximum. Two
figures whose ranges overlap are called a tie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cli.guest import add_ram_arguments, read_ram
from pipeline.cli.main import Command, show
from pipeline.cli.parser import SIZES, Parser
from pipeline.cli.values import Given
from pipeline.codecs import library_versions
from pipeline.options import DEFAULT_CHANNELS, MAX_WORKERS
from pipeline.report.files import save_json, save_text
from pipeline.report.host import host_record
from tools.bench import auto, deltas, docs, fleet, forecast, peers, relay, scale, transports
from tools.bench.request import OUTPUT, BenchRequest
from tools.measuring.provenance import host_line

DEFAULT_SUITE = "peers"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Suite:
    """A set of measurements: what it is, how it is made and shown, the options that not every suite takes,
    and how often everything is run without --repeat."""

    what: str
    measure: Callable[[BenchRequest], dict[str, Any]]
    tables: Callable[[dict[str, Any]], str]
    options: tuple[str, ...] = ()
    repeat: int = 5

    def render(self, document: dict[str, Any]) -> str:
        """Where it was measured, then the tables."""
        return f"{host_line(document)}\n\n{self.tables(document)}"


SUITES = {
    "peers": Suite(
        "every method beside QEMU's and beside its codec alone",
        peers.measure,
        peers.tables,
        ("image", "filled", "methods", "no_qemu", "no_prealloc"),
    ),
    "auto": Suite(
        "method auto against every fixed method, by image and bandwidth",
        auto.measure,
        auto.tables,
        ("bandwidths", "images"),
    ),
    "auto-links": Suite(
        "the same over TCP between network namespaces of 100 Mbit/s, 1 and 10 Gbit/s",
        auto.measure_links,
        auto.tables,
        ("images",),
    ),
    "auto-device": Suite(
        "the same on an emulated QAT device of 1 and 4 instances",
        auto.measure_device,
        auto.tables,
        ("bandwidths", "images"),
    ),
    "transports": Suite(
        "channels over loopback TCP beside the queue, and beside QEMU's",
        transports.measure,
        transports.tables,
        ("image", "filled", "methods", "no_qemu", "no_prealloc"),
    ),
    "relay": Suite(
        "a real VM through two relays beside QEMU's own migration, over links of several speeds",
        relay.measure,
        relay.tables,
        repeat=1,
    ),
    "deltas": Suite(
        "runs with deltas and without, and QEMU's xbzrle",
        deltas.measure,
        deltas.tables,
        ("no_qemu",),
        repeat=1,
    ),
    "forecast": Suite(
        "forecasts from a look before each run, and how far they were off",
        forecast.measure,
        forecast.tables,
        ("methods", "bandwidths"),
        repeat=1,
    ),
    "fleet": Suite(
        "plans to empty racks, by seeds, beside capped schedules, LPT, the bound and the best plan",
        fleet.measure,
        fleet.tables,
        repeat=5,
    ),
    "scale": Suite("guest size, channels and start-up", scale.measure, scale.tables),
    "docs": Suite(
        "every table of docs/measurements.md, and the README's chart",
        docs.measure,
        docs.tables,
        ("sections", "output"),
        repeat=2,
    ),
}


def build_parser(program: str) -> Parser:
    """All options, with units and defaults."""
    parser = Parser(
        program, "Measure this program beside QEMU and beside each codec alone, interleaved.", 1, epilog=SIZES
    )
    add_ram_arguments(parser)
    add = parser.add_argument
    suites = "; ".join(f"{name}: {suite.what}" for name, suite in SUITES.items())
    add("--suite", metavar="NAME", help=f"{suites} (default {DEFAULT_SUITE})")
    add(
        "--methods",
        metavar="LIST",
        help="peers, transports, forecast: methods, with commas between (default all that are here)",
    )
    add("--channels", metavar="N", help=f"channels, 1 to {MAX_WORKERS} (default {DEFAULT_CHANNELS})")
    add("--repeat", metavar="N", help="times each configuration is run, 1 to 100 (default 5; docs 2)")
    add(
        "--bandwidths",
        metavar="LIST",
        help="auto, auto-device, forecast: rates, 0 is no limit (default 25M to 800M, 0)",
    )
    add("--images", metavar="LIST", help="auto, auto-links, auto-device: kinds of image (default all)")
    add(
        "--no-qemu",
        action="store_true",
        default=None,
        help="peers, transports: leave QEMU out (default: run it)",
    )
    add(
        "--no-prealloc",
        action="store_true",
        default=None,
        help="peers, transports: without prealloc, ours and QEMU's (default with)",
    )
    add("--sections", metavar="LIST", help=f"docs: {', '.join(docs.SECTIONS)} (default all)")
    add("--output", metavar="DIR", help=f"docs: where measurements.md and the chart go (default {OUTPUT})")
    add("--json", metavar="FILE", help="write all raw values as JSON; - is standard output (default none)")
    add("--markdown", metavar="FILE", help="write the tables to a file too (default none)")
    return parser


def read(given: Given, name: str) -> BenchRequest:
    """The request to a suite. Raises UsageError, also for an option that the suite would not look at."""
    suite = SUITES[name]
    for option in dict.fromkeys(option for one in SUITES.values() for option in one.options):
        takers = " or ".join(other for other, one in SUITES.items() if option in one.options)
        if option not in suite.options:
            given.refuse([option], f"--suite {name} does not take it; --suite {takers} does")
    request = BenchRequest(
        ram=read_ram(given),
        methods=_names(given.text("methods")),
        channels=given.whole("channels", 1, MAX_WORKERS, DEFAULT_CHANNELS),
        repeat=given.whole("repeat", 1, 100, suite.repeat),
        bandwidths=_names(given.text("bandwidths")),
        images=_names(given.text("images")),
        qemu=not given.flag("no_qemu"),
        prealloc=not given.flag("no_prealloc"),
        sections=_names(given.text("sections")),
        output=Path(given.text("output") or OUTPUT),
    )
    request.check()
    if name == "docs":
        docs.check(request)
    return request


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def run(given: Given, command: list[str]) -> int:
    """Measure, print, and return the exit code."""
    name = given.choice("suite", tuple(SUITES), DEFAULT_SUITE)
    request = read(given, name)
    target, markdown = given.new_file("json"), given.new_file("markdown")
    suite = SUITES[name]
    document = {
        "schema_version": SCHEMA_VERSION,
        "suite": name,
        "command": command,
        "host": host_record(library_versions()),
        **suite.measure(request),
    }
    if target is not None:
        save_json(document, target)
    text = suite.render(document)
    if target != "-":
        show(text)
    if markdown is not None and markdown != "-":
        save_text(text + "\n", Path(markdown))
    return 0


COMMAND = Command(build_parser, run)
