"""`python -m tools.compare SCENARIO --output DIR`: methods over channels and bandwidths, on this host.

    python -m tools.compare quick --output quick/          ends within two minutes; open quick/report.html
    python -m tools.compare my.toml --output DIR --filter 'zstd*'
    python -m qat.emulator -- python -m tools.compare quick --output emulated/

Every run's result document is kept under DIR/points, so that a comparison that was broken off goes
on where it stood. DIR then holds report.html (needs no network), report.md, points.csv, compare.json.
"""

from __future__ import annotations

import datetime
import fnmatch
import json
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pipeline.cli.main import Command, show
from pipeline.cli.parser import Parser
from pipeline.cli.values import Given, parse_within
from pipeline.codecs import library_versions
from pipeline.errors import Cancelled, RunFailed, UsageError, one_line
from pipeline.report.files import save_text
from pipeline.report.host import host_record
from tools.compare import page, report
from tools.compare.points_table import PARQUET, WITHOUT_PYARROW, csv_text, has_parquet, write_parquet
from tools.compare.scenario import AXES, Point, Scenario, check, load, names
from tools.measuring.images import KINDS, write_image
from tools.measuring.progress import say
from tools.measuring.trial import run_ours

SCHEMA_VERSION = 1
READABLE_VERSIONS = (1, 2)
"""Versions of result documents. They differ in names within `auto` and `transport`: not used here."""


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


class ResultsFolder:
    """The folder of one comparison. A finished point is a file that is there."""

    def __init__(self, folder: Path, scenario: Scenario, force: bool) -> None:
        """Raises UsageError when it holds another comparison, or something else."""
        self.folder = folder
        self.points = folder / "points"
        said = json.loads(json.dumps(asdict(scenario)))
        kept = folder / "scenario.json"
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--output {folder}: is not a folder")
        if kept.exists():
            before = json.loads(kept.read_text())
            differs = {name for name in said if said[name] != before.get(name)} - {"repetitions", "title"}
            if differs and not force:
                raise UsageError(
                    f"--output {folder}: holds another comparison ({', '.join(sorted(differs))} differ); "
                    "choose another folder, or --force to throw it away"
                )
            if differs:
                for path in self.points.glob("*.json"):
                    path.unlink()
        elif folder.exists() and any(folder.iterdir()) and not force:
            raise UsageError(f"--output {folder}: is not empty; choose another folder, or --force")
        try:
            self.points.mkdir(parents=True, exist_ok=True)
            save_text(json.dumps(said, indent=2) + "\n", kept)
        except OSError as error:
            raise UsageError(f"--output {folder}: {error.strerror}") from error

    def result(self, point: Point) -> dict[str, Any] | None:
        """A finished point's result, of this version or of one before. Raises UsageError."""
        path = self.points / f"{point.key}.json"
        if not path.exists():
            return None
        document: dict[str, Any] = json.loads(path.read_text())
        if document["schema_version"] not in READABLE_VERSIONS:
            raise UsageError(
                f"--output {self.folder}: {path.name} has schema_version {document['schema_version']}, and "
                f"this program reads {' and '.join(map(str, READABLE_VERSIONS))}; choose another folder"
            )
        return document

    def keep(self, point: Point, result: dict[str, Any]) -> None:
        """Write a point's result, whole or not at all."""
        save_text(json.dumps(result, indent=1) + "\n", self.points / f"{point.key}.json")


def run_points(scenario: Scenario, points: list[Point], output: ResultsFolder) -> None:
    """Run what is not there yet, showing the time left. Raises FerryError, OSError."""
    left = [point for point in points if output.result(point) is None]
    if len(left) < len(points):
        say(f"{len(points) - len(left)} of {len(points)} points are there already")
    took: list[float] = []
    with tempfile.TemporaryDirectory(prefix="ramferry-compare-") as folder:
        images = {name: _image(name, scenario, Path(folder)) for name in {point.image for point in left}}
        for number, point in enumerate(left, 1):
            began = time.monotonic()
            result = _run(point, images[point.image])
            output.keep(point, result)
            took.append(time.monotonic() - began)
            rest = sum(took) / len(took) * (len(left) - number)
            say(
                f"[{number}/{len(left)}] {point.key}: {_outcome(result)}; "
                f"{'done' if number == len(left) else f'about {_duration(rest)} left'}"
            )


def _image(name: str, scenario: Scenario, folder: Path) -> Path:
    if name not in KINDS:
        return Path(name)
    say(f"making the {name} image")
    return write_image(
        name, scenario.size_bytes, None if scenario.fill is None else Path(scenario.fill), folder
    )


def _run(point: Point, image: Path) -> dict[str, Any]:
    arguments = ["--image", str(image), "--method", point.method, "--channels", str(point.channels)]
    arguments += ["--max-bandwidth", point.bandwidth, "--dirty-rate", point.dirty_rate]
    if point.level is not None:
        arguments += ["--level", str(point.level)]
    if point.prealloc:
        arguments.append("--prealloc")
    trial = run_ours(arguments, may_not_converge=True)
    return {**trial.result, "measured_at": datetime.datetime.now().astimezone().isoformat(timespec="seconds")}


def _outcome(result: dict[str, Any]) -> str:
    total = result["time"]["total_ms"]
    return f"{total:.0f} ms" if result["status"] == "completed" else str(result["status"])


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def run(given: Given, command: list[str]) -> int:
    """Run, write, and return the exit code."""
    name, pattern = given.text("scenario") or "", given.text("filter") or "*"
    scenario = _overridden(load(name), given)
    points = [point for point in scenario.points() if fnmatch.fnmatch(point.key, pattern)]
    if not points:
        raise UsageError(f"--filter {pattern}: matches no point of the scenario")
    published = given.flag("published")
    folder = Path(given.text("output") or f"compare-{Path(name).stem}")
    try:
        output = ResultsFolder(folder, scenario, given.flag("force"))
        run_points(scenario, points, output)
        document = {**_document(scenario, points, output), "command": command}
        _write(output.folder, document, published)
    except OSError as error:
        raise RunFailed(one_line(error)) from error
    except Cancelled as error:
        raise Cancelled(f"{error}; the same command goes on from here") from error
    show(report.markdown(document, published=published))
    if not has_parquet():
        say(WITHOUT_PYARROW)
    files = ["report.html", "report.md", "points.csv", *([PARQUET] if has_parquet() else []), "compare.json"]
    show(f"\nwritten to {output.folder}: {', '.join(files)}")
    return 0


def _document(scenario: Scenario, points: list[Point], output: ResultsFolder) -> dict[str, Any]:
    done = [(point, output.result(point)) for point in points]
    return {
        "schema_version": SCHEMA_VERSION,
        "scenario": asdict(scenario),
        "host": host_record(library_versions()),
        "points": [{"point": asdict(point), "result": result} for point, result in done if result],
    }


def _write(folder: Path, document: dict[str, Any], published: bool) -> None:
    save_text(json.dumps(document, indent=1) + "\n", folder / "compare.json")
    save_text(csv_text(document), folder / "points.csv")
    if has_parquet():
        write_parquet(document, folder / PARQUET)
    save_text(report.markdown(document, published=published) + "\n", folder / "report.md")
    save_text(page.page(document, published=published), folder / "report.html")


COMMAND = Command(build_parser, run)
