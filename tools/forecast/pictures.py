"""The pictures of a forecast: total time by bandwidth, and the dirty curve."""

from __future__ import annotations

from statistics import fmean

from guestmem.page import PAGE_BYTES
from pipeline.forecast.bands import Forecast
from pipeline.forecast.situation import Guest
from tools.forecast.advice import link_words
from tools.forecast.findings import Findings
from tools.measuring import charts

DRAWN_FROM = 0.5
"""A point is drawn where this share of the draws converges."""

LABEL_ROOM = 1.6
"""How far below the fastest time the chart begins, for the label at its foot."""


def by_bandwidth(findings: Findings, size: charts.Size) -> str:
    """Total time by link and method, both logarithmic, with the 80 % bands; empty where none converges."""
    lines: dict[str, list[tuple[float, float]]] = {}
    bands: dict[str, charts.Band] = {}
    for link, row in findings.links.items():
        for one in row:
            if one.chance_to_converge >= DRAWN_FROM:
                total = one.bands["total_ms"]
                lines.setdefault(one.name, []).append((link * 8.0, total.expected / 1e3))
                bands.setdefault(one.name, []).append((link * 8.0, total.low / 1e3, total.high / 1e3))
    if not lines:
        return ""
    names = [one.name for one in next(iter(findings.links.values())) if one.name in lines]
    lines = {name: lines[name] for name in names}
    bits = [link * 8.0 for link in findings.links]
    low = min(low for band in bands.values() for _, low, _ in band)
    high = max(high for band in bands.values() for _, _, high in band)
    x = charts.logarithmic("link, bit/s", min(bits), max(bits))
    y = charts.logarithmic("total s", low, high)
    own = findings.question.plan.link_bytes_per_second
    marks: tuple[charts.Mark, ...] = ()
    if own:
        y = charts.roomy(y, LABEL_ROOM)
        marks = (_own_link(findings, own, y.low),)
    return charts.line_chart(
        "Total time by link and method", x, y, lines, size, marks, bands=bands, dots=False
    )


def _own_link(findings: Findings, link: float, foot: float) -> charts.Mark:
    """The user's link: at what is recommended, or at the foot where that does not converge."""
    at = [
        _total_seconds(one)
        for one in findings.links[round(link)]
        if one.name == findings.chosen.name and one.chance_to_converge >= DRAWN_FROM
    ]
    return charts.Mark(round(link) * 8.0, at[0] if at else foot, f"your link, {link_words(link)}")


def _total_seconds(one: Forecast) -> float:
    return one.bands["total_ms"].expected / 1e3


def dirty_curve(guest: Guest, size: charts.Size) -> str:
    """Distinct MiB that are dirty so long after a sync, with the least and the most that was seen."""
    mib = PAGE_BYTES / (1 << 20)
    points = [
        (at, fmean(pages) * mib) for at, pages in zip(guest.curve.seconds, guest.curve.pages, strict=True)
    ]
    band = [
        (at, min(pages) * mib, max(pages) * mib)
        for at, pages in zip(guest.curve.seconds, guest.curve.pages, strict=True)
    ]
    x = charts.linear("s since all was clean", points[-1][0])
    y = charts.linear("dirty MiB", max(1.0, *(high for _, _, high in band)))
    name = "dirty"
    return charts.line_chart(
        "The dirty curve", x, y, {name: [(0.0, 0.0), *points]}, size, bands={name: [(0.0, 0.0, 0.0), *band]}
    )
