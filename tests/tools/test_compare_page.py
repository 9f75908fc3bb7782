"""The page of a large comparison, in a browser."""

from __future__ import annotations

import copy
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import tool
from tests.tools.browser import dump, faults
from tools.compare.page import MOST_PICTURES, page

POINTS: dict[str, list[Any]] = {
    "host": ["xeon-qat", "epyc", "arm"],
    "method": ["none", "zstd", "lz4"],
    "channels": [1, 2, 4],
    "bandwidth": ["0", "50M", "200M"],
    "dirty_rate": ["0", "32M"],
    "image": ["corpus", "</script><b>mixed", "zero-rich"],
}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """486 points made of one that was measured: figures of no meaning."""
    folder = tmp_path_factory.mktemp("large")
    scenario = folder / "one.toml"
    scenario.write_text('title = "one"\nsize = "4M"\nmethods = ["none"]\nrepetitions = 1')
    ended = tool("tools.compare", str(scenario), "--output", str(folder / "out"))
    assert ended.returncode == 0, ended.stderr
    document: dict[str, Any] = json.loads((folder / "out" / "compare.json").read_text())
    (one,) = document["points"]
    document["points"] = []
    for number, values in enumerate(itertools.product(*POINTS.values())):
        entry = copy.deepcopy(one)
        entry["point"].update(zip(POINTS, values, strict=True))
        entry["result"]["time"]["total_ms"] = 1000.0 + number
        document["points"].append(entry)
    target = folder / "large.html"
    target.write_text(page(document, published=False))
    return target


def test_the_table_is_shown_in_parts(large: Path, tmp_path: Path) -> None:
    text = large.read_text()
    assert "<b>mixed" not in text
    shown = dump(large, tmp_path)
    assert "1 to 100 of 486" in shown
    body = re.search(r'<tbody id="body">(.*?)</tbody>', shown, re.DOTALL)
    assert body is not None
    assert body[1].count("<tr>") == 100
    assert text.count("<svg") <= 2 * MOST_PICTURES


def test_rows_are_found_sorted_and_turned_over(large: Path, tmp_path: Path) -> None:
    clicks = """<script>
    const said = [];
    const at = (id) => document.getElementById(id);
    const first = () => at('body').rows[0].cells[1].textContent;
    at('on').click(); said.push(at('count').textContent);
    const total = [...document.querySelectorAll('#head button')][1];
    total.click(); said.push(first()); total.click(); said.push(first());
    at('find').value = 'epyc ZSTD'; at('find').oninput(); said.push(at('count').textContent);
    at('find').value = 'nothing of the kind'; at('find').oninput(); said.push(at('count').textContent);
    document.title = said.join('; ');
    </script>"""
    clicked = tmp_path / "clicked.html"
    clicked.write_text(large.read_text() + clicks)
    title = re.search(r"<title>(.*?)</title>", dump(clicked, tmp_path))
    assert title is not None
    assert title[1] == "101 to 200 of 486; 1000; 1485; 1 to 54 of 54; none"


@pytest.mark.parametrize("width", [1400, 400])
def test_nothing_is_cut_off(large: Path, tmp_path: Path, width: int) -> None:
    assert faults(large, tmp_path, width) == []
