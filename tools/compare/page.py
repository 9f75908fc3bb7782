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
from tools.measuring.charts import NARROW, WIDE
from tools.measuring.theme import CHART_STYLE, DARK, LIGHT, variables

MOST_ROWS, MOST_PICTURES, MOST_LINES = 400, 12, 40
"""Beyond these a page of 10,000 points would be slow: the table is shown in parts, and pictures and lines are
thinned out."""

STYLE = f"""
:root {{ color-scheme: light dark; {variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {variables(DARK)} }} }}
* {{ box-sizing: border-box; }}
body {{ background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; max-width: 70rem;
  margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }}
h1 {{ font-size: 1.5rem; line-height: 1.25; }} h2 {{ font-size: 1.15rem; margin: 2.2rem 0 .5rem; }}
h3 {{ font-size: 1rem; margin: 1.4rem 0 .3rem; }}
ul {{ padding-left: 1.2rem; margin: .4rem 0; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; width: 100%; }}
th, td {{ padding: .3rem .55rem; border-bottom: 1px solid var(--rule); text-align: right; }}
th {{ background: var(--soft); font-weight: 600; vertical-align: bottom; overflow-wrap: normal; }}
td {{ white-space: nowrap; }}
td.words {{ white-space: normal; min-width: 11rem; }}
th:first-child, td:first-child, th.words, td.words {{ text-align: left; }}
.answer {{ background: var(--soft); padding: .1rem 1rem .8rem; border-left: 4px solid var(--c0); }}
.answer h2 {{ margin-top: .8rem; }}
svg {{ display: block; width: 100%; height: auto; }}
.wide svg {{ max-width: {WIDE.width}px; }} .narrow svg {{ max-width: 30rem; }} .narrow {{ display: none; }}
@media (max-width: 48rem) {{
  .wide {{ display: none; }} .narrow {{ display: block; }} body {{ margin: 1rem auto; padding: 0 .8rem; }} }}
@media (max-width: 62rem) {{
  table, tbody {{ display: block; }} thead {{ display: none; }}
  tr {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: 0 1rem;
    padding: .5rem 0; border-bottom: 1px solid var(--rule); }}
  td, td.words {{ display: flex; justify-content: space-between; gap: .4rem; border: 0; padding: .05rem 0;
    min-width: 0; font-size: 14px; }}
  td:first-child {{ grid-column: 1 / -1; font-weight: 600; }}
  td.range, td.words {{ grid-column: 1 / -1; justify-content: start; text-align: left; }}
  td:not(:first-child)::before {{ content: attr(data-label); color: var(--faint); white-space: normal;
    text-align: left; overflow-wrap: normal; }}
}}
{CHART_STYLE}{PAGED_STYLE}
"""


def page(document: dict[str, Any], *, published: bool) -> str:
    """The page as HTML."""
    title = document["scenario"]["title"]
    all_places = places_of(document)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{html.escape(where_words(document))}"
        f"guest of {html.escape(document['scenario']['size'])}; measured {measured_at(document)}.</p>",
        _answers(document, all_places),
        *_hosts(document, all_places),
        *_pictures(document),
        *_tables(all_places),
        _noise(all_places),
        *(_published(all_places) if published and any(map(completed, all_places)) else ()),
    ]
    return "\n".join([*parts, "</body></html>", ""])


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
    parts = ["<h2>Which method on this link?</h2>", _list(fastest)]
    parts += ["<h3>Break-even bandwidths</h3>", _list(_first(even))] if even else []
    return f'<section class="answer">{"".join(parts)}</section>'


def _list(items: list[str]) -> str:
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def _hosts(document: dict[str, Any], all_places: list[Place]) -> list[str]:
    parts = [
        f"<section><h2>{title}</h2><p>{words}</p>{_table(rows)}</section>"
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
    sections = [
        f'<section><h2>{html.escape(title)}</h2><div class="wide">{draw(WIDE)}</div>'
        f'<div class="narrow">{draw(NARROW)}</div></section>'
        for title, draw in thinned(drawn, MOST_PICTURES)
    ]
    if len(drawn) > MOST_PICTURES:
        sections.append(f"<p>{MOST_PICTURES} of {len(drawn)} pictures are drawn.</p>")
    return sections


def _first(items: list[str]) -> list[str]:
    left_out = len(items) - MOST_LINES
    return items if left_out <= 0 else [*items[:MOST_LINES], f"and {left_out} more"]


def _tables(all_places: list[Place]) -> list[str]:
    if len(all_places) > MOST_ROWS:
        rows = [[*row(place), link_of(place.point).title] for place in all_places]
        return [paged_table("All configurations", [[*HEAD, "link"], *rows])]
    return [
        f"<section><h2>{html.escape(link.title)}</h2>{_table([HEAD, *map(row, group)])}</section>"
        for link, group in by_link(all_places).items()
    ]


def _table(rows: list[list[str]]) -> str:
    """The first row is the head. A narrow window has no head: each cell then shows its column's title."""
    titles, *body = [[html.escape(cell) for cell in one] for one in rows]
    kinds = [_kind([one[column] for one in body]) for column in range(len(titles))]
    head = "".join(
        f"<th{kind}>{title.replace(' %', '&nbsp;%')}</th>" for title, kind in zip(titles, kinds, strict=True)
    )
    lines = "".join(f"<tr>{''.join(map(_cell, titles, kinds, one))}</tr>" for one in body)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def _cell(title: str, kind: str, text: str) -> str:
    return f'<td{kind} data-label="{title}">{text}</td>'


def _kind(cells: list[str]) -> str:
    """A column's class: words that may be wrapped, or a figure with its range."""
    if any(cell.count(" ") > 3 for cell in cells):
        return ' class="words"'
    return ' class="range"' if any(" to " in cell for cell in cells) else ""


def _noise(all_places: list[Place]) -> str:
    found = doubts(all_places) or ["Enough repetitions, and every spread is below 10 %."]
    failed = failures(all_places)
    parts = [_section("What failed", failed)] if failed else []
    return "\n".join([*parts, _section("Noise", found)])


def _section(title: str, lines: list[str]) -> str:
    return f"<section><h2>{title}</h2>{_list(_first([html.escape(one) for one in lines]))}</section>"


def _published(all_places: list[Place]) -> list[str]:
    parts = ["<h2>Beside what was published</h2>", f"<p>{html.escape(published_words(all_places))}</p>"]
    for source, rows in published_tables(all_places):
        parts.append(f"<section><h3>{html.escape(source)}</h3>{_table(rows)}</section>")
    return parts
