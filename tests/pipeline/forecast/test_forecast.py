"""The model of rounds, the bands of its draws, the score; and what a look sees."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guestmem.page import PAGE_BYTES
from guestmem.ram import GuestRam
from pipeline.dirty_curve import DirtyCurve
from pipeline.forecast.activity import Step, activity_of
from pipeline.forecast.bands import QUANTITIES, best, forecast
from pipeline.forecast.cost import Cost
from pipeline.forecast.look import look
from pipeline.forecast.rounds import Case, Resources, walk
from pipeline.forecast.sample import candidates, measure, normal_pages
from pipeline.forecast.score import errors_of, scored
from pipeline.forecast.situation import Batches, Candidate, CurveSamples, Guest, Host, Plan
from pipeline.policy import PolicySettings

RAM_PAGES = 1 << 18
MB = 1e6


def case(
    pages_a_second: int = 0, *, link: float = 100 * MB, wire_share: float = 0.5, cpu_ns: float = 1.0
) -> Case:
    curve = DirtyCurve((1.0, 2.0), (pages_a_second, 2 * pages_a_second), RAM_PAGES)
    cost = Cost(cpu_ns, cpu_ns, wire_share)
    resources = Resources(2, 2, 2.0, 2.0, 0.0, link)
    return Case(RAM_PAGES, 0.25, 0.0, curve, cost, cost, resources, 1.0, PolicySettings())


def test_an_idle_guest_takes_what_its_bytes_take_over_the_wire() -> None:
    found = walk(case())
    wire = RAM_PAGES * PAGE_BYTES * 0.75 * 0.5
    assert found.converged
    assert found.wire_bytes == pytest.approx(wire)
    assert found.total_ms == pytest.approx(wire / (100 * MB) * 1e3, rel=0.01)
    assert found.rounds == 1
    assert found.downtime_ms < 10


def test_without_a_limit_the_cpus_decide() -> None:
    slow, fast = walk(case(link=0, cpu_ns=10)), walk(case(link=0, cpu_ns=1))
    assert slow.total_ms > 5 * fast.total_ms
    assert slow.send_cpu_seconds > 5 * fast.send_cpu_seconds


def test_a_guest_that_writes_faster_than_the_wire_carries_does_not_converge() -> None:
    carried = int(100 * MB / 0.5 / PAGE_BYTES)
    assert not walk(case(int(carried * 1.2))).converged
    assert walk(case(int(carried * 0.7))).converged


@given(st.integers(0, 30_000), st.floats(0.2, 1.0))
@settings(max_examples=60, deadline=None)
def test_more_writing_or_a_worse_ratio_never_takes_less(rate: int, share: float) -> None:
    found = walk(case(rate, wire_share=share))
    assert found.total_ms >= walk(case(0, wire_share=share)).total_ms * 0.999
    assert found.wire_bytes >= walk(case(0, wire_share=share)).wire_bytes * 0.999
    if found.converged:
        assert found.downtime_ms <= 300 + 10


def batches(share: float, spread: float = 0.0) -> Batches:
    plain = np.full(32, 524_288.0)
    return Batches(plain, plain * (share + spread * np.linspace(-1, 1, 32)), plain * 2.0, plain * 0.5)


def guest(pages: int = 1000) -> Guest:
    return Guest(RAM_PAGES, 0.2, 0.0, CurveSamples((0.5, 1.0), ((pages, pages + 50), (2 * pages,))), 1.0)


def plan(link: float = 100 * MB) -> Plan:
    return Plan(2, 2, link, PolicySettings())


HOST = Host(2.0, 2.0, one_host=True)


def test_the_same_figures_and_seed_give_the_same_forecast() -> None:
    candidate = Candidate("zstd", 1, batches(0.3, 0.1), batches(0.4))
    one, same = (forecast(guest(), candidate, HOST, plan(), seed=7) for _ in range(2))
    assert one == same
    assert forecast(guest(), candidate, HOST, plan(), seed=8) != one


def test_a_band_is_wider_where_the_sample_says_less() -> None:
    def width(spread: float) -> float:
        found = forecast(guest(), Candidate("zstd", 1, batches(0.3, spread), batches(0.3)), HOST, plan())
        band = found.bands["total_ms"]
        assert band.low <= band.expected <= band.high
        return band.high - band.low

    assert width(0.2) > 1.5 * width(0.0)


def test_the_best_is_the_shortest_of_those_that_surely_converge() -> None:
    ones = [
        forecast(guest(30_000), Candidate(name, None, batches(share), batches(share)), HOST, plan())
        for name, share in (("none", 1.0), ("zstd", 0.3), ("lz4", 0.5))
    ]
    assert best(ones).method == "zstd"
    assert ones[0].chance_to_converge == 0


def result(total_ms: float, *, status: str = "completed") -> dict[str, Any]:
    found = forecast(guest(), Candidate("zstd", 1, batches(0.3), batches(0.3)), HOST, plan())
    document: dict[str, Any] = {
        "status": status,
        "time": {"total_ms": total_ms, "downtime_ms": 40.0},
        "rounds": [{}, {}],
        "traffic": {"wire_bytes": found.bands["wire_bytes"].expected},
        "send": {"cpu_seconds": 1.0},
        "recv": {"cpu_seconds": 1.0},
        "forecast": found.record(),
    }
    document["score"] = scored(document)
    return document


def test_a_score_says_how_far_off_and_whether_in_the_band() -> None:
    expected = result(1.0)["forecast"]["total_ms"]["expected"]
    right, wrong = result(expected), result(2 * expected)
    assert right["score"]["total_ms"]["in_band"]
    assert right["score"]["total_ms"]["error"] == pytest.approx(0)
    assert not wrong["score"]["total_ms"]["in_band"]
    assert wrong["score"]["total_ms"]["error"] == pytest.approx(-0.5)
    failed = result(expected, status="not-converged")
    errors, brier, always = errors_of([right, wrong, failed])
    assert errors["total_ms"].runs == 2
    assert errors["total_ms"].close == 1
    assert brier == always == pytest.approx(1 / 3)
    assert set(errors) <= set(QUANTITIES)


def test_every_method_really_compresses_the_sample() -> None:
    text = np.frombuffer((b"page of a guest. " * 300)[:PAGE_BYTES] * 200, np.uint64).reshape(-1, 512)
    found = {one.name: one for one in candidates([("none", None), ("zstd", 3)], text, text[:10], 2)}
    assert found["none"].whole.payload_bytes.sum() == text.nbytes
    assert found["zstd 3"].whole.payload_bytes.sum() < text.nbytes / 10
    assert found["zstd 3"].whole.compress_ns.sum() > 0
    assert len(found["zstd 3"].written) == 1
    assert len(measure("zstd", 1, text[:0], 2)) == 0


def test_a_guest_in_bursts_is_foreseen_as_such() -> None:
    steps = [Step(at / 8, at / 8 + 1 / 8, 0, 4000 if at % 16 < 4 else 0) for at in range(32)]
    bursts = activity_of(steps)
    assert bursts.seconds == 4
    assert bursts.mean(0.0, 0.5) == pytest.approx(4)
    assert bursts.mean(1.0, 0.5) == 0
    assert bursts.mean(3.7, 400.0) == pytest.approx(1, rel=0.01)
    steady = replace(guest(20_000), curve=CurveSamples((0.5, 1.0), ((20_000,), (40_000,))))
    widths = []
    for one in (steady, replace(steady, activity=bursts)):
        candidate = Candidate("zstd", 1, batches(0.3), batches(0.3))
        band = forecast(one, candidate, replace(HOST, noise=0.02), plan(800 * MB)).bands["total_ms"]
        widths.append(band.high - band.low)
    assert widths[1] > 2 * widths[0]


def test_steps_that_add_nothing_say_nothing_of_bursts() -> None:
    assert activity_of([]).seconds == 0
    assert activity_of([Step(0, 0.125, 0, 3), Step(0.125, 0.25, 0, 0)]).mean(0, 9) == 1


def test_what_a_quick_method_saw_of_far_more_mends_a_sample_that_is_off() -> None:
    plain = np.full(32, 524_288.0)
    shares = np.linspace(0.2, 0.6, 32)
    off = Batches(plain, plain * shares, plain * shares, plain * 0.5, shares * 1.5, 0.3 * 1.5)
    found = forecast(guest(0), Candidate("zstd", 1, off, off), HOST, plan())
    plain_found = forecast(guest(0), Candidate("zstd", 1, replace(off, gauge=np.zeros(0)), off), HOST, plan())
    normal = RAM_PAGES * PAGE_BYTES * 0.8
    assert found.bands["wire_bytes"].expected == pytest.approx(0.3 * normal, rel=0.01)
    assert plain_found.bands["wire_bytes"].expected == pytest.approx(0.4 * normal, rel=0.05)


class Log:
    """Pages 1000 on are written, a thousand a second."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def count(self) -> int:
        return int((time.monotonic() - self._since) * 1000)

    def sync(self, into: Any) -> int:
        count = self.count()
        into[:count] = np.arange(1000, 1000 + count)
        self._since = time.monotonic()
        return count


def test_a_look_sees_the_curve_the_zero_pages_and_what_is_written() -> None:
    ram = GuestRam.create(64 << 20, "look")
    ram.words[: ram.pages // 2] = np.arange(512, dtype=np.uint64) + 1
    seen = look(ram, Log(), 0, time.sleep)
    assert seen.guest.zero_share == pytest.approx(0.5, abs=0.02)
    assert len(seen.guest.curve.pages[0]) == 5
    assert np.mean(seen.guest.curve.pages[3]) == pytest.approx(1000, rel=0.2)
    assert len(seen.written) > 100
    assert normal_pages(seen.whole)[1] == 0
    assert 0 < (seen.gauges.whole or 0) < 0.2
    assert seen.guest.activity.mean(0, seen.guest.activity.seconds) == pytest.approx(1)
    assert seen.guest.activity.mean(1.0, 0.5) == pytest.approx(1, rel=0.25)
