"""`python -m tools.compare SCENARIO --output DIR`: methods over channels and bandwidths, on this host.

    python -m tools.compare quick --output quick/          ends within two minutes; open quick/report.html
    python -m tools.compare my.toml --output DIR --filter 'zstd*'
    python -m tools.compare quick --output fleet/ --cluster tcp://10.0.0.1:8786
    python -m qat.emulator -- python -m tools.compare quick --output emulated/

Every run's result document is kept under DIR/points, so that a comparison that was broken off goes
on where it stood. DIR then holds report.html (needs no network), report.md, points.csv, compare.json.
"""

from __future__ import annotations

import fnmatch
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.cli.main import Command, show
from pipeline.cli.parser import Parser
from pipeline.cli.values import Given, parse_within
from pipeline.codecs import library_versions
from pipeline.errors import Cancelled, RunFailed, UsageError, one_line
from pipeline.report.files import save_text
from pipeline.report.host import host_record
from tools.cluster.connect import ClusterAddress, check_dask, read_cluster
from tools.compare import page, report
from tools.compare.points_table import PARQUET, WITHOUT_PYARROW, csv_text, has_parquet, write_parquet
from tools.compare.results import ResultsFolder
from tools.compare.runner import LocalRunner, Runner, run_points
from tools.compare.scenario import AXES, Point, Scenario, check, load, names
from tools.measuring.progress import say

SCHEMA_VERSION = 1
MOST_SHOWN = 2000
"""Points of which the whole report is printed too; that of more fills a terminal for long."""


def build_parser(program: str) -> Parser:
    """All options, with their defaults."""
    parser = Parser(
        program,
        "Compare methods over channels, bandwidths, prealloc, dirty rates and images.",
        1,
        epilog=f"SCENARIO is a TOML file (docs/compare.md) or one of {', '.join(names())}.",
    )
    add = parser.add_argument
    add("scenario", metavar="SCENARIO", help="what is compared: a name, or a TOML file")
    add("--output", metavar="DIR", help="where the results go (default compare-SCENARIO)")
    add("--filter", metavar="GLOB", help="only points whose name matches, as in 'zstd*_b200M*' (default all)")
    add(
        "--force",
        action="store_true",
        default=None,
        help="throw away what DIR holds of another scenario (default off)",
    )
    add(
        "--published",
        action="store_true",
        default=None,
        help="lay the published tables beside ours, as ratios (default off)",
    )
    add("--size", metavar="SIZE", help="RAM of the guest (default the scenario's)")
    add("--fill", metavar="PATH", help="corpus of the images (default the scenario's)")
    add("--repetitions", metavar="N", help="times each point is run (default the scenario's)")
    add(
        "--cluster",
        metavar="WHERE",
        help="run on a Dask cluster, every point on every kind of host: "
        "local:N for N workers here, or its scheduler, as in tcp://10.0.0.1:8786 (default: this host alone)",
    )
    add(
        "--cluster-tls",
        metavar="DIR",
        help="certificates for a scheduler at tls://: ca-cert.pem, "
        "client-cert.pem, client-key.pem (default: none)",
    )
    add("--hosts", metavar="LIST", help="kinds of host of the cluster, with commas between (default all)")
    for axis in AXES:
        add(
            f"--{axis.replace('_', '-')}", metavar="LIST", help="replaces the scenario's, with commas between"
        )
    return parser


def _overridden(scenario: Scenario, given: Given) -> Scenario:
    """The scenario with the values that the command line replaces. Raises UsageError."""
    changes: dict[str, Any] = {}
    for name in ("size", "fill"):
        if given.has(name):
            changes[name] = given.text(name)
    if given.has("repetitions"):
        changes["repetitions"] = given.whole("repetitions", 1, 100, scenario.repetitions)
    for axis in AXES:
        text = given.text(axis)
        if text is not None:
            parts = [part.strip() for part in text.split(",") if part.strip()]
            changes[axis] = tuple(_typed(axis, part) for part in parts)
    if given.has("hosts"):
        changes["hosts"] = tuple(part.strip() for part in (given.text("hosts") or "").split(","))
    if any(axis in AXES for axis in changes):
        changes["extra"] = ()
    scenario = replace(scenario, **changes)
    check(scenario)
    if scenario.fill is not None and not Path(scenario.fill).exists():
        raise UsageError(f"fill: {scenario.fill}: no such file or folder")
    return scenario


