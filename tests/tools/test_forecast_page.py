"""A forecast's advice, what it says to type, and its page in a browser."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.cli import run as run_command
from pipeline.cli.relay import build_parser as relay_parser
from pipeline.forecast.seen import Seen
from pipeline.forecast.situation import Batches, Candidate, CurveSamples, Guest, Host, Plan
from pipeline.policy import PolicySettings
from tests.tools.browser import faults
from tools.forecast.advice import Question, answers, break_evens, by_link, links, recommendation
from tools.forecast.commands import commands
from tools.forecast.findings import Findings
from tools.forecast.page import page
from tools.forecast.sources.seen import Typed

SECONDS = (0.125, 0.5, 2.0)
HOSTILE = "<script>alert(1)</script> & 'so' \"on\""


def batches(share: float, send_ns: float) -> Batches:
    plain = np.full(20, 524288.0)
    wobble = np.linspace(0.9, 1.1, 20)
    return Batches(plain, plain * share * wobble, plain * send_ns, plain * 0.3)


def candidate(method: str, level: int | None, share: float, send_ns: float) -> Candidate:
    return Candidate(method, level, batches(share, send_ns), batches(share, send_ns))


NONE, ZSTD, LZ4 = candidate("none", None, 1, 0), candidate("zstd", 1, 0.3, 3), candidate("lz4", 1, 0.5, 1)


def findings(link: float, dirty_pages: int = 500, typed: Typed | None = None) -> Findings:
    curve = CurveSamples(
        SECONDS, tuple((round(dirty_pages * at), round(1.2 * dirty_pages * at)) for at in SECONDS)
    )
    guest = Guest(1 << 16, 0.1, 0.05, curve, 1.0)
    host = Host(2, 2, one_host=True)
    plan = Plan(1, 1, link, PolicySettings(downtime_limit_ms=300))
    question = Question(guest, (NONE, ZSTD, LZ4), host, plan, (1, 2))
    found = answers(question)
    cost = {"how": "pmemsave", "calls": 9, "total_ms": 3.0, "longest_ms": 0.5}
    seen = Seen(guest, host, facts={"look_seconds": 4.5, "cost": cost}, notes=(HOSTILE,))
    blocks = commands(found, typed or Typed("--size 256M"), plan)
    return Findings(question, seen, found, by_link(question), blocks)


def test_the_users_own_link_is_among_those_that_are_looked_at() -> None:
    found = links(12_345_678)
    assert 12_345_678 in found
    assert found == sorted(set(found))
    assert links(0)[0] == 1_250_000
    assert links(1e12)[-1] == 10**12


def test_break_evens_go_from_the_slowest_method_to_plain_pages() -> None:
    words = break_evens(findings(12.5e6).links)
    assert words.startswith("Over other links: below about ")
    assert words.endswith("above that method none.")
    assert words.index("zstd") < words.index("none")


def test_the_margin_is_said_against_the_next_and_against_plain_pages() -> None:
    words = recommendation(findings(12.5e6).found)
    assert words.startswith("Take zstd 1 with")
    assert "lz4 1 would take" in words
    assert "none would take" in words
    hopeless = findings(1.25e6, 10**4)
    assert "No method converges" in recommendation(hopeless.found)
    assert "--converge throttle" in hopeless.blocks[0][1][0]


def test_what_is_typed_is_what_the_commands_take() -> None:
    ours = findings(12.5e6)
    words = shlex.split(ours.blocks[0][1][0])
    assert words[:3] == ["python", "-m", "pipeline.run"]
    run_command.build_parser("run").read(words[3:])
    vm = findings(12.5e6, typed=Typed(is_vm=True, domain="my vm; rm", uri="qemu:///session"))
    blocks = {title.split()[0]: lines for title, lines in vm.blocks}
    sent = [json.loads(line) for line in blocks["QEMU"] if line.startswith("{")]
    assert [one["execute"] for one in sent][-1] == "migrate"
    parameters = next(one["arguments"] for one in sent if "multifd-channels" in one["arguments"])
    assert parameters["multifd-compression"] == "zstd"
    virsh = shlex.split(blocks["libvirt,"][0])
    assert "my vm; rm" in virsh
    assert "zstd" in virsh
    assert virsh[:3] == ["virsh", "-c", "qemu:///session"]
    for line in blocks["Through"]:
        relay_parser("relay").read(shlex.split(line)[3:])


@pytest.mark.parametrize("link", [12.5e6, 0.0, 1.25e6])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_is_whole_in_a_browser(link: float, width: int, tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    target.write_text(page(findings(link, 10_000, Typed(is_vm=True, domain=HOSTILE))))
    assert faults(target, tmp_path, width) == []


def test_nothing_from_outside_is_html_and_nothing_is_fetched() -> None:
    text = page(findings(12.5e6, typed=Typed(is_vm=True, domain=HOSTILE)))
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "http" not in text
    assert 'class="area' in text
    assert "your link, 100 Mbit/s" in text
    assert "held QEMU&#x27;s lock" in text


def test_where_nothing_converges_anywhere_there_are_words_and_no_picture() -> None:
    hopeless = findings(1.25e6)
    links_of = {
        link: [replace(one, chance_to_converge=0.0) for one in row] for link, row in hopeless.links.items()
    }
    text = page(replace(hopeless, links=links_of))
    assert "no method converges" in text
    assert "Total time by link and method" not in text


def test_a_guest_that_writes_nothing_has_a_page() -> None:
    text = page(findings(12.5e6, 0))
    assert "dirty MiB" in text


def test_the_document_has_the_recommended_forecast_as_a_group() -> None:
    document = findings(12.5e6).document()
    forecast = document["forecast"]
    for name in ("total_ms", "downtime_ms", "rounds", "wire_bytes", "send_cpu_seconds", "recv_cpu_seconds"):
        assert set(forecast[name]) == {"expected", "low", "high"}
    assert forecast["method"] == "zstd"
    assert forecast in document["forecasts"]
    assert document["notes"] == [HOSTILE]
    json.dumps(document)
