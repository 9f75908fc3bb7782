"""Total time over bandwidth, both logarithmic; without a limit stands one step right of the fastest link."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from guestmem.units import show_rate
from guestmem.workload import parse_rate
from tools.measuring import charts
from tools.measuring.break_even import Crossing, Lines

STEP_OF_ONE_LINK = 4.0
LABEL_ROOM = 1.6
"""How far below the fastest time the chart begins for each label that stands at its foot."""


@dataclass(frozen=True)
class BandwidthChart:
    """What is drawn: axes, and a line of points a method."""

    x: charts.Axis
    y: charts.Axis
    lines: Mapping[str, list[tuple[float, float]]]

    def draw(
        self,
        title: str,
        size: charts.Size,
        marked: tuple[Crossing, ...] = (),
        heading: tuple[str, ...] = (),
    ) -> str:
        """The chart as SVG, with break-evens marked."""
        marks = tuple(charts.Mark(one.bandwidth_bytes, one.total_ms, _label(one)) for one in marked)
        y = charts.roomy(self.y, LABEL_ROOM ** min(len(marks), 3)) if marks else self.y
        return charts.line_chart(title, self.x, y, dict(self.lines), size, marks, heading)


def _label(one: Crossing) -> str:
    return f"{one.below} \u2192 {one.above}: {one.bandwidth_bytes / 2**20:.0f} MiB/s"


def bandwidth_chart(lines: Lines, rates: list[str]) -> BandwidthChart | None:
    """`rates` are the bandwidths as they were given. None when there are fewer than two of them."""
    limited = {name: [(float(b), t) for b, t in line if b] for name, line in lines.items()}
    limited = {name: line for name, line in limited.items() if line}
    unlimited = {name: t for name, line in lines.items() for b, t in line if not b}
    bandwidths = sorted({b for line in limited.values() for b, _ in line})
    if not bandwidths or len(bandwidths) + bool(unlimited) < 2:
        return None
    count = len(bandwidths)
    step = (bandwidths[-1] / bandwidths[0]) ** (1 / (count - 1)) if count > 1 else STEP_OF_ONE_LINK
    beyond = bandwidths[-1] * step
    for name, time in unlimited.items():
        limited.setdefault(name, []).append((beyond, time))
    title, ticks = _ticks(bandwidths, rates)
    if unlimited:
        ticks.append((beyond, "no limit"))
    times = [t for line in limited.values() for _, t in line]
    x = charts.Axis(title, tuple(ticks), bandwidths[0], ticks[-1][0], logarithmic=True)
    return BandwidthChart(x, charts.logarithmic("total ms", min(times), max(times)), limited)


def _ticks(bandwidths: list[float], rates: list[str]) -> tuple[str, list[tuple[float, str]]]:
    """The axis's title and ticks; a unit that all of them share stands in the title only."""
    named = {parse_rate(rate): rate for rate in rates}
    words = [show_rate(named[int(b)]).split() for b in bandwidths]
    units = {unit for _, unit in words}
    if len(units) == 1:
        labels = [amount for amount, _ in words]
        return f"bandwidth, {units.pop()}", list(zip(bandwidths, labels, strict=True))
    return "bandwidth", list(zip(bandwidths, map(" ".join, words), strict=True))
