"""Who runs the points: this host, one after the other; or a fleet (`tools.compare.cluster.runner`)."""

from __future__ import annotations

import datetime
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from tools.compare.results import ResultsFolder
from tools.compare.scenario import Point, Scenario
from tools.measuring.images import KINDS, write_image
from tools.measuring.progress import say
from tools.measuring.trial import run_ours

Keep = Callable[[Point, dict[str, Any]], None]
"""Takes the result of a point, once for each."""

FEWEST_SECONDS, SHARE = 30.0, 20.0
"""The report is written anew every half minute, or less often where that took more than 5 % of the time."""


class Runner(Protocol):
    """Runs points in any order; each is handed to `keep` once, as soon as it is there.

    Raises FerryError when it cannot go on.
    """

    def run(self, points: list[Point], keep: Keep) -> None: ...


class LocalRunner:
    """Runs the points on this host; the first that fails ends it."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario

    def run(self, points: list[Point], keep: Keep) -> None:
        with tempfile.TemporaryDirectory(prefix="ramferry-compare-") as folder:
            images = {name: self._image(name, Path(folder)) for name in {point.image for point in points}}
            for point in points:
                arguments = ["--image", str(images[point.image]), *arguments_of(point)]
                arguments += ["--prealloc"] if point.prealloc else []
                result = run_ours(arguments, may_not_converge=True).result
                keep(point, {**result, "measured_at": now()})

    def _image(self, name: str, folder: Path) -> Path:
        if name not in KINDS:
            return Path(name)
        say(f"making the {name} image")
        fill = self._scenario.fill
        return write_image(name, self._scenario.size_bytes, None if fill is None else Path(fill), folder)


def arguments_of(point: Point) -> list[str]:
    """The options of the sending end."""
    arguments = ["--method", point.method, "--channels", str(point.channels)]
    arguments += ["--max-bandwidth", point.bandwidth, "--dirty-rate", point.dirty_rate]
    return arguments + (["--level", str(point.level)] if point.level is not None else [])


def now() -> str:
    """The time, as result documents have it."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def run_points(runner: Runner, points: list[Point], output: ResultsFolder, write: Callable[[], None]) -> None:
    """Run what is not there yet, showing the time left; `write` makes the report of what is there so far.

    Raises FerryError, OSError.
    """
    left = [point for point in points if not output.is_done(point)]
    if len(left) < len(points):
        say(f"{len(points) - len(left)} of {len(points)} points are there already")
    began = written = time.monotonic()
    number, took = 0, 0.0

    def keep(point: Point, result: dict[str, Any]) -> None:
        nonlocal number, written, took
        output.keep(point, result)
        number += 1
        here = time.monotonic()
        rest = (here - began) / number * (len(left) - number)
        say(
            f"[{number}/{len(left)}] {point.key}: {_outcome(result)}; "
            f"{'done' if number == len(left) else f'about {_duration(rest)} left'}"
        )
        if here - written > max(FEWEST_SECONDS, SHARE * took):
            write()
            written = time.monotonic()
            took = written - here

    if left:
        runner.run(left, keep)


def _outcome(result: dict[str, Any]) -> str:
    if result["status"] == "completed":
        return f"{result['time']['total_ms']:.0f} ms"
    return f"failed: {result['error']}" if result["status"] == "failed" else str(result["status"])


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
