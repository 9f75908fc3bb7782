"""A curve through a few points: what guests of known kinds write between them and behind the last."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.forecast.smooth_curve import smooth_curve

RAM_PAGES = 65536
POINTS = (0.125, 0.25, 0.5, 1.0, 2.0)


def at_random(seconds: float, writes: float, pages: int = RAM_PAGES) -> float:
    """Distinct pages after so long, of so many that are written at random."""
    return pages * (1 - math.exp(-seconds * writes / pages))


@pytest.mark.parametrize("seconds", [0.2, 0.7, 1.4, 2.5, 4.0, 8.0])
def test_a_guest_that_writes_at_random_is_followed(seconds: float) -> None:
    curve = smooth_curve(POINTS, tuple(at_random(at, 17000) for at in POINTS), RAM_PAGES)
    assert curve.pages_after(seconds) == pytest.approx(at_random(seconds, 17000), rel=0.01)


@pytest.mark.parametrize("seconds", [0.7, 3.0, 6.0])
def test_hot_pages_are_through_while_cold_ones_go_on(seconds: float) -> None:
    def both(at: float) -> float:
        return at_random(at, 20000, 4000) + at_random(at, 4000, 60000)

    curve = smooth_curve(POINTS, tuple(both(at) for at in POINTS), RAM_PAGES)
    assert curve.pages_after(seconds) == pytest.approx(both(seconds), rel=0.06)


def test_who_writes_always_new_pages_goes_straight_on() -> None:
    curve = smooth_curve(POINTS, tuple(1000 * at for at in POINTS), RAM_PAGES)
    for seconds in (0.3, 1.5, 5.0, 20.0):
        assert curve.pages_after(seconds) == pytest.approx(1000 * seconds, rel=0.01)


@pytest.mark.parametrize("pages", [(0.0,) * 5, (10.0,) * 5, (0.0, 0.0, 5.0, 5.0, 9.0)])
def test_where_nothing_more_is_written_it_stays_as_it_is(pages: tuple[float, ...]) -> None:
    curve = smooth_curve(POINTS, pages, RAM_PAGES)
    assert [curve.pages_after(at) for at in POINTS] == list(pages)


@given(st.lists(st.floats(0, 20000), min_size=1, max_size=7), st.floats(0.01, 100))
def test_it_goes_through_its_points_and_never_falls(more: list[float], longest: float) -> None:
    seconds = tuple(longest * (at + 1) / len(more) for at in range(len(more)))
    pages = tuple(sum(more[: at + 1]) for at in range(len(more)))
    curve = smooth_curve(seconds, pages, 10**6)
    for at, count in zip(seconds, pages, strict=True):
        assert curve.pages_after(at) == pytest.approx(count, abs=1)
    found = [curve.pages_after(longest * at / 20) for at in range(100)]
    assert all(later >= earlier - 1e-6 for earlier, later in itertools.pairwise(found))
