"""The progress bar's arithmetic: no terminal, no clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.progress import Course, Stage


def planned() -> Course:
    course = Course()
    for stage, seconds in zip(Stage, (10.0, 5.0, 20.0, 5.0), strict=True):
        course.plan(stage, seconds)
    return course


def test_what_is_left_is_the_plan_until_something_is_seen() -> None:
    course = planned()
    course.reach(Stage.FILLING, 0.0, now=100.0)
    assert course.left_seconds(100.0) == pytest.approx(40.0)
    assert course.left_seconds(104.0) == pytest.approx(36.0)


def test_a_stage_is_judged_by_its_own_speed() -> None:
    course = planned()
    course.reach(Stage.FILLING, 0.0, now=0.0)
    course.reach(Stage.FILLING, 0.5, now=10.0)
    assert course.left_seconds(10.0) == pytest.approx(10.0 + 30.0)


def test_a_stage_that_is_left_out_costs_nothing() -> None:
    course = planned()
    course.reach(Stage.FILLING, 1.0, now=0.0)
    course.plan(Stage.PREALLOC, 0.0)
    course.reach(Stage.ROUNDS, 0.0, now=10.0)
    assert course.left_seconds(10.0) == pytest.approx(25.0)


@given(
    st.lists(
        st.tuples(st.sampled_from(list(Stage)), st.floats(0, 1), st.floats(0, 10)), min_size=1, max_size=60
    )
)
def test_the_bar_never_goes_back_and_never_leaves_its_ends(steps: list[tuple[Stage, float, float]]) -> None:
    course, now, before = planned(), 0.0, 0.0
    for stage, share, passed in steps:
        now += passed
        course.reach(stage, share, now)
        shown = course.share(now)
        assert before <= shown <= 1.0
        assert course.left_seconds(now) >= 0.0
        before = shown
