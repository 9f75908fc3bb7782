"""The colours of pages and charts, light and dark, and the style that charts are drawn in.

On a page the colours are CSS variables, so that one chart serves both themes. A chart that is a file of
its own gets the colours themselves: not every viewer of SVG knows variables.
"""

from __future__ import annotations

import re

SERIES = 8


def _theme(colours: str, series: str) -> dict[str, str]:
    named = dict(zip(("paper", "ink", "rule", "soft", "faint"), colours.split(), strict=True))
    return named | {f"c{index}": colour for index, colour in enumerate(series.split())}


LIGHT = _theme(
    "#ffffff #1b1f24 #d5dae0 #f3f5f7 #6e7781",
    "#1f6feb #d1590a #1a7f37 #8250df #bf3989 #6e7781 #9a6700 #0a7b83",
)
DARK = _theme(
    "#0d1117 #e4e7eb #30373f #1a2027 #9aa4af",
    "#6cb0ff #ff9c57 #5bd27a #b99bff #ff8ac4 #a5adb8 #e3b341 #4fd0d8",
)

CHART_STYLE = """
svg text { fill: var(--ink); font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
svg .strong { font-size: 14px; font-weight: 600; }
svg .faint { fill: var(--faint); }
.grid { stroke: var(--rule); stroke-width: 1; }
.line { stroke-width: 2; stroke-linejoin: round; }
.area { opacity: .18; }
.leader { stroke-width: 1; opacity: .5; }
.drop { stroke: var(--faint); stroke-dasharray: 2 3; }
.ring { fill: var(--paper); stroke: var(--ink); stroke-width: 1.5; }
.halo { paint-order: stroke; stroke: var(--paper); stroke-width: 4px; stroke-linejoin: round; }
.line.second { stroke-dasharray: 7 4; }
""" + "\n".join(
    f".s{i} {{ fill: var(--c{i}); }} .line.s{i}, .leader.s{i} {{ fill: none; stroke: var(--c{i}); }}\n"
    f".second.s{i} {{ fill: var(--paper); stroke: var(--c{i}); stroke-width: 1.5; }} "
    f".line.second.s{i} {{ fill: none; stroke-width: 2; }}"
    for i in range(SERIES)
)


def variables(theme: dict[str, str]) -> str:
    """A theme as declarations of CSS variables."""
    return " ".join(f"--{name}: {colour};" for name, colour in theme.items())


def standalone(svg: str, theme: dict[str, str]) -> str:
    """A chart as an SVG document of its own, in one theme, on that theme's paper."""
    style = re.sub(r"var\(--(\w+)\)", lambda found: theme[found[1]], CHART_STYLE)
    head, rest = svg.split("</title>", 1)
    head = head.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    paper = f'<rect width="100%" height="100%" fill="{theme["paper"]}"/>'
    return f"{head}</title>\n<style>{style}</style>\n{paper}{rest}\n"
