"""A comparison as one HTML page: needs no network, and is read in light and dark."""

from __future__ import annotations

import html
from typing import Any

from guestmem.units import show_rate
from tools.compare.comparison import Place, by_link, completed, doubts, winner
from tools.compare.report import (
    HEAD,
    crossings_of,
    lines_of,
    measured_at,
    places_of,
    published_text,
    row,
)
from tools.measuring import charts

LIGHT = ("#1f6feb", "#d1590a", "#1a7f37", "#8250df", "#bf3989", "#6e7781", "#9a6700", "#0a7b83")
DARK = ("#6cb0ff", "#ff9c57", "#5bd27a", "#b99bff", "#ff8ac4", "#a5adb8", "#e3b341", "#4fd0d8")
"""Colours of series, by theme."""


def _variables(colours: tuple[str, ...]) -> str:
    return " ".join(f"--c{index}: {colour};" for index, colour in enumerate(colours))


STYLE = f"""
:root {{ color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --rule: #d5dae0; --soft: #f3f5f7;
  {_variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{
  :root {{ --paper: #14171b; --ink: #e4e7eb; --rule: #3a414a; --soft: #1e2329; {_variables(DARK)} }} }}
body {{ background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.15rem; margin-top: 2rem; }} .scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; }}
th, td {{ padding: .25rem .6rem; border-bottom: 1px solid var(--rule); text-align: right;
  white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; }} th {{ background: var(--soft); }}
.answer {{ background: var(--soft); padding: .6rem 1rem; border-left: 4px solid var(--c0); }}
svg {{ width: 100%; max-width: 45rem; height: auto; }} svg text {{ fill: currentColor; font-size: 12px; }}
.grid {{ stroke: var(--rule); }} .line {{ fill: none; stroke-width: 2; }} pre {{ overflow-x: auto; }}
""" + "\n".join(
    f".s{i} {{ fill: var(--c{i}); }} .line.s{i} {{ fill: none; stroke: var(--c{i}); }}" for i in range(8)
)


def page(document: dict[str, Any], *, published: bool) -> str:
    """The page's text."""
    title, host = document["scenario"]["title"], document["host"]
    all_places = places_of(document)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{host['cpus']} CPUs, {html.escape(host['cpu_model'])}, Linux {html.escape(host['kernel'])}, "
        f"{len(host['qat_devices']) or 'no'} QAT devices; "
        f"guest of {html.escape(document['scenario']['size'])}; measured {measured_at(document)}.</p>",
        _answers(document, all_places),
        *_pictures(document, all_places),
        *_tables(all_places),
        _noise(all_places),
    ]
    if published:
        text = html.escape("\n".join(published_text(all_places)))
        parts.append(f"<section><pre>{text}</pre></section>")
    return "\n".join([*parts, "</body></html>", ""])


def _answers(document: dict[str, Any], all_places: list[Place]) -> str:
    lines = [
        f"<li>{html.escape(link.title)}: <strong>{html.escape(winner(group))}</strong></li>"
        for link, group in by_link(all_places).items()
        if len(group) > 1
    ]
    lines += [
        f"<li>{html.escape(one.words)} ({link.channels} channels, {html.escape(link.image)})</li>"
        for link, one in crossings_of(document)
    ]
    return f'<section class="answer"><h2>Which method on this link?</h2><ul>{"".join(lines)}</ul></section>'


def _pictures(document: dict[str, Any], all_places: list[Place]) -> list[str]:
    found = [*_break_even(document), *_by_channels(all_places), *_prealloc(all_places), *_rounds(all_places)]
    return [f"<section><h2>{html.escape(title)}</h2>{svg}</section>" for title, svg in found]


def _break_even(document: dict[str, Any]) -> list[tuple[str, str]]:
    found = []
    for link, lines in lines_of(document).items():
        limited = {name: [(float(b), t) for b, t in line if b] for name, line in lines.items()}
        limited = {name: line for name, line in limited.items() if line}
        unlimited = {name: t for name, line in lines.items() for b, t in line if not b}
        bandwidths = sorted({b for line in limited.values() for b, _ in line})
        if not bandwidths or len(bandwidths) + bool(unlimited) < 2:
            continue
        # Without a limit stands one step right of the fastest link.
        step = (bandwidths[-1] / bandwidths[0]) ** (1 / (len(bandwidths) - 1)) if bandwidths[1:] else 4.0
        beyond = bandwidths[-1] * step
        for name, time in unlimited.items():
            limited.setdefault(name, []).append((beyond, time))
        times = [t for line in limited.values() for _, t in line]
        words = {place.point.bandwidth_bytes: place.point.bandwidth for place in places_of(document)}
        ticks = [(b, show_rate(words[int(b)])) for b in bandwidths]
        if unlimited:
            ticks.append((beyond, "no limit"))
        x = charts.Axis("bandwidth", tuple(ticks), bandwidths[0], ticks[-1][0], logarithmic=True)
        y = charts.logarithmic("total ms", min(times), max(times))
        title = f"Total time by bandwidth: {link.channels} channels, {link.image}"
        found.append((title, charts.line_chart(title, x, y, limited)))
    return found


