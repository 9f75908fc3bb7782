"""A comparison as one HTML page: needs no network, and is read in light and dark, wide and narrow."""

from __future__ import annotations

import html
from typing import Any

from tools.compare import hosts
from tools.compare.comparison import Place, by_link, completed, doubts, failures, link_of, winner, wins_words
from tools.compare.paged_table import STYLE as PAGED_STYLE
from tools.compare.paged_table import paged_table
from tools.compare.pictures import pictures, thinned
from tools.compare.report import (
    HEAD,
    crossings_of,
    measured_at,
    places_of,
    published_tables,
    published_words,
    row,
    where_words,
)
from tools.measuring.page import closed, items, opening, picture, table

MOST_ROWS, MOST_PICTURES, MOST_LINES = 400, 12, 40
"""Beyond these a page of 10,000 points would be slow: the table is shown in parts, and pictures and lines are
thinned out."""


def page(document: dict[str, Any], *, published: bool) -> str:
    """The page as HTML."""
    title = document["scenario"]["title"]
    all_places = places_of(document)
    parts = [
        opening(title, PAGED_STYLE),
        f"<p>{html.escape(where_words(document))}"
        f"guest of {html.escape(document['scenario']['size'])}; measured {measured_at(document)}.</p>",
        _answers(document, all_places),
        *_hosts(document, all_places),
        *_pictures(document),
        *_tables(all_places),
        _noise(all_places),
        *(_published(all_places) if published and any(map(completed, all_places)) else ()),
    ]
    return closed(parts)


def _answers(document: dict[str, Any], all_places: list[Place]) -> str:
    contests = [(link, winner(group)) for link, group in by_link(all_places).items() if len(group) > 1]
    fastest = [
        f"{html.escape(link.title)}: <strong>{html.escape(who)}</strong>"
        for link, who in contests[:MOST_LINES]
    ]
    if len(contests) > MOST_LINES:
        fastest.append(html.escape(wins_words(who for _, who in contests)))
    even = [
        f"{html.escape(one.words)} ({html.escape(link.short_title)})" for link, one in crossings_of(document)
    ]
    parts = ["<h2>Which method on this link?</h2>", items(fastest)]
    parts += ["<h3>Break-even bandwidths</h3>", items(_first(even))] if even else []
    return f'<section class="answer">{"".join(parts)}</section>'


def _hosts(document: dict[str, Any], all_places: list[Place]) -> list[str]:
    parts = [
        f"<section><h2>{title}</h2><p>{words}</p>{table(rows)}</section>"
        for title, words, rows in (
            (hosts.WHICH_HOST, hosts.HOW_TO_READ, hosts.which_host(all_places)),
            (hosts.LINKS, hosts.LINKS_WORDS, hosts.link_matrix(all_places)),
        )
        if rows
    ]
    lines = hosts.host_lines(document)
    return [*parts, *([_section("Hosts", lines)] if lines else [])]


def _pictures(document: dict[str, Any]) -> list[str]:
    drawn = pictures(document)
    sections = [picture(title, draw) for title, draw in thinned(drawn, MOST_PICTURES)]
    if len(drawn) > MOST_PICTURES:
        sections.append(f"<p>{MOST_PICTURES} of {len(drawn)} pictures are drawn.</p>")
    return sections


def _first(lines: list[str]) -> list[str]:
    left_out = len(lines) - MOST_LINES
    return lines if left_out <= 0 else [*lines[:MOST_LINES], f"and {left_out} more"]


def _tables(all_places: list[Place]) -> list[str]:
    if len(all_places) > MOST_ROWS:
        rows = [[*row(place), link_of(place.point).title] for place in all_places]
        return [paged_table("All configurations", [[*HEAD, "link"], *rows])]
    return [
        f"<section><h2>{html.escape(link.title)}</h2>{table([HEAD, *map(row, group)])}</section>"
        for link, group in by_link(all_places).items()
    ]


def _noise(all_places: list[Place]) -> str:
    found = doubts(all_places) or ["Enough repetitions, and every spread is below 10 %."]
    failed = failures(all_places)
    parts = [_section("What failed", failed)] if failed else []
    return "\n".join([*parts, _section("Noise", found)])


def _section(title: str, lines: list[str]) -> str:
    return f"<section><h2>{title}</h2>{items(_first([html.escape(one) for one in lines]))}</section>"


def _published(all_places: list[Place]) -> list[str]:
    parts = ["<h2>Beside what was published</h2>", f"<p>{html.escape(published_words(all_places))}</p>"]
    for source, rows in published_tables(all_places):
        parts.append(f"<section><h3>{html.escape(source)}</h3>{table(rows)}</section>")
    return parts
