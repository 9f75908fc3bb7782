"""A page in a real browser, measured there."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

MEASURE = """
<script>
const found = [];
const name = (e) => e.tagName + ' ' + (e.textContent || '').trim().slice(0, 40);
const box = (e) => e.getBoundingClientRect();
const seen = (e) => box(e).width > 0 && box(e).height > 0;
for (const e of document.body.querySelectorAll('*')) {
  if (!seen(e) || e.closest('script')) continue;
  if (box(e).right > innerWidth + 1 || box(e).left < -1) found.push('outside the window: ' + name(e));
  const wider = e.clientWidth && e.scrollWidth > e.clientWidth + 1;
  if (wider && !e.closest('svg')) found.push('cut off: ' + name(e));
}
for (const svg of document.querySelectorAll('svg')) {
  const texts = [...svg.querySelectorAll('text')].filter(seen);
  texts.forEach((one, index) => {
    const a = box(one), s = box(svg);
    if (a.left < s.left - 1 || a.right > s.right + 1 || a.top < s.top - 1 || a.bottom > s.bottom + 1)
      found.push('outside its picture: ' + name(one));
    const scale = s.width / svg.viewBox.baseVal.width;
    if (parseFloat(getComputedStyle(one).fontSize) * scale < 10) found.push('too small: ' + name(one));
    for (const other of texts.slice(index + 1)) {
      const b = box(other);
      if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3)
        found.push('overlap: ' + name(one) + ' and ' + name(other));
    }
  });
}
parent.document.getElementById('found').textContent = 'measured ' + innerWidth + '\\n' + found.join('\\n');
</script>
"""


def find_browser() -> str:
    """Skips where there is none."""
    for binary in ("chromium", "chromium-browser", "google-chrome"):
        if (found := shutil.which(binary)) is not None:
            return found
    pytest.skip("no Chromium: apt-get install chromium")


def dump(page: Path, folder: Path) -> str:
    """The page's document once its scripts have run."""
    command = [
        *(find_browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *(f"--user-data-dir={folder / 'profile'}", "--window-size=1600,1200", "--dump-dom", page.as_uri()),
    ]
    environment = {**os.environ, "HOME": str(folder)}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    return ended.stdout


def faults(page: Path, folder: Path, width: int) -> list[str]:
    """What is cut off, overlaps or lies outside its place when the page is that many pixels wide.

    The page stands in a frame of that width: a browser's window cannot be narrower than 500 pixels.
    """
    around = folder / f"around-{width}.html"
    within = html.escape(page.read_text() + MEASURE)
    style = f"width: {width}px; height: 900px; border: 0"
    around.write_text(f'<pre id="found"></pre><iframe style="{style}" srcdoc="{within}"></iframe>')
    seen = re.search(r'<pre id="found">measured (\d+)\n?(.*?)</pre>', dump(around, folder), re.DOTALL)
    assert seen is not None, "the page's script did not run"
    assert int(seen[1]) == width
    return html.unescape(seen[2]).splitlines()
