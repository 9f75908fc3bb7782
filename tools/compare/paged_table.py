"""A long table of a page: its rows lie in the page as JSON, and a script shows some at a time.

A browser lays out a hundred rows at once, not ten thousand. The script sorts by a column, and shows the rows
that hold every word of what is typed.
"""

from __future__ import annotations

import html
import json

ROWS_AT_A_TIME = 100

SCRIPT = """
(() => {
  const [head, ...rows] = JSON.parse(document.getElementById('rows').textContent);
  const size = %d, at = (id) => document.getElementById(id);
  const number = (text) => { const n = parseFloat(text); return Number.isNaN(n) ? Infinity : n; };
  const numeric = head.map((_, i) => rows.some((row) => number(row[i]) !== Infinity) &&
    rows.every((row) => /^-?$|^[-\\d.]/.test(row[i])));
  const words = rows.map((row) => row.join(' ').toLowerCase());
  let shown = rows.map((_, i) => i), first = 0, column = -1, down = false;
  const cell = (tag, text, i) => {
    const e = document.createElement(tag);
    e.textContent = text; e.dataset.label = head[i];
    if (!numeric[i]) e.className = 'words';
    return e;
  };
  const show = () => {
    first = Math.max(0, Math.min(first, shown.length - 1));
    first -= first %% size;
    at('body').replaceChildren(...shown.slice(first, first + size).map((n) => {
      const line = document.createElement('tr');
      line.append(...rows[n].map((text, i) => cell('td', text, i)));
      return line;
    }));
    at('count').textContent = shown.length
      ? `${first + 1} to ${Math.min(first + size, shown.length)} of ${shown.length}` : 'none';
    at('back').disabled = first === 0;
    at('on').disabled = first + size >= shown.length;
  };
  const arrange = () => {
    const asked = at('find').value.toLowerCase().split(/\\s+/).filter(Boolean);
    shown = rows.map((_, i) => i).filter((n) => asked.every((word) => words[n].includes(word)));
    if (column >= 0) shown.sort((a, b) => {
      const x = rows[a][column], y = rows[b][column];
      return (down ? -1 : 1) * (numeric[column] ? number(x) - number(y) || 0 : x.localeCompare(y)) || a - b;
    });
    first = 0;
    show();
  };
  head.forEach((title, i) => {
    const e = cell('th', '', i), button = document.createElement('button');
    button.textContent = title;
    button.onclick = () => { down = column === i && !down; column = i; arrange(); };
    e.append(button);
    at('head').append(e);
  });
  at('find').oninput = arrange;
  at('back').onclick = () => { first -= size; show(); };
  at('on').onclick = () => { first += size; show(); };
  show();
})();
"""

STYLE = """
.paging { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; }
.paging input { flex: 1 1 12rem; font: inherit; padding: .2rem .4rem; min-width: 0; }
.paging button { font: inherit; }
th button { all: unset; cursor: pointer; } th button:focus-visible { outline: 2px solid var(--c0); }
"""


def paged_table(title: str, rows: list[list[str]]) -> str:
    """A section with the table as HTML; the first row is the head. At most one stands on a page."""
    data = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f"<section><h2>{html.escape(title)}</h2>"
        "<noscript><p>This table needs JavaScript; points.csv has its rows.</p></noscript>"
        '<div class="paging"><input id="find" placeholder="words that a row must hold" aria-label="find">'
        '<button id="back">back</button><span id="count"></span><button id="on">on</button></div>'
        '<table><thead><tr id="head"></tr></thead><tbody id="body"></tbody></table>'
        f'<script type="application/json" id="rows">{data}</script>'
        f"<script>{SCRIPT % ROWS_AT_A_TIME}</script></section>"
    )