def _by_channels(all_places: list[Place]) -> list[tuple[str, str]]:
    counts = sorted({place.point.channels for place in all_places})
    if len(counts) < 2:
        return []
    ended = [place for place in all_places if completed(place)]
    fastest = max(ended, key=lambda place: place.point.bandwidth_bytes or 10**15).point
    chosen = [
        place
        for place in ended
        if (place.point.bandwidth, place.point.prealloc, place.point.dirty_rate, place.point.image)
        == (fastest.bandwidth, fastest.prealloc, fastest.dirty_rate, fastest.image)
    ]
    found = []
    for title, unit in (("Time by channels", "total ms"), ("CPU of both sides by channels", "CPU s")):
        lines: dict[str, list[tuple[float, float]]] = {}
        for place in chosen:
            value = place.total_ms if unit == "total ms" else place.cpu_seconds
            lines.setdefault(place.method_name, []).append((float(place.point.channels), value.median))
        x = charts.Axis("channels", tuple((float(n), str(n)) for n in counts), counts[0], counts[-1], True)
        y = charts.linear(unit, max(value for line in lines.values() for _, value in line))
        found.append((title, charts.line_chart(title, x, y, lines)))
    return found


def _prealloc(all_places: list[Place]) -> list[tuple[str, str]]:
    lazy = {_but_prealloc(p): p for p in all_places if not p.point.prealloc and completed(p)}
    both = [(p, lazy[_but_prealloc(p)]) for p in all_places if p.point.prealloc and _but_prealloc(p) in lazy]
    if not both:
        return []
    pairs = both[:8]
    bars = {
        "prealloc": [(with_.method_name, with_.total_ms.median) for with_, _ in pairs],
        "no prealloc": [(with_.method_name, without.total_ms.median) for with_, without in pairs],
    }
    y = charts.linear("total ms", max(value for series in bars.values() for _, value in series))
    return [("What prealloc buys", charts.bar_chart("What prealloc buys", y, bars))]


def _but_prealloc(place: Place) -> tuple[Any, ...]:
    p = place.point
    return p.method, p.level, p.channels, p.bandwidth, p.dirty_rate, p.image


def _rounds(all_places: list[Place]) -> list[tuple[str, str]]:
    """The run with the most rounds: pages of each, over time."""
    results = [result for place in all_places for result in place.results]
    longest = max(results, key=lambda result: len(result["rounds"]), default=None)
    if longest is None or len(longest["rounds"]) < 2:
        return []
    at, sent, dirty = 0.0, [], []
    for one in longest["rounds"]:
        sent.append((at, float(one["pages"])))
        at += one["duration_ms"]
        dirty.append((at, float(one["dirty_pages"] or 0)))
    x = charts.linear("ms since the first packet", at)
    y = charts.linear("pages", max(value for _, value in [*sent, *dirty]))
    method = longest["options"]["method"]
    title = f"Rounds over time: {method}, {len(longest['rounds'])} rounds"
    lines = {"pages to send": sent, "dirty at its end": dirty}
    return [(title, charts.line_chart(title, x, y, lines))]


def _tables(all_places: list[Place]) -> list[str]:
    parts = []
    head = "".join(f"<th>{html.escape(name)}</th>" for name in HEAD)
    for link, group in by_link(all_places).items():
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row(place)) + "</tr>"
            for place in group
        )
        grid = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        title = html.escape(link.title)
        parts.append(f'<section><h2>{title}</h2><div class="scroll">{grid}</div></section>')
    return parts


def _noise(all_places: list[Place]) -> str:
    found = doubts(all_places) or ["Enough repetitions, and every spread is below 10 %."]
    items = "".join(f"<li>{html.escape(one)}</li>" for one in found)
    return f"<section><h2>Noise</h2><ul>{items}</ul></section>"
