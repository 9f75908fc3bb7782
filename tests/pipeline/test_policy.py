"""The policies, on made-up rounds: no process, no clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dirty_curve import CurveRecorder, DirtyCurve
from pipeline.policy import (
    KEPT_BACK,
    STALLED_ROUNDS,
    Decision,
    PolicySettings,
    RoundFigures,
    Situation,
    Verdict,
    decide,
    foreseen_rounds,
    guest_bytes_per_second,
)

RAM_PAGES = 1 << 19  # 2 GiB
RATE = 500e6
PAGE = 4096


def figures(pages: int, dirty: int, curve: DirtyCurve, ratio: float = 3.0, throttle: int = 0) -> RoundFigures:
    """A round at RATE of guest bytes."""
    return RoundFigures(
        1, pages, pages, 0, int(pages * PAGE / ratio), pages * PAGE / RATE * 1e3, dirty, curve, throttle
    )


Dirties = Callable[[float], float]


def sequential(share_of_rate: float) -> Dirties:
    """A guest that sweeps RAM, at a share of the rate at which guest bytes are moved."""
    return lambda seconds: min(RAM_PAGES, share_of_rate * RATE * seconds / PAGE)


def uniform(share_of_rate: float) -> Dirties:
    per_second = share_of_rate * RATE / PAGE / RAM_PAGES
    return lambda seconds: RAM_PAGES * (1 - math.exp(-per_second * seconds))


def hotspot(share_of_rate: float, pages: int) -> Dirties:
    per_second = share_of_rate * RATE / PAGE / pages
    return lambda seconds: pages * (1 - math.exp(-per_second * seconds))


def simulate(settings: PolicySettings, dirties: Dirties, ratio: float = 3.0) -> tuple[list[Verdict], float]:
    """Rounds until an end: the verdicts, and the pages that are left."""
    rounds: list[RoundFigures] = []
    verdicts: list[Verdict] = []
    throttle, limit, pages = 0, settings.downtime_limit_ms, RAM_PAGES
    while True:
        seconds = pages * PAGE / RATE

        def written(after: float, speed: float = 1 - throttle / 100) -> int:
            return int(dirties(after * speed))

        points = [seconds * share for share in (0.1, 0.25, 0.5, 0.75, 1.0)]
        curve = DirtyCurve(tuple(points), tuple(written(point) for point in points), RAM_PAGES)
        rounds.append(figures(pages, written(seconds), curve, ratio, throttle))
        verdict = decide(settings, Situation(rounds, verdicts, throttle, limit))
        verdicts.append(verdict)
        assert len(rounds) < 1000
        if verdict.decision is not Decision.CONTINUE:
            return verdicts, written(seconds)
        throttle, limit, pages = verdict.throttle_percent, verdict.downtime_limit_ms, max(1, written(seconds))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75, 0.9])
@pytest.mark.parametrize("guest", [sequential, uniform])
def test_a_guest_slower_than_the_migration_converges(guest: Callable[[float], Dirties], share: float) -> None:
    verdicts, left = simulate(PolicySettings(), guest(share))
    assert verdicts[-1].decision is Decision.SWITCH_OVER
    assert left * PAGE / RATE * 1e3 <= 300
    assert verdicts[-1].expected_downtime_ms <= 300 * (1 - KEPT_BACK)


@pytest.mark.parametrize("guest", [sequential, uniform])
def test_a_guest_that_is_too_fast_is_found_out_early(guest: Callable[[float], Dirties]) -> None:
    verdicts, _ = simulate(PolicySettings(), guest(1.5))
    assert verdicts[-1].decision is Decision.GIVE_UP
    assert len(verdicts) == STALLED_ROUNDS
    assert verdicts[-1].wasted_rounds == 100 - STALLED_ROUNDS
    assert "97 rounds early" in verdicts[-1].reason


def test_a_fast_guest_with_a_small_hot_set_converges() -> None:
    """A rate alone misleads: five times the migration's rate, but always the same pages."""
    verdicts, _ = simulate(PolicySettings(), hotspot(5.0, 20_000))
    assert verdicts[-1].decision is Decision.SWITCH_OVER
    assert len(verdicts) <= 2


@pytest.mark.parametrize("guest", [sequential, uniform])
def test_a_throttle_makes_it_converge_and_no_stronger(
    guest: Callable[[float], Dirties],
) -> None:
    verdicts, _ = simulate(PolicySettings(converge="throttle"), guest(1.5))
    assert verdicts[-1].decision is Decision.SWITCH_OVER
    assert 20 <= verdicts[-1].throttle_percent <= 60
    steps = [verdict.throttle_percent for verdict in verdicts]
    assert steps == sorted(steps)


def test_a_guest_that_converges_is_not_throttled() -> None:
    verdicts, _ = simulate(PolicySettings(converge="throttle"), uniform(0.75))
    assert {verdict.throttle_percent for verdict in verdicts} == {0}


def test_a_throttle_that_does_not_help_ends_in_a_stall() -> None:
    settings = PolicySettings(converge="throttle", throttle_initial=5, throttle_increment=5, throttle_max=10)
    verdicts, _ = simulate(settings, sequential(3.0))
    assert verdicts[-1].decision is Decision.GIVE_UP
    assert verdicts[-1].throttle_percent == 10


