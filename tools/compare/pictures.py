"""The pictures of a comparison, each drawn twice: for a wide window and for a narrow one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from tools.compare.comparison import Place, completed, has_figures, link_of
from tools.compare.report import lines_of, places_of
from tools.measuring import charts
from tools.measuring.bandwidth_chart import bandwidth_chart

Picture = tuple[str, Callable[[charts.Size], str]]
"""A title, and what draws the picture in a size."""

MOST_BARS = 24
BY_BANDWIDTH = "Total time by bandwidth"


def pictures(document: dict[str, Any]) -> list[Picture]:
    """Every picture that these points give."""
    all_places = places_of(document)
    return [
        *_by_bandwidth(document),
        *_by_channels(all_places),
        *_prealloc(all_places),
        *_rounds(all_places),
    ]


def thinned(drawn: list[Picture], most: int) -> list[Picture]:
    """At most so many pictures: the last ones, which there is one of each, and of the others evenly many."""
    if len(drawn) <= most:
        return drawn
    singles = [one for one in drawn if not one[0].startswith(BY_BANDWIDTH)]
    many = [one for one in drawn if one[0].startswith(BY_BANDWIDTH)]
    count = most - len(singles)
    return [*(many[index * len(many) // count] for index in range(count)), *singles]


Lines = dict[str, list[tuple[float, float]]]


def _lines(title: str, x: charts.Axis, y: charts.Axis, lines: Lines) -> Picture:
    return title, lambda size: charts.line_chart(title, x, y, lines, size)


def _by_bandwidth(document: dict[str, Any]) -> list[Picture]:
    rates = list(dict.fromkeys(place.point.bandwidth for place in places_of(document)))
    found: list[Picture] = []
    for link, lines in lines_of(document).items():
        chart = bandwidth_chart(lines, rates)
        if chart is not None:
            title = f"{BY_BANDWIDTH}: {link.short_title}"
            found.append((title, partial(chart.draw, title)))
    return found


def _by_channels(all_places: list[Place]) -> list[Picture]:
    counts = sorted({place.point.channels for place in all_places})
    ended = [place for place in all_places if completed(place)]
    if len(counts) < 2 or not ended:
        return []
    fastest = max(ended, key=lambda place: place.point.bandwidth_bytes or 10**15).point
    chosen = [
        place
        for place in ended
        if replace(link_of(place.point), channels=0) == replace(link_of(fastest), channels=0)
    ]
    found = []
    for title, unit in (("Time by channels", "total ms"), ("CPU of both sides by channels", "CPU s")):
        lines: Lines = {}
        for place in chosen:
            value = place.total_ms if unit == "total ms" else place.cpu_seconds
            lines.setdefault(place.method_name, []).append((float(place.point.channels), value.median))
        lines = {name: line for name, line in lines.items() if len(line) > 1}
        if not lines:
            continue
        x = charts.Axis("channels", tuple((float(n), str(n)) for n in counts), counts[0], counts[-1], True)
        y = charts.linear(unit, max(value for line in lines.values() for _, value in line))
        found.append(_lines(title, x, y, lines))
    return found


def _prealloc(all_places: list[Place]) -> list[Picture]:
    lazy = {_but_prealloc(p): p for p in all_places if not p.point.prealloc and completed(p)}
    both = [(p, lazy[_but_prealloc(p)]) for p in all_places if p.point.prealloc and _but_prealloc(p) in lazy]
    if not both:
        return []
    pairs = both[:MOST_BARS]
    names = _names_apart([with_ for with_, _ in pairs])
    bars = {
        "prealloc": [(name, p.total_ms.median) for name, (p, _) in zip(names, pairs, strict=True)],
        "no prealloc": [(name, p.total_ms.median) for name, (_, p) in zip(names, pairs, strict=True)],
    }
    axis = charts.linear("total ms", max(value for series in bars.values() for _, value in series))
    title = "What prealloc buys"
    return [(title, lambda size: charts.bar_chart(title, axis, bars, size))]


def _but_prealloc(place: Place) -> tuple[Any, ...]:
    p = place.point
    return p.method_name, replace(link_of(p), prealloc=True)


def _names_apart(places: list[Place]) -> list[str]:
    """Each place's method, with what else they differ in."""
    keys: list[Callable[[Place], str]] = [
        lambda place: place.method_name,
        lambda place: f"{place.point.channels} ch",
        lambda place: place.point.bandwidth if place.point.bandwidth != "0" else "no limit",
        lambda place: f"writes {place.point.dirty_rate}",
        lambda place: place.point.image.rpartition("/")[2],
        lambda place: place.point.hosts_words,
    ]
    told = [key for number, key in enumerate(keys) if not number or len(set(map(key, places))) > 1]
    return [", ".join(key(place) for key in told) for place in places]


def _rounds(all_places: list[Place]) -> list[Picture]:
    """The run with the most rounds: the pages left to send at its start and after each round."""
    results = [result for place in all_places for result in place.results if has_figures(result)]
    longest = max(results, key=lambda result: len(result["rounds"]), default=None)
    if longest is None or len(longest["rounds"]) < 2:
        return []
    at = 0.0
    left = [(at, float(longest["rounds"][0]["pages"]))]
    for one in longest["rounds"]:
        at += one["duration_ms"]
        left.append((at, float(one["dirty_pages"] or 0)))
    x = charts.linear("ms since the first packet", at)
    y = charts.linear("pages", max(value for _, value in left))
    method = longest["options"]["method"]
    title = f"Rounds over time: {method}, {len(longest['rounds'])} rounds"
    return [_lines(title, x, y, {"left to send": left})]
