"""A plan as one HTML page that needs no network: figures, a Gantt picture, the links' use, tables."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from tools.evacuate.timeline import seconds_text
from tools.measuring.theme import DARK, LIGHT, SERIES, variables

WIDTH, LEFT, RIGHT = 1100, 150, 14
LANE, THIN_LANE, GAP = 16, 5, 8
MANY_BARS = 400
"""From so many migrations on bars are thin and have no names."""

LINK_HEIGHT, MOST_LINKS, MOST_TABLE_ROWS = 44, 12, 500
TICKS = 8

STYLE = f"""
:root {{ color-scheme: light dark; {variables(LIGHT)} --stop: #c40c28; }}
@media (prefers-color-scheme: dark) {{ :root {{ {variables(DARK)} --stop: #ff6b7d; }} }}
* {{ box-sizing: border-box; }}
body {{ background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; max-width: 74rem;
  margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }}
h1 {{ font-size: 1.5rem; line-height: 1.25; }} h2 {{ font-size: 1.15rem; margin: 2rem 0 .5rem; }}
.figures {{ display: flex; flex-wrap: wrap; gap: .5rem 2rem; background: var(--soft);
  border-left: 4px solid var(--c0); padding: .7rem 1rem; }}
.figures b {{ display: block; font-size: 1.2rem; }} .figures span {{ color: var(--faint); font-size: 13px; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }}
th, td {{ padding: .25rem .55rem; border-bottom: 1px solid var(--rule); text-align: right;
  white-space: nowrap; }}
th {{ background: var(--soft); }} th:first-child, td:first-child, .words {{ text-align: left; }}
svg {{ display: block; width: 100%; min-width: 46rem; height: auto; }}
svg text {{ fill: var(--ink); font: 11px system-ui, sans-serif; }} svg .faint {{ fill: var(--faint); }}
svg .inside {{ fill: var(--paper); }} .grid {{ stroke: var(--rule); }} .full {{ stroke: var(--faint);
  stroke-dasharray: 2 3; }} .stop {{ fill: var(--stop); }} .use {{ fill: var(--c0); opacity: .55; }}
.key i {{ display: inline-block; width: .9em; height: .9em; margin: 0 .35em -.1em 1em; }}
""" + "\n".join(f".m{at} {{ fill: var(--c{at}); background: var(--c{at}); }}" for at in range(SERIES))


def page(document: dict[str, Any]) -> str:
    """The page as HTML."""
    title = html.escape(document["title"])
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>"
    )
    parts = [head, _figures(document)]
    if document["migrations"]:
        parts += ["<h2>Who moves when</h2>", _key(document), _scroll(_gantt(document))]
        parts += ["<h2>What the links carry</h2>", _scroll(_links(document))]
    parts += ["<h2>Beside other schedules</h2>", _scroll(_schedules(document))]
    if "execution" in document:
        parts += ["<h2>Carried out</h2>", _scroll(_carried(document["execution"]))]
    parts += ["<h2>Every migration</h2>", _scroll(_migrations(document)), "</body></html>", ""]
    return "\n".join(parts)


def _scroll(inner: str) -> str:
    return f'<div class="scroll">{inner}</div>'


def _figures(document: dict[str, Any]) -> str:
    found = [
        (seconds_text(document["total_seconds"]), "total time"),
        (f"{document['distance_to_bound']:.1%}", f"above what no plan can beat: {document['bound']['by']}"),
        (seconds_text(document["sum_seconds"]), "sum of all migrations"),
        (f"{document['cpu_hours']:.3g}", "CPU-hours of both sides"),
        (f"{document['wire_bytes'] / 1e9:.3g} GB", "on the wire"),
    ]
    if document["chance_to_keep_deadline"] is not None:
        deadline = seconds_text(document["deadline_seconds"])
        found.append((f"{document['chance_to_keep_deadline']:.1%}", f"chance to be through in {deadline}"))
    if document["left"]:
        found.append((str(len(document["left"])), "VMs that do not converge"))
    boxes = (f"<div><b>{html.escape(big)}</b><span>{html.escape(small)}</span></div>" for big, small in found)
    return f'<div class="figures">{"".join(boxes)}</div>'


def _methods(document: dict[str, Any]) -> list[str]:
    return sorted({_method(one) for one in document["migrations"]})


def _method(one: dict[str, Any]) -> str:
    return str(one["method"]) if one["level"] is None else f"{one['method']} {one['level']}"


def _key(document: dict[str, Any]) -> str:
    items = "".join(
        f'<i class="m{at % SERIES}"></i>{html.escape(name)}' for at, name in enumerate(_methods(document))
    )
    return (
        f'<p class="key">{items}<i style="background:var(--stop)"></i>the guest stands still '
        "(drawn two pixels wide at least)</p>"
    )


class _Scale:
    def __init__(self, seconds: float) -> None:
        self._a_second = (WIDTH - LEFT - RIGHT) / (seconds or 1.0)
        self._seconds = seconds

    def x(self, seconds: float) -> float:
        return LEFT + seconds * self._a_second

    def grid(self, height: float) -> list[str]:
        """Lines and their times."""
        lines = []
        for tick in range(TICKS + 1):
            at = self._seconds * tick / TICKS
            x = self.x(at)
            anchor = "end" if tick == TICKS else "middle"
            lines.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="16" y2="{height}"/>')
            lines.append(
                f'<text class="faint" x="{x:.1f}" y="11" text-anchor="{anchor}">{seconds_text(at)}</text>'
            )
        return lines


def _gantt(document: dict[str, Any]) -> str:
    """A block a host that is emptied, and in it as many lanes as it has migrations at once."""
    migrations = document["migrations"]
    scale, many = _Scale(document["total_seconds"]), len(migrations) > MANY_BARS
    lane = THIN_LANE if many else LANE
    colours = {name: at % SERIES for at, name in enumerate(_methods(document))}
    y, parts = 22.0, []
    for host in dict.fromkeys(one["from"] for one in migrations):
        rows = [one for one in migrations if one["from"] == host]
        lanes = _lanes(rows)
        height = max(lane * (max(lanes) + 1), 12)
        parts.append(f'<text x="0" y="{y + 10:.1f}">{html.escape(_cut(host, 22))}</text>')
        for one, number in zip(rows, lanes, strict=True):
            parts += _bar(one, scale, y + number * lane, lane, colours[_method(one)], named=not many)
        y += height + GAP
        parts.append(
            f'<line class="grid" x1="0" x2="{WIDTH}" y1="{y - GAP / 2:.1f}" y2="{y - GAP / 2:.1f}"/>'
        )
    return _svg(y, [*scale.grid(y), *parts], "Migrations over time, a row a host that is emptied")


def _lanes(rows: Sequence[dict[str, Any]]) -> list[int]:
    """The first lane that is free, for each in order of its start."""
    ends: list[float] = []
    found = []
    for one in rows:
        lane = next(
            (at for at, end in enumerate(ends) if end <= one["start_seconds"] * (1 + 1e-5)), len(ends)
        )
        ends[lane:] = [one["end_seconds"], *ends[lane + 1 :]]
        found.append(lane)
    return found


def _bar(one: dict[str, Any], scale: _Scale, y: float, lane: int, colour: int, *, named: bool) -> list[str]:
    first, last = scale.x(one["start_seconds"]), scale.x(one["end_seconds"])
    width = max(last - first - 0.5, 1.0)
    said = (
        f"{one['vm']}: {one['from']} to {one['to']}, {one['start_seconds']:.1f} to "
        f"{one['end_seconds']:.1f} s, {_method(one)}, "
        f"{one['channels']} channels, downtime {one['downtime_ms']:.0f} ms"
    )
    stopped = scale.x(one["downtime_start_seconds"])
    long = max(scale.x(one["downtime_start_seconds"] + one["downtime_ms"] / 1e3) - stopped, 2.0)
    stopped = min(stopped, first + width - long) if width > long else first
    parts = [
        f'<g><title>{html.escape(said)}</title><rect class="m{colour}" x="{first:.1f}" y="{y:.1f}" '
        f'width="{width:.1f}" height="{lane - 2}" rx="1.5"/>'
        f'<rect class="stop" x="{stopped:.1f}" y="{y:.1f}" width="{long:.1f}" height="{lane - 2}"/>'
    ]
    label = f"{one['vm']} → {one['to']}"
    room = int((width - 8) / 6.2)
    if named and room >= min(len(one["vm"]), 4):
        parts.append(
            f'<text class="inside" x="{first + 3:.1f}" y="{y + lane - 5:.1f}">'
            f"{html.escape(_cut(label, room))}</text>"
        )
    return [*parts, "</g>"]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: max(1, most - 1)] + "…"


def _links(document: dict[str, Any]) -> str:
    """The fullest ones, as areas; the dashed line is what the link carries."""
    scale = _Scale(document["total_seconds"])
    full = sorted(document["links"], key=lambda one: -_mean(one["use"], document["total_seconds"]))
    y, parts = 24.0, []
    for link in full[:MOST_LINKS]:
        base = y + LINK_HEIGHT - 8
        mean = _mean(link["use"], document["total_seconds"])
        words = html.escape(_cut(f"{link['name']} {link['direction']}", 24))
        parts.append(f'<text x="0" y="{y + 14:.1f}">{words}</text>')
        rate = f"{link['bytes_per_second'] * 8 / 1e9:.3g} Gbit/s, {mean:.0%} full"
        parts.append(f'<text class="faint" x="0" y="{y + 28:.1f}">{rate}</text>')
        parts.append(f'<line class="full" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        points = [f"{LEFT},{base:.1f}"]
        before = 0.0
        for at, share in link["use"]:
            x = scale.x(at)
            points += [
                f"{x:.1f},{base - before * (base - y):.1f}",
                f"{x:.1f},{base - share * (base - y):.1f}",
            ]
            before = share
        end = scale.x(document["total_seconds"])
        points += [f"{end:.1f},{base - before * (base - y):.1f}", f"{end:.1f},{base:.1f}"]
        parts.append(f'<polygon class="use" points="{" ".join(points)}"/>')
        y += LINK_HEIGHT
    left = len(full) - MOST_LINKS
    if left > 0:
        parts.append(f'<text class="faint" x="0" y="{y + 10:.1f}">and {left} that are less full</text>')
        y += 16
    return _svg(y, [*scale.grid(y), *parts], "What links carry over time")


def _mean(use: Sequence[Sequence[float]], total: float) -> float:
    ends = [*(at for at, _ in use[1:]), total]
    return (
        sum(share * (end - at) for (at, share), end in zip(use, ends, strict=True)) / total if total else 0.0
    )


def _svg(height: float, parts: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img"><title>{title}</title>'
        + "".join(parts)
        + "</svg>"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th>{html.escape(one)}</th>" for one in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(one)}</td>" for one in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def _schedules(document: dict[str, Any]) -> str:
    rows = []
    for name, one in {"this plan": document, **document["baselines"]}.items():
        left = one["left"] if isinstance(one["left"], int) else len(one["left"])
        sums = seconds_text(one["sum_seconds"])
        above = f"{one['distance_to_bound']:.1%}"
        rows.append(
            (name, seconds_text(one["total_seconds"]), above, sums, f"{one['cpu_hours']:.3g}", str(left))
        )
    head = ("schedule", "total", "above the bound", "sum of migrations", "CPU-hours", "VMs left")
    return _table(head, rows)


def _migrations(document: dict[str, Any]) -> str:
    rows = [
        (
            *(one["vm"], f"{one['from']} → {one['to']}", f"{one['start_seconds']:.1f}"),
            *(f"{one['end_seconds']:.1f}", _method(one), str(one["channels"])),
            *(f"{one['downtime_ms']:.0f}", f"{one['wire_bytes'] / 1e6:.0f}"),
        )
        for one in document["migrations"][:MOST_TABLE_ROWS]
    ]
    head = ("VM", "way", "start s", "end s", "method", "channels", "downtime ms", "wire MB")
    more = len(document["migrations"]) - MOST_TABLE_ROWS
    return _table(head, rows) + (f"<p>and {more} more, which --json has</p>" if more > 0 else "")


def _carried(score: dict[str, Any]) -> str:
    rows = [
        (
            *(one["vm"], one["to"], one["status"], f"{one['planned_seconds']:.1f}", f"{one['seconds']:.1f}"),
            "" if one["error"] is None else f"{one['error']:+.1%}",
        )
        for one in score["migrations"]
    ]
    total = f"{score['total_seconds']:.1f} s, planned {score['planned_total_seconds']:.1f} s"
    return f"<p>{total}</p>" + _table(("VM", "to", "", "planned s", "took s", "error"), rows)