def test_throttle_settings_are_obeyed() -> None:
    settings = PolicySettings(
        converge="throttle", throttle_initial=33, throttle_increment=7, throttle_max=45, throttle_trigger=50
    )
    verdicts, _ = simulate(settings, sequential(3.0))
    assert list(dict.fromkeys(verdict.throttle_percent for verdict in verdicts)) == [33, 40, 45]
    idle = figures(RAM_PAGES, RAM_PAGES // 3, DirtyCurve((1.0,), (RAM_PAGES // 3,), RAM_PAGES))
    now = Situation([idle], [], 0, 300.0)
    assert decide(replace(settings, throttle_trigger=50), now).throttle_percent == 0


def test_the_downtime_ramp_raises_the_limit_up_to_its_maximum() -> None:
    settings = PolicySettings(converge="downtime-ramp", downtime_max_ms=2000)
    verdicts, _ = simulate(settings, hotspot(3.0, 150_000))  # 1.2 s of dirty pages, for ever
    assert verdicts[-1].decision is Decision.SWITCH_OVER
    limits = [verdict.downtime_limit_ms for verdict in verdicts]
    assert limits == sorted(limits)
    assert 1200 <= limits[-1] <= 2000
    assert verdicts[-1].expected_downtime_ms <= limits[-1]
    verdicts, _ = simulate(replace(settings, downtime_max_ms=600), hotspot(3.0, 150_000))
    assert verdicts[-1].decision is Decision.GIVE_UP
    assert verdicts[-1].downtime_limit_ms == 600


def test_max_rounds_ends_a_slow_convergence() -> None:
    verdicts, _ = simulate(PolicySettings(max_rounds=4), sequential(0.9))
    assert verdicts[-1].decision is Decision.GIVE_UP
    assert len(verdicts) == 4
    assert "after 4 rounds" in verdicts[-1].reason


@pytest.mark.parametrize("ratio", [1.0, 3.0, 8.0])
def test_qemu_waits_longer_by_the_ratio(ratio: float) -> None:
    """QEMU holds uncompressed pages against compressed bandwidth."""
    ours, left = simulate(PolicySettings(), uniform(0.5), ratio)
    theirs, left_by_them = simulate(PolicySettings(policy="qemu", max_rounds=0), uniform(0.5), ratio)
    assert theirs[-1].decision is Decision.SWITCH_OVER
    assert left_by_them * PAGE / RATE * 1e3 <= 300 / ratio
    if ratio > 1.5:
        assert len(theirs) > len(ours)
        assert left_by_them < left


def test_qemu_throttles_each_second_time_by_its_own_figures() -> None:
    settings = PolicySettings(policy="qemu", converge="throttle", max_rounds=9)
    verdicts, _ = simulate(settings, sequential(1.5))
    assert [verdict.throttle_percent for verdict in verdicts[:8]] == [0, 20, 20, 30, 30, 40, 40, 50]


def test_no_dirty_page_is_no_downtime() -> None:
    empty = DirtyCurve((), (), RAM_PAGES)
    for policy in ("guest-rate", "qemu"):
        one = replace(figures(RAM_PAGES, 0, empty), duration_ms=0.0, wire_bytes=0, normal_pages=0)
        verdict = decide(PolicySettings(policy=policy), Situation([one], [], 0, 300.0))
        assert verdict.decision is Decision.SWITCH_OVER
        assert verdict.expected_downtime_ms == 0


def test_the_rate_is_that_of_the_latest_rounds_and_of_normal_pages() -> None:
    empty = DirtyCurve((), (), RAM_PAGES)
    first = replace(figures(RAM_PAGES, 0, empty), duration_ms=1000.0)
    last = RoundFigures(2, 40_000, 30_000, 10_000, 1, 400.0, 0, empty)
    assert guest_bytes_per_second([first, last]) == pytest.approx(30_000 * PAGE / 0.4)
    tiny = replace(last, pages=10, normal_pages=10, zero_pages=0, duration_ms=1.0)
    assert guest_bytes_per_second([last, tiny]) == pytest.approx(30_010 * PAGE / 0.401)
    zeros = replace(last, normal_pages=0, zero_pages=40_000)
    assert guest_bytes_per_second([zeros]) == pytest.approx(40_000 * PAGE / 0.4)


@given(st.lists(st.tuples(st.floats(0.001, 100), st.integers(0, RAM_PAGES)), min_size=1, max_size=8))
def test_a_curve_never_leaves_ram(points: list[tuple[float, int]]) -> None:
    recorder = CurveRecorder(RAM_PAGES)
    total = 0
    for seconds, pages in sorted(points):
        total = min(RAM_PAGES, max(total, pages))
        recorder.add(seconds, total)
    curve = recorder.curve()
    values = [curve.pages_after(seconds) for seconds in (0, 0.0005, 0.1, 1, 10, 1000)]
    assert values[0] == 0
    assert values == sorted(values)
    assert values[-1] <= RAM_PAGES


def test_foreseen_rounds() -> None:
    curve = DirtyCurve((1.0,), (60_000,), RAM_PAGES)
    rate = 120_000 * PAGE
    assert foreseen_rounds(curve, 12_000, rate, 300) == 0
    assert foreseen_rounds(curve, 120_000, rate, 300) == 2
    assert foreseen_rounds(curve, 120_000, rate / 3, 300) is None
    assert foreseen_rounds(curve, 1, 0.0, 300) is None
