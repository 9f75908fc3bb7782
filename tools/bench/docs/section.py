"""A section of docs/measurements.md: what it measures, and the text that comes of it."""

from __future__ import annotations

import datetime
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.codecs import library_versions
from pipeline.report.host import host_record
from tools.bench.request import BenchRequest
from tools.measuring.provenance import host_words
from tools.measuring.sizes import size_argument
from tools.measuring.spread import Spread

COLUMNS_OF_TEXT = 110


def everywhere() -> str:
    """A section that any host can measure."""
    return ""


@dataclass(frozen=True)
class Section:
    """`about` says what the tables show. `share` is the section's share of --size: a section with many runs
    takes a smaller guest. `why_not` says why this host cannot measure it."""

    name: str
    title: str
    about: str
    measure: Callable[[BenchRequest], dict[str, Any]]
    tables: Callable[[dict[str, Any]], str]
    share: float = 1.0
    why_not: Callable[[], str] = everywhere

    def run(self, request: BenchRequest) -> dict[str, Any]:
        """Measure it: the section's figures, with when, where and how they were made. Raises FerryError."""
        found = self.measure(request.share(self.share))
        return {
            "measured_on": datetime.date.today().isoformat(),
            "host": host_record(library_versions()),
            "command": command(self.name, request),
            "repeat": request.repeat,
            "guest_bytes": request.share(self.share).ram.size_bytes,
            **found,
        }

    def text(self, document: dict[str, Any]) -> str:
        """The section in Markdown."""
        host = f"{host_words(document['host'])}."
        return "\n".join(
            [
                f"## {self.title}",
                "",
                _wrapped(self.about),
                "",
                self.tables(document),
                "",
                _wrapped(f"Measured {document['measured_on']} on {host} {noise(document)}"),
                "",
                f"    {' '.join(document['command'])}",
            ]
        )


def command(name: str, request: BenchRequest) -> list[str]:
    """The command that measures one section again."""
    fill = [] if request.ram.fill is None else ["--fill", request.ram.fill]
    return [
        *("python", "-m", "tools.bench", "--suite", "docs", "--sections", name),
        *("--size", size_argument(request.ram.size_bytes), "--repeat", str(request.repeat)),
        *("--channels", str(request.channels), *fill),
    ]


def noise(document: dict[str, Any]) -> str:
    """How often everything was run, and how far the same thing differed from time to time."""
    if "curve" in document:
        return "One guest; minimum and maximum are of its samples."
    if document["repeat"] == 1:
        return "One repetition, so how far the figures vary is not known."
    spreads = {name: Spread(tuple(times)).noise for name, times in totals(document).items() if times[1:]}
    if not spreads:
        return f"{document['repeat']} repetitions, in turn."
    worst = max(spreads, key=lambda name: spreads[name])
    return (
        f"{document['repeat']} repetitions, in turn; median (minimum to maximum). Two figures whose ranges "
        f"overlap are a tie. The same run differed by up to {spreads[worst]:.0%} of its total time ({worst})."
    )


def totals(document: dict[str, Any]) -> dict[str, list[float]]:
    """The total times (ms) of everything that a section repeated, by what it is."""
    found: dict[str, list[float]] = {}
    results = document.get("results", {})
    for name, runs in results.items() if isinstance(results, dict) else ():
        found[name] = [result["time"]["total_ms"] or 0.0 for result in runs]
    for name, values in document.get("rows", {}).items():
        if "total_ms" in values[0]:
            found[name] = [value["total_ms"] or 0.0 for value in values]
    for cell in document.get("cells", []):
        for name, times in cell["total_ms"].items():
            found[f"{cell['image']}, {cell['bandwidth']}, {name}"] = times
    return found


def _wrapped(text: str) -> str:
    return textwrap.fill(text, COLUMNS_OF_TEXT, break_long_words=False, break_on_hyphens=False)
