from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guestmem.dirty_log.shared import SharedDirtyLog
from guestmem.page import PAGE_BYTES, WORDS_PER_PAGE
from guestmem.patterns import SEQUENTIAL, UNIFORM, Pattern
from guestmem.ram import GuestRam
from guestmem.workload import CONTENTS, Phase, Workload, steady
from guestmem.writer import BLOCK_WRITES, Writer
from tests.support.writing import MIB, Clock, writer

Words = npt.NDArray[np.uint64]


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(CONTENTS),
    st.sampled_from([64, 100, PAGE_BYTES]),
    st.lists(st.integers(1, 64), min_size=1, max_size=60),
)
def test_the_same_seed_writes_the_same_however_it_is_cut(content: str, size: int, cuts: list[int]) -> None:
    workload = steady(Phase(MIB, Pattern("hotspot", (0.9, 0.1)), content, size), seed=9)
    one, ram, noted = writer(workload, MIB)
    for cut in cuts:
        left = cut
        while left:
            left -= one.write(left)
    other, same, _ = writer(workload, MIB)
    left = sum(cuts)
    while left:
        left -= other.write(min(left, 64))
    np.testing.assert_array_equal(ram.words, same.words)
    assert len(noted.pages) == sum(cuts)
    assert len(noted.pages) < BLOCK_WRITES * 4


def test_a_page_is_marked_after_it_is_written() -> None:
    """Marked before, a page could be fetched, sent as it was, and never be sent as it is."""
    ram = GuestRam.create(MIB, "test")
    pool = np.random.default_rng(0).integers(1, 1 << 63, (256, WORDS_PER_PAGE), dtype=np.uint64)
    marked = 0

    class Looking:
        def mark(self, pages: npt.NDArray[np.intp]) -> None:
            nonlocal marked
            marked += len(pages)
            assert ram.words[pages].all()  # was zero: every word is new

    hand = Writer(ram, Looking(), pool, steady(Phase(MIB, SEQUENTIAL)))
    while marked < ram.pages:
        hand.write(64)


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("size", [1, 64, PAGE_BYTES])
def test_only_what_is_marked_changes_and_no_more_than_asked(content: str, size: int) -> None:
    one, ram, noted = writer(steady(Phase(MIB, UNIFORM, content, size)))
    ram.words[:] = np.random.default_rng(1).integers(1, 1 << 63, ram.words.shape, dtype=np.uint64)
    before = ram.words.copy()
    for _ in range(4):
        one.write(50)
    changed = np.flatnonzero((before != ram.words).any(axis=1))
    assert set(changed.tolist()) <= set(noted.pages)
    assert len(changed) > 100
    width = (before.view(np.uint8) != ram.words.view(np.uint8))[changed].sum(axis=1).max()
    once = 32 if content == "delta" else size
    most = max(noted.pages.count(page) for page in changed[:50].tolist())
    assert width <= once * max(most, 3)


def test_contents_are_what_they_say() -> None:
    checks: dict[str, Callable[[Words], object]] = {
        "zero": lambda words: not words.any(),
        "constant": lambda words: (words == words.flat[0]).all() and words.all(),
        "random": lambda words: len(np.unique(words)) == words.size,
        "corpus": lambda words: words.all(),
    }
    for content, check in checks.items():
        one, ram, noted = writer(steady(Phase(MIB, SEQUENTIAL, content)))
        ram.words[:] = 7
        for _ in range(3):
            one.write(64)
        assert check(ram.words[np.unique(noted.pages)]), content


@pytest.mark.parametrize("rate", [1 << 20, 32 << 20, 300 << 20])
@pytest.mark.parametrize("size", [512, PAGE_BYTES])
def test_a_rate_is_held_over_any_second(rate: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    hand, _, _ = writer(steady(Phase(rate, UNIFORM, "constant", size)))
    step = min(0.002, size * 64 / rate / 3)  # one process could do three times as much
    for _ in range(4):
        assert abs(clock.run(hand, 1.0, step) / rate - 1) < 0.05
    hand.throttle_percent = 75
    assert abs(clock.run(hand, 1.0, step) / (rate * 0.25) - 1) < 0.05
    hand.throttle_percent = 0
    assert abs(clock.run(hand, 1.0, step) / rate - 1) < 0.05


def test_a_guest_held_up_for_long_does_not_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    hand, _, _ = writer(steady(Phase(40 << 20)))
    clock.run(hand, 1.0)
    clock.now += 30
    assert clock.run(hand, 1.0) < 1.3 * (40 << 20)
    clock.now += 30
    hand.restart_clock()
    assert clock.run(hand, 1.0) < 1.02 * (40 << 20)


def test_phases_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    phases = (Phase(8 << 20, seconds=1.0), Phase(0, seconds=1.0), Phase(16 << 20, seconds=2.0))
    for loop in (True, False):
        hand, _, _ = writer(Workload(phases, loop))
        per_second = [round(clock.run(hand, 1.0) / MIB) for _ in range(6)]
        expected = [8, 0, 16, 16, 8, 0] if loop else [8, 0, 16, 16, 0, 0]
        assert all(abs(a - b) <= 1 for a, b in zip(per_second, expected, strict=True)), per_second


def test_a_pause_does_not_use_up_a_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    hand, _, _ = writer(Workload((Phase(8 << 20, seconds=1.0), Phase(0, seconds=9.0)), loop=False))
    clock.run(hand, 0.5)
    clock.now += 100
    hand.restart_clock()
    assert abs(clock.run(hand, 1.0) - (4 << 20)) < MIB


def synced(log: SharedDirtyLog, ram: GuestRam) -> npt.NDArray[np.uint32]:
    pages = np.zeros(ram.pages, np.uint32)
    return pages[: log.sync(pages)]


def shared_writer(ram: GuestRam, log: SharedDirtyLog, rate: int = 0) -> Writer:
    pool = np.arange(64 * WORDS_PER_PAGE, dtype=np.uint64).reshape(64, WORDS_PER_PAGE)
    return Writer(ram, log, pool, steady(Phase(rate)))


def test_the_same_seed_writes_the_same() -> None:
    rams = [GuestRam.create(4 * MIB, "test") for _ in range(2)]
    for ram in rams:
        one = shared_writer(ram, SharedDirtyLog.create(ram.pages))
        for _ in range(20):
            one.write(50)
    np.testing.assert_array_equal(rams[0].words, rams[1].words)


def test_what_is_written_is_marked() -> None:
    ram = GuestRam.create(4 * MIB, "test")
    log = SharedDirtyLog.create(ram.pages)
    before = ram.words.copy()
    shared_writer(ram, log).write(200)
    changed = np.flatnonzero((ram.words != before).any(axis=1))
    assert log.count() == len(np.union1d(changed, synced(log, ram)))
    assert log.count() == 0


def test_an_idle_guest_rests() -> None:
    ram = GuestRam.create(MIB, "test")
    assert shared_writer(ram, SharedDirtyLog.create(ram.pages)).work() > 1
