"""Deltas from a channel to a receiver: round by round, with what goes wrong between."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.codecs import METHODS
from pipeline.errors import RunFailed
from pipeline.source.kept_pages import NO_SLOT
from tests.support.rig import Rig

PAGES = 300
EVERYTHING = np.arange(PAGES)


def filled(method: str = "zstd", delta_pages: int = PAGES, seed: int = 1) -> Rig:
    rig = Rig(PAGES, method, 64, delta_pages=delta_pages)
    chance = np.random.default_rng(seed)
    rig.source.words[:] = chance.integers(0, 1 << 20, (PAGES, 512), dtype=np.uint64)
    return rig


def write(rig: Rig, pages: np.ndarray, value: int) -> None:
    rig.source.words[pages, 100:104] = value


@pytest.mark.parametrize("method", METHODS)
def test_pages_that_come_back_go_as_what_changed(method: str) -> None:
    rig = filled(method)
    rig.round(EVERYTHING)
    hot = np.arange(50, 250)
    for value in range(1, 5):
        write(rig, hot, value)
        rig.send(hot)
        rig.receive()
        figures = rig.settle()
        assert rig.same()
        assert figures is not None
        if value > 1:
            assert figures.pages == 200
            assert figures.missed_pages == 0
            assert figures.bytes < 200 * 100


def test_a_budget_of_one_page_is_one_page() -> None:
    rig = filled(delta_pages=1)
    rig.round(EVERYTHING)
    for value in range(1, 4):
        write(rig, EVERYTHING, value)
        rig.send(EVERYTHING)
        rig.receive()
        figures = rig.settle()
        assert rig.same()
    assert figures is not None
    assert (figures.pages, figures.missed_pages) == (1, PAGES - 1)


def test_what_did_not_arrive_is_no_base() -> None:
    rig = filled()
    rig.round(EVERYTHING)
    pages = np.arange(100)
    write(rig, pages, 1)
    rig.round(pages)
    write(rig, pages, 2)
    rig.send(pages)
    while rig.queue.filled.get_nowait() is not None:
        pass  # lost on its way
    rig.settle(pages.astype(np.uint32))
    write(rig, pages[:50], 3)
    rig.send(pages)
    rig.receive()
    figures = rig.settle()
    assert rig.same()
    assert figures is not None
    assert figures.pages == 0


def test_a_delta_against_what_is_not_there_touches_nothing() -> None:
    rig = filled()
    rig.round(EVERYTHING)
    pages = np.arange(100)
    write(rig, pages, 1)
    rig.round(pages)
    write(rig, pages, 2)
    rig.send(pages)
    while rig.queue.filled.get_nowait() is not None:
        pass
    rig.settle()  # nobody says that it is missing
    before = rig.destination.words.copy()
    write(rig, pages, 3)
    rig.send(pages)
    with pytest.raises(RunFailed, match="delta of page 0: against round 3, here it is of round 2"):
        rig.receive()
    np.testing.assert_array_equal(rig.destination.words, before)


def test_a_page_that_became_zero_is_no_base() -> None:
    rig = filled()
    rig.round(EVERYTHING)
    for value in (5, 0, 6, 7, 0, 0, 8):
        rig.source.words[:40] = value
        rig.source.words[:40, 3] = value
        rig.round(np.arange(60))
        assert rig.same()


def test_nothing_is_kept_any_more_where_it_does_not_pay() -> None:
    rig = filled()
    chance = np.random.default_rng(2)
    for _ in range(3):
        rig.source.words[:] = chance.integers(0, 1 << 63, (PAGES, 512), dtype=np.uint64)
        rig.round(EVERYTHING)
        assert rig.same()
    assert rig.keeping is not None
    assert rig.kept is not None
    assert "saved 0%" in rig.keeping.record.stopped
    assert (rig.kept.slot_of == NO_SLOT).all()


def test_hotter_pages_take_the_place_of_cooler_ones() -> None:
    rig = filled(delta_pages=10)
    rig.round(EVERYTHING)
    rig.round(np.arange(10))
    assert rig.kept is not None
    for _ in range(3):
        write(rig, np.arange(20, 30), 1)
        rig.round(np.arange(20, 30))
    assert (rig.kept.slot_of[20:30] != NO_SLOT).all()
    assert (rig.kept.slot_of[:10] == NO_SLOT).all()


@given(st.integers(0, 1 << 30), st.integers(1, PAGES))
@settings(max_examples=25, deadline=None)
def test_whatever_a_guest_writes_arrives(seed: int, delta_pages: int) -> None:
    chance = np.random.default_rng(seed)
    rig = filled(delta_pages=delta_pages, seed=seed)
    rig.round(EVERYTHING)
    for _ in range(6):
        pages = np.sort(chance.choice(PAGES, chance.integers(1, PAGES), replace=False))
        for page in pages:
            kind = chance.integers(4)
            if kind == 0:
                rig.source.memory[int(page * 4096 + chance.integers(4096))] = int(chance.integers(256))
            elif kind == 1:
                rig.source.words[page] = chance.integers(0, 1 << 63, 512, dtype=np.uint64)
            elif kind == 2:
                rig.source.words[page] = 0
        rig.send(pages)
        lost = chance.random() < 0.3
        missing = pages.astype(np.uint32) if lost else None
        if lost:
            while (slot := rig.queue.filled.get_nowait()) is not None:
                rig.queue.free.put(slot)
        rig.receive()
        rig.settle(missing)
        if lost:
            rig.round(pages)
        assert rig.same()
