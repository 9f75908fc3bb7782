"""What pages have in common: one HTML file that needs no network, read in light and dark, wide and narrow."""

from __future__ import annotations

import html
from collections.abc import Callable

from tools.measuring.charts import NARROW, WIDE, Size
from tools.measuring.theme import CHART_STYLE, DARK, LIGHT, variables

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
pre {{ background: var(--soft); padding: .6rem .8rem; white-space: pre-wrap; font-size: 13px;
  margin: .3rem 0 1rem; }}
{CHART_STYLE}
"""


def opening(title: str, more_style: str = "") -> str:
    """The beginning of a page, with its title as its headline, and style of its own."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title><style>{STYLE}{more_style}</style></head><body>",
            f"<h1>{html.escape(title)}</h1>",
        ]
    )


def closed(parts: list[str]) -> str:
    """The whole page, from its opening on."""
    return "\n".join([*parts, "</body></html>", ""])


def picture(title: str, draw: Callable[[Size], str]) -> str:
    """A picture under its title, for a wide window and for a narrow one."""
    return (
        f'<section><h2>{html.escape(title)}</h2><div class="wide">{draw(WIDE)}</div>'
        f'<div class="narrow">{draw(NARROW)}</div></section>'
    )


def items(found: list[str]) -> str:
    """A list of HTML."""
    return f"<ul>{''.join(f'<li>{item}</li>' for item in found)}</ul>"


def table(rows: list[list[str]]) -> str:
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