def _typed(axis: str, text: str) -> Any:
    if axis in ("levels", "channels"):
        return parse_within(f"--{axis}", text, -(10**6), 10**6)
    if axis == "prealloc":
        if text not in ("true", "false", "on", "off"):
            raise UsageError(f"--prealloc {text}: must be on or off")
        return text in ("true", "on")
    return text


def run(given: Given, command: list[str]) -> int:
    """Run, write, and return the exit code."""
    name = given.text("scenario") or ""
    scenario = _overridden(load(name), given)
    where = _cluster(given, scenario)
    points = _filtered(scenario.points(), given) if where is None else []
    folder = Path(given.text("output") or f"compare-{Path(name).stem}")
    try:
        output = ResultsFolder(folder, scenario, given.flag("force"), fleet=where is not None)
        report_of = _Report(output, scenario, command, given.flag("published"), points)
        if where is None:
            _carry_out(LocalRunner(scenario), report_of)
        else:
            from tools.compare.cluster.campaign import campaign

            with campaign(where, scenario, output.hosts()) as fleet:
                output.add_hosts(fleet.hosts)
                report_of.points = _filtered(scenario.points_on(list(fleet.hosts)), given)
                _carry_out(fleet.runner, report_of)
    except OSError as error:
        raise RunFailed(one_line(error)) from error
    except Cancelled as error:
        raise Cancelled(f"{error}; the same command goes on from here") from error
    return report_of.show()


def _cluster(given: Given, scenario: Scenario) -> ClusterAddress | None:
    """The cluster that was asked for. Raises UsageError, HostError."""
    text = given.text("cluster")
    if text is None:
        given.refuse(("cluster_tls", "hosts"), "is for --cluster")
        if scenario.hosts or scenario.pairs is not None:
            raise UsageError(f"{'hosts' if scenario.hosts else 'pairs'}: is for --cluster")
        return None
    where = read_cluster(text, given.text("cluster_tls"))
    check_dask()
    return where


def _filtered(points: list[Point], given: Given) -> list[Point]:
    pattern = given.text("filter") or "*"
    found = [point for point in points if fnmatch.fnmatch(point.key, pattern)]
    if not found:
        raise UsageError(f"--filter {pattern}: matches no point of the scenario")
    return found


def _carry_out(runner: Runner, report_of: _Report) -> None:
    """Run the points; whatever ends it, what was measured is in the report. Raises FerryError, OSError."""
    try:
        run_points(runner, report_of.points, report_of.output, report_of.write)
    finally:
        report_of.write()


@dataclass
class _Report:
    """What is made of the points that are there."""

    output: ResultsFolder
    scenario: Scenario
    command: list[str]
    published: bool
    points: list[Point]

    def write(self) -> None:
        """The files, if there is a point. Raises OSError."""
        document = self._document()
        if document["points"]:
            _write(self.output.folder, document, self.published)

    def show(self) -> int:
        """Print the report; the exit code."""
        document = self._document()
        if len(document["points"]) <= MOST_SHOWN:
            show(report.markdown(document, published=self.published))
        parquet = has_parquet()
        if not parquet:
            say(WITHOUT_PYARROW)
        files = ["report.html", "report.md", "points.csv", *([PARQUET] if parquet else []), "compare.json"]
        show(f"\nwritten to {self.output.folder}: {', '.join(files)}")
        measured = any(entry["result"]["status"] != "failed" for entry in document["points"])
        return 0 if measured else RunFailed.exit_code

    def _document(self) -> dict[str, Any]:
        done = [(point, self.output.result(point)) for point in self.points]
        return {
            "schema_version": SCHEMA_VERSION,
            "scenario": asdict(self.scenario),
            "host": host_record(library_versions()),
            "hosts": self.output.hosts(),
            "points": [{"point": asdict(point), "result": result} for point, result in done if result],
            "command": self.command,
        }


def _write(folder: Path, document: dict[str, Any], published: bool) -> None:
    save_text(json.dumps(document, indent=1) + "\n", folder / "compare.json")
    save_text(csv_text(document), folder / "points.csv")
    if has_parquet():
        write_parquet(document, folder / PARQUET)
    save_text(report.markdown(document, published=published) + "\n", folder / "report.md")
    save_text(page.page(document, published=published), folder / "report.html")


COMMAND = Command(build_parser, run)
