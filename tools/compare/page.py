"""A comparison as one HTML page: needs no network, and is read in light and dark, wide and narrow."""

from __future__ import annotations

import html
from typing import Any

from tools.compare.comparison import Place, by_link, doubts, winner
from tools.compare.pictures import pictures
from tools.compare.report import (
    HEAD,
    crossings_of,
    measured_at,
    places_of,
    published_tables,
    published_words,
    row,
)
from tools.measuring.page import closed, items, opening, picture, table


def page(document: dict[str, Any], *, published: bool) -> str:
    """The page as HTML."""
    title, host = document["scenario"]["title"], document["host"]
    all_places = places_of(document)
    parts = [
        opening(title),
        f"<p>{host['cpus']} CPUs, {html.escape(host['cpu_model'])}, Linux {html.escape(host['kernel'])}, "
        f"{len(host['qat_devices']) or 'no'} QAT devices; "
        f"guest of {html.escape(document['scenario']['size'])}; measured {measured_at(document)}.</p>",
        _answers(document, all_places),
        *_pictures(document),
        *_tables(all_places),
        _noise(all_places),
        *(_published(all_places) if published else ()),
    ]
    return closed(parts)


def _answers(document: dict[str, Any], all_places: list[Place]) -> str:
    fastest = [
        f"{html.escape(link.title)}: <strong>{html.escape(winner(group))}</strong>"
        for link, group in by_link(all_places).items()
        if len(group) > 1
    ]
    even = [
        f"{html.escape(one.words)} ({link.channels_words}, {html.escape(link.image)})"
        for link, one in crossings_of(document)
    ]
    parts = ["<h2>Which method on this link?</h2>", items(fastest)]
    parts += ["<h3>Break-even bandwidths</h3>", items(even)] if even else []
    return f'<section class="answer">{"".join(parts)}</section>'


def _pictures(document: dict[str, Any]) -> list[str]:
    return [picture(title, draw) for title, draw in pictures(document)]


def _tables(all_places: list[Place]) -> list[str]:
    return [
        f"<section><h2>{html.escape(link.title)}</h2>{table([HEAD, *map(row, group)])}</section>"
        for link, group in by_link(all_places).items()
    ]


def _noise(all_places: list[Place]) -> str:
    found = doubts(all_places) or ["Enough repetitions, and every spread is below 10 %."]
    return f"<section><h2>Noise</h2>{items([html.escape(one) for one in found])}</section>"


def _published(all_places: list[Place]) -> list[str]:
    parts = ["<h2>Beside what was published</h2>", f"<p>{html.escape(published_words(all_places))}</p>"]
    for source, rows in published_tables(all_places):
        parts.append(f"<section><h3>{html.escape(source)}</h3>{table(rows)}</section>")
    return parts
