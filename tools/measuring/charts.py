"""Charts as SVG text, for a page that needs no network and is read in light and dark.

Colours are classes, `s0` to `s7` for series; the page's style gives them. Text takes the page's
colour (`currentColor`).
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 16, 46


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
    """An axis over decades, with ticks at 1, 2 and 5."""
    ticks = []
    decade = 10 ** math.floor(math.log10(low))
    while decade <= high:
        ticks += [(m * decade, number(m * decade)) for m in (1, 2, 5) if low <= m * decade <= high]
        decade *= 10
    return Axis(title, tuple(ticks), low, high if high > low else low * 1.01, logarithmic=True)


def _x(axis: Axis, value: float) -> float:
    return LEFT + axis.share(value) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - axis.share(value) * (HEIGHT - TOP - BOTTOM)


def _frame(title: str, x: Axis | None, y: Axis) -> list[str]:
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}">',
        f"<title>{html.escape(title)}</title>",
    ]
    for value, label in y.ticks:
        at = _y(y, value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{label}</text>')
    middle = (HEIGHT - BOTTOM + TOP) / 2
    parts.append(
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">'
        f"{html.escape(y.title)}</text>"
    )
    if x is not None:
        for value, label in x.ticks:
            parts.append(_under(_x(x, value), label))
        parts.append(
            f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
            f"{html.escape(x.title)}</text>"
        )
    return parts


def _under(at: float, label: str) -> str:
    """A label below the x axis."""
    place = f'x="{at:.1f}" y="{HEIGHT - BOTTOM + 16}"'
    return f'<text {place} text-anchor="middle">{html.escape(label)}</text>'


def _legend(names: list[str]) -> list[str]:
    parts = []
    for index, name in enumerate(names):
        at = TOP + 12 + 18 * index
        parts.append(
            f'<rect class="s{index % 8}" x="{WIDTH - RIGHT + 12}" y="{at - 9}" width="10" height="10"/>'
        )
        parts.append(f'<text x="{WIDTH - RIGHT + 28}" y="{at}">{html.escape(name)}</text>')
    return parts


def line_chart(title: str, x: Axis, y: Axis, lines: dict[str, list[tuple[float, float]]]) -> str:
    """A line a name, with a mark at every point that was measured."""
    parts = _frame(title, x, y)
    for index, (name, points) in enumerate(lines.items()):
        at = [(_x(x, px), _y(y, py)) for px, py in sorted(points)]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in at)
        parts.append(f'<polyline class="line s{index % 8}" points="{path}"/>')
        for (px, py), (value, reading) in zip(at, sorted(points), strict=True):
            hint = html.escape(f"{name}: {number(value)}, {reading:.4g}")
            mark = f'<circle class="s{index % 8}" cx="{px:.1f}" cy="{py:.1f}" r="3.5">'
            parts.append(f"{mark}<title>{hint}</title></circle>")
    return "\n".join([*parts, *_legend(list(lines)), "</svg>"])


def bar_chart(title: str, y: Axis, bars: dict[str, list[tuple[str, float]]]) -> str:
    """Groups of bars: `bars` gives, for each series, (group, value)."""
    groups = list(dict.fromkeys(group for series in bars.values() for group, _ in series))
    parts = _frame(title, None, y)
    slot = (WIDTH - LEFT - RIGHT) / max(1, len(groups))
    width = slot * 0.8 / max(1, len(bars))
    for index, series in enumerate(bars.values()):
        for group, value in series:
            left = LEFT + slot * groups.index(group) + slot * 0.1 + width * index
            top = _y(y, value)
            place = f'x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{HEIGHT - BOTTOM - top:.1f}"'
            hint = f"{html.escape(group)}: {value:.4g}"
            parts.append(f'<rect class="s{index % 8}" {place}><title>{hint}</title></rect>')
    for position, group in enumerate(groups):
        parts.append(_under(LEFT + slot * (position + 0.5), group))
    return "\n".join([*parts, *_legend(list(bars)), "</svg>"])
