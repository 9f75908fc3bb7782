"""Charts as SVG text that needs no network; `theme` has their colours, and makes files of them.

Series are the classes `s0` to `s7`; from the ninth on the colours come again, with dashed lines.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from tools.measuring.theme import SERIES

TOP = 16
LABEL_HEIGHT = 17
LETTER_WIDTH = 7.2
"""About the mean width of a letter at 12 pixels in a wide font: labels are laid out by it."""


@dataclass(frozen=True)
class Size:
    """The pixels of a chart; the legend stands to its right, or below it."""

    width: int
    height: int
    legend_below: bool = False


WIDE = Size(720, 360)
NARROW = Size(360, 320, legend_below=True)


@dataclass(frozen=True)
class Axis:
    """What stands at an axis. `ticks` are (value, label)."""

    title: str
    ticks: tuple[tuple[float, str], ...]
    low: float
    high: float
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Where a value lies, 0 to 1."""
        if self.logarithmic:
            low, high, value = math.log(self.low), math.log(self.high), math.log(value)
        else:
            low, high = self.low, self.high
        return (value - low) / (high - low) if high > low else 0.5


@dataclass(frozen=True)
class Mark:
    """A point to be pointed at: a ring, and a label at the foot of a dotted line."""

    x: float
    y: float
    label: str


@dataclass(frozen=True)
class Plot:
    """The rectangle that the axes span, in pixels."""

    left: float
    right: float
    top: float
    bottom: float

    def x(self, axis: Axis, value: float) -> float:
        """From the left edge of the chart."""
        return self.left + axis.share(value) * (self.right - self.left)

    def y(self, axis: Axis, value: float) -> float:
        """From the top edge of the chart."""
        return self.bottom - axis.share(value) * (self.bottom - self.top)


def number(value: float) -> str:
    """A tick's label: 1500000 is 1.5M."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:g}"


def linear(title: str, high: float) -> Axis:
    """An axis from 0 with round steps."""
    step = 10 ** math.floor(math.log10(high)) if high > 0 else 1.0
    for divisor in (1, 2, 5, 10):
        if high / (step / divisor) >= 4:
            step /= divisor
            break
    count = math.ceil(high / step - 1e-9) if high > 0 else 1
    ticks = tuple((step * i, number(step * i)) for i in range(count + 1))
    return Axis(title, ticks, 0.0, step * count)


def logarithmic(title: str, low: float, high: float) -> Axis:
    """An axis over decades, with ticks at 1, 2 and 5, and a little room at both ends."""
    low, high = low / 1.15, max(high, low * 1.01) * 1.15
    ticks = []
    decade = 10 ** math.floor(math.log10(low))
    while decade <= high:
        ticks += [(m * decade, number(m * decade)) for m in (1, 2, 5) if low <= m * decade <= high]
        decade *= 10
    return Axis(title, tuple(ticks), low, high, logarithmic=True)


def _width(text: str) -> float:
    return LETTER_WIDTH * len(text)


def _text(x: float, y: float, text: str, anchor: str = "start", names: str = "") -> str:
    named = f' class="{names}"' if names else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def _series(index: int) -> str:
    """The classes of a series."""
    return f"s{index % SERIES}" + (" second" if index >= SERIES else "")


def _document(title: str, width: float, height: float, parts: list[str]) -> str:
    opening = f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{html.escape(title)}">'
    return "\n".join([opening, f"<title>{html.escape(title)}</title>", *parts, "</svg>"])


def _thinned(axis: Axis, plot: Plot) -> list[tuple[float, str]]:
    """The ticks of an x axis, (pixels, label): every one, or every second and so on, so that none overlap.

    A linear axis keeps its 0. Another one keeps its last tick, which may be "no limit".
    """
    ticks = [(plot.x(axis, value), label) for value, label in axis.ticks]
    for stride in range(1, len(ticks)):
        kept = ticks[::-1][::stride][::-1] if axis.logarithmic else ticks[::stride]
        if all(right[0] - left[0] > (_width(left[1] + right[1])) / 2 + 6 for left, right in pairwise(kept)):
            return kept
    return ticks[-1:]


def _frame(x: Axis, y: Axis, plot: Plot) -> list[str]:
    """The grid and both axes' labels."""
    parts = []
    for value, label in y.ticks:
        at = plot.y(y, value)
        parts.append(f'<path class="grid" d="M{plot.left:.1f} {at:.1f}H{plot.right:.1f}"/>')
        parts.append(_text(plot.left - 8, at + 4, label, "end"))
    for value, _ in x.ticks:
        at = plot.x(x, value)
        parts.append(f'<path class="grid" d="M{at:.1f} {plot.bottom:.1f}v5"/>')
    middle = (plot.top + plot.bottom) / 2
    turned = f'transform="rotate(-90 14 {middle:.1f})"'
    parts.append(f'<text x="14" y="{middle:.1f}" text-anchor="middle" {turned}>{html.escape(y.title)}</text>')
    parts += [_text(at, plot.bottom + 19, label, "middle") for at, label in _thinned(x, plot)]
    parts.append(_text((plot.left + plot.right) / 2, plot.bottom + 38, x.title, "middle"))
    return parts


