"""A forecast as one HTML page."""

from __future__ import annotations

import html
from functools import partial

from pipeline.forecast.bands import Forecast
from tools.forecast.advice import rows
from tools.forecast.findings import Findings
from tools.forecast.pictures import by_bandwidth, dirty_curve
from tools.measuring.charts import WIDE, Size
from tools.measuring.page import closed, items, opening, picture, table

SMALL_HEIGHT = 220
HOW_SURE = (
    "Bands hold 80 % of the draws; what a guest does that it did not do while it was looked at is in none. "
    "How far forecasts were off so far: docs/forecast.md."
)


def page(findings: Findings) -> str:
    """The page as HTML. Nothing of what came from outside is taken for HTML."""
    parts = [
        opening("What a migration of this guest will take"),
        f"<p>{html.escape(findings.asked)}</p>",
        _answer(findings),
        _time_by_link(findings),
        f"<section><h2>By method and channels</h2>{table(rows(findings.found))}</section>",
        picture("The dirty curve", lambda size: dirty_curve(findings.seen.guest, _lower(size))),
        _look(findings),
        _typed(findings),
    ]
    return closed(parts)


def _lower(size: Size) -> Size:
    return Size(size.width, SMALL_HEIGHT, size.legend_below)


def _answer(findings: Findings) -> str:
    chosen = findings.chosen
    facts = [html.escape(fact) for fact in _facts(chosen)] if chosen.chance_to_converge else []
    return (
        f'<section class="answer"><h2>{html.escape(findings.recommendation)}</h2>{items(facts)}'
        f"<p>{html.escape(HOW_SURE)}</p></section>"
    )


def _facts(one: Forecast) -> list[str]:
    """What is forecast for the one that is recommended."""
    total, downtime = one.bands["total_ms"], one.bands["downtime_ms"]
    wire = one.bands["wire_bytes"]
    return [
        f"Total: {total.expected / 1e3:.2f} s, {total.low / 1e3:.2f} to {total.high / 1e3:.2f} s",
        f"Downtime: {downtime.expected:.0f} ms, {downtime.low:.0f} to {downtime.high:.0f} ms",
        f"Chance to converge: {one.chance_to_converge:.0%} of the draws",
        f"On the wire: {wire.expected / 1e6:.0f} MB, {wire.low / 1e6:.0f} to {wire.high / 1e6:.0f} MB",
    ]


def _time_by_link(findings: Findings) -> str:
    words = f"<p>{html.escape(findings.break_evens)}</p>"
    title = "Time over other links, 80 % band shaded"
    if not by_bandwidth(findings, WIDE):
        return f"<section><h2>{title}</h2>{words}</section>"
    return picture(title, partial(by_bandwidth, findings)) + words


def _look(findings: Findings) -> str:
    said = [html.escape(one) for one in (findings.probed, findings.cost, *findings.seen.notes) if one]
    return f"<section><h2>The look</h2>{items(said)}</section>" if said else ""


def _typed(findings: Findings) -> str:
    blocks = [
        f"<h3>{html.escape(title)}</h3><pre>{html.escape(chr(10).join(lines))}</pre>"
        for title, lines in findings.blocks
    ]
    return f"<section><h2>What to type</h2>{''.join(blocks)}</section>"