def _apart(wanted: list[float], low: float, high: float) -> list[float]:
    """Heights near those that are wanted, and at least a label apart, between two limits."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    at = list(wanted)
    above = low - LABEL_HEIGHT
    for index in order:
        above = at[index] = max(at[index], above + LABEL_HEIGHT)
    below = high + LABEL_HEIGHT
    for index in reversed(order):
        below = at[index] = min(at[index], below - LABEL_HEIGHT)
    return at


def _names_beside(names: list[str], ends: list[tuple[float, float]], plot: Plot) -> list[str]:
    """Each line's name to the right of the plot, at the height at which the line ends."""
    parts = []
    heights = _apart([y for _, y in ends], plot.top, plot.bottom)
    for index, (name, (x, y), at) in enumerate(zip(names, ends, heights, strict=True)):
        swatch = plot.right + 22
        if x >= plot.right - 1:
            leader = f"M{x + 5:.1f} {y:.1f}L{swatch - 4:.1f} {at:.1f}"
            parts.append(f'<path class="leader s{index % SERIES}" d="{leader}"/>')
        parts.append(_swatch(index, swatch, at))
        parts.append(_text(swatch + 16, at + 4, name))
    return parts


def _swatch(index: int, x: float, y: float) -> str:
    return f'<rect class="{_series(index)}" x="{x:.1f}" y="{y - 5:.1f}" width="10" height="10"/>'


def _legend_rows(names: list[str], width: float) -> list[list[int]]:
    """The numbers of the names that fit into each row of a legend."""
    rows: list[list[int]] = []
    used = width
    for index, name in enumerate(names):
        needed = 30 + _width(name)
        if used + needed > width:
            rows.append([])
            used = 0
        rows[-1].append(index)
        used += needed
    return rows


def _legend(names: list[str], left: float, top: float, width: float) -> list[str]:
    parts = []
    for number_of_row, row in enumerate(_legend_rows(names, width)):
        at, x = top + LABEL_HEIGHT * number_of_row, left
        for index in row:
            parts += [_swatch(index, x, at), _text(x + 15, at + 4, names[index])]
            x += 30 + _width(names[index])
    return parts


def _marks(marks: list[Mark], x: Axis, y: Axis, plot: Plot) -> list[str]:
    """Rings with dotted lines down, and their labels left of the lines' feet, above each other."""
    parts: list[str] = []
    labels: list[str] = []
    taken: dict[int, float] = {}
    for mark in sorted(marks, key=lambda mark: mark.x):
        at, height = plot.x(x, mark.x), plot.y(y, mark.y)
        left = at - 6 - _width(mark.label)
        beside = left >= plot.left
        begin = left if beside else at + 6
        level = next(n for n in range(len(marks)) if taken.get(n, begin) <= begin)
        taken[level] = at if beside else begin + _width(mark.label)
        end, anchor = (at - 6, "end") if beside else (begin, "start")
        labels.append(_text(end, plot.bottom - 8 - LABEL_HEIGHT * level, mark.label, anchor, "halo"))
        parts.append(f'<path class="drop" d="M{at:.1f} {height:.1f}V{plot.bottom:.1f}"/>')
        parts.append(f'<circle class="ring" cx="{at:.1f}" cy="{height:.1f}" r="5"/>')
    return [*parts, *labels]


Band = list[tuple[float, float, float]]
"""(x, low, high), in the order of x."""


def _area(index: int, band: Band, x: Axis, y: Axis, plot: Plot) -> str:
    """A band as a shaded area behind its line."""
    upper = [(plot.x(x, at), plot.y(y, high)) for at, _, high in band]
    lower = [(plot.x(x, at), plot.y(y, low)) for at, low, _ in reversed(band)]
    corners = " ".join(f"{px:.1f},{py:.1f}" for px, py in (*upper, *lower))
    return f'<polygon class="area s{index % SERIES}" points="{corners}"/>'


def line_chart(
    title: str,
    x: Axis,
    y: Axis,
    lines: dict[str, list[tuple[float, float]]],
    size: Size = WIDE,
    marks: tuple[Mark, ...] = (),
    heading: tuple[str, ...] = (),
    bands: Mapping[str, Band] | None = None,
    *,
    dots: bool = True,
) -> str:
    """A line a name, with a dot at every point that was measured unless there are no `dots`, and a shaded
    band about it where `bands` has one; lines of a heading above, if any."""
    names = list(lines)
    left = 30 + max(_width(label) for _, label in y.ticks or ((0, ""),))
    last_tick = _width(x.ticks[-1][1]) / 2 + 4
    legend = 46 + max(map(_width, names), default=0.0)
    right = size.width - max(last_tick, 8 if size.legend_below else legend)
    top = TOP + (LABEL_HEIGHT * len(heading) + 10 if heading else 0)
    height = top - TOP + max(size.height, 0 if size.legend_below else TOP + 50 + LABEL_HEIGHT * len(names))
    plot = Plot(left, right, top, height - 50)
    drawn, ends = [], []
    shaded = [(n, bands[name]) for n, name in enumerate(names) if bands and len(bands.get(name, ())) > 1]
    drawn += [_area(n, band, x, y, plot) for n, band in shaded]
    for index, (name, points) in enumerate(lines.items()):
        at = [(plot.x(x, px), plot.y(y, py)) for px, py in sorted(points)]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in at)
        drawn.append(f'<polyline class="line {_series(index)}" points="{path}"/>')
        for (px, py), (value, reading) in zip(at, sorted(points), strict=True) if dots else ():
            hint = html.escape(f"{name}: {number(value)}, {reading:.4g}")
            dot = f'<circle class="{_series(index)}" cx="{px:.1f}" cy="{py:.1f}" r="3.5">'
            drawn.append(f"{dot}<title>{hint}</title></circle>")
        ends.append(at[-1])
    above = [
        _text(12, 22 + LABEL_HEIGHT * row, text, names="faint" if row else "strong")
        for row, text in enumerate(heading)
    ]
    parts = [*above, *_frame(x, y, plot), *drawn, *_marks(list(marks), x, y, plot)]
    if not size.legend_below:
        return _document(title, size.width, height, [*parts, *_names_beside(names, ends, plot)])
    parts += _legend(names, 8, height + 8, size.width - 8)
    rows = len(_legend_rows(names, size.width - 8))
    return _document(title, size.width, height + LABEL_HEIGHT * rows + 4, parts)


BAR_HEIGHT = 14


def bar_chart(title: str, axis: Axis, bars: dict[str, list[tuple[str, float]]], size: Size = WIDE) -> str:
    """Groups of horizontal bars, a group's name beside them: `bars` gives (group, value) by series."""
    groups = list(dict.fromkeys(group for series in bars.values() for group, _ in series))
    names = list(bars)
    slot = BAR_HEIGHT * len(bars) + 12
    top = TOP + LABEL_HEIGHT * len(_legend_rows(names, size.width - 8))
    left = 16 + max(_width(group) for group in groups)
    plot = Plot(left, size.width - 56, top, top + slot * len(groups))
    parts = _legend(names, left, TOP, size.width - left)
    for at, label in _thinned(axis, plot):
        parts.append(f'<path class="grid" d="M{at:.1f} {plot.top:.1f}V{plot.bottom:.1f}"/>')
        parts.append(_text(at, plot.bottom + 19, label, "middle"))
    for index, series in enumerate(bars.values()):
        for group, value in series:
            y = plot.top + slot * groups.index(group) + 6 + BAR_HEIGHT * index
            place = f'x="{left:.1f}" y="{y:.1f}" width="{plot.x(axis, value) - left:.1f}"'
            bar = f'<rect class="{_series(index)}" {place} height="{BAR_HEIGHT - 2}">'
            parts.append(f"{bar}<title>{html.escape(group)}: {value:.4g}</title></rect>")
            parts.append(_text(plot.x(axis, value) + 5, y + 10, f"{value:.0f}", names="halo"))
    for position, group in enumerate(groups):
        parts.append(_text(left - 8, plot.top + slot * (position + 0.5) + 4, group, "end"))
    parts.append(_text((plot.left + plot.right) / 2, plot.bottom + 38, axis.title, "middle"))
    return _document(title, size.width, plot.bottom + 48, parts)


def roomy(axis: Axis, factor: float) -> Axis:
    """A logarithmic axis that begins lower by a factor: room for labels below the lines."""
    return replace(axis, low=axis.low / factor)
