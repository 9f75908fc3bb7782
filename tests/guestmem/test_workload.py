from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guestmem.patterns import SEQUENTIAL, UNIFORM, Pattern, parse_pattern
from guestmem.ram import GuestRam
from guestmem.selfcheck import inconsistency
from guestmem.timeline import Timeline
from guestmem.units import parse_size
from guestmem.workload import (
    CONTENTS,
    PRESETS,
    Phase,
    Workload,
    load_phases,
    self_check,
    steady,
)
from guestmem.writer import BLOCK_WRITES, Writer

MIB = 1 << 20
Words = npt.NDArray[np.uint64]
PATTERNS = ["uniform", "sequential", "hotspot:0.8,0.1", "hotspot:1,1", "zipf:0.5", "zipf:1", "zipf:1.3"]


class Noted:
    """Marks that can be looked at."""

    def __init__(self) -> None:
        self.pages: list[int] = []

    def mark(self, pages: npt.NDArray[np.intp]) -> None:
        self.pages += pages.tolist()


def writer(workload: Workload, size: int = 4 * MIB) -> tuple[Writer, GuestRam, Noted]:
    ram, noted = GuestRam.create(size, "test"), Noted()
    pool = np.random.default_rng(0).integers(1, 1 << 63, (256, 512), dtype=np.uint64)
    return Writer(ram, noted, pool, workload), ram, noted


@pytest.mark.parametrize("text", PATTERNS)
@pytest.mark.parametrize("pages", [256, 257, 100_000])
def test_a_pattern_stays_within_ram_and_depends_on_its_seed_alone(text: str, pages: int) -> None:
    pattern = parse_pattern(text)
    one, again, other = (pattern.stream(pages, seed) for seed in (3, 3, 4))
    drawn = np.concatenate([one(500), one(1500)])
    assert drawn.min() >= 0
    assert drawn.max() < pages
    np.testing.assert_array_equal(drawn, np.concatenate([again(500), again(1500)]))
    if text != "sequential":
        assert (other(2000) != drawn).any()


def test_patterns_have_their_shape() -> None:
    pages, count = 10_000, 200_000
    uniform = parse_pattern("uniform").stream(pages, 1)(count)
    assert np.max(np.bincount(uniform, minlength=pages)) < 60
    hot = parse_pattern("hotspot:0.9,0.1").stream(pages, 1)(count)
    assert abs((hot < pages * 0.1).mean() - 0.9) < 0.01
    counts = np.sort(np.bincount(parse_pattern("zipf:1").stream(pages, 1)(count), minlength=pages))[::-1]
    assert counts[:100].sum() / count > 0.4
    assert (counts > 0).sum() > 0.5 * pages
    sequential = parse_pattern("sequential").stream(7, 1)
    assert [*sequential(5), *sequential(5)] == [0, 1, 2, 3, 4, 5, 6, 0, 1, 2]


@pytest.mark.parametrize(
    "text",
    ["random", "uniform:1", "hotspot:2,0.1", "hotspot:0.5", "hotspot:0.5,0", "zipf:0", "zipf:a", "zipf:1,2"],
)
def test_a_pattern_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must|takes|parameters"):
        parse_pattern(text)


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(CONTENTS),
    st.sampled_from([64, 100, 4096]),
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
    pool = np.random.default_rng(0).integers(1, 1 << 63, (256, 512), dtype=np.uint64)
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
@pytest.mark.parametrize("size", [1, 64, 4096])
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


class Clock:
    """Time that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)

    def run(self, hand: Writer, seconds: float, step: float = 0.0005) -> int:
        """Bytes written in so many seconds, each call of `work` taking `step`."""
        before, end = hand.timeline.total_bytes, self.now + seconds
        while self.now < end:
            rest = hand.work()
            self.now = min(end, self.now + max(rest, step))
        return hand.timeline.total_bytes - before


@pytest.mark.parametrize("rate", [1 << 20, 32 << 20, 300 << 20])
@pytest.mark.parametrize("size", [512, 4096])
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


GOOD_TOML = """
loop = false
[[phase]]
rate = "64M"
pattern = "zipf:1.1"
content = "delta"
write-bytes = "1K"
seconds = 2.5
[[phase]]
rate = 0
"""


def test_phases_are_read_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "phases.toml"
    path.write_text(GOOD_TOML)
    workload = load_phases(path, seed=5)
    assert (workload.loop, workload.seed) == (False, 5)
    assert workload.phases == (
        Phase(64 << 20, Pattern("zipf", (1.1,)), "delta", 1024, 2.5),
        Phase(0),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "at least one"),
        ("[[phase]", "not TOML"),
        ("speed = 1\n[[phase]]\nrate = 1", "speed"),
        ("[[phase]]\npattern = 'uniform'", "phase 1: needs rate"),
        ("[[phase]]\nrate = 'fast'", "phase 1: not a size"),
        ("[[phase]]\nrate = -1", "phase 1: must be"),
        ("[[phase]]\nrate = 1\nseconds = 1\n[[phase]]\nrate = 1\npattern = 'x'", "phase 2: must be one of"),
        ("[[phase]]\nrate = 1\ncontent = 'silk'", "phase 1: must be one of"),
        ("[[phase]]\nrate = 1\nwrite-bytes = 5000", "phase 1: must be 1 to 4096"),
        ("[[phase]]\nrate = 1\nseconds = -1", "phase 1: seconds -1"),
        ("[[phase]]\nrate = 1\n[[phase]]\nrate = 1", "only the last"),
        ("[[phase]]\nrate = 1\ncolour = 1", "phase 1"),
    ],
)
def test_bad_phases_say_where_and_what(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "phases.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        load_phases(path)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_writes_and_says_why(name: str) -> None:
    reason, workload = PRESETS[name]
    assert len(reason) > 60
    hand, _, noted = writer(workload)
    for _ in range(10):
        hand.write(64)
    assert len(noted.pages) == 640


def test_sizes() -> None:
    assert [parse_size(text) for text in ("4096", "512K", "1.5G", "2MiB", "1t")] == [
        4096, 512 << 10, 3 << 29, 2 << 20, 1 << 40,
    ]  # fmt: skip


def selfchecked(writes: int) -> GuestRam:
    hand, ram, _ = writer(self_check(MIB), MIB)
    left = writes
    while left:
        left -= hand.write(min(left, 64))
    return ram


@pytest.mark.parametrize("writes", [0, 1, 100, 255, 256, 257, 1000, 256 * 256 - 1, 256 * 256 + 3])
def test_one_moment_of_the_self_check_is_consistent(writes: int) -> None:
    assert inconsistency(selfchecked(writes)) is None


@pytest.mark.parametrize("page", [0, 1, 50, 150, 254])
def test_a_stale_or_lost_page_is_found(page: int) -> None:
    ram = selfchecked(1000)
    ram.words.view(np.uint8)[page, 0] -= 1
    if page in (int(np.flatnonzero(np.diff(selfchecked(1000).words.view(np.uint8)[:, 0]))[0]),):
        return  # the page under the guest's hand may be of either moment
    assert inconsistency(ram) is not None
    ram.words[page] = 0
    assert inconsistency(ram) is not None


def test_the_slowest_second_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    line = Timeline()
    for index in range(200):
        clock.now += 0.05
        line.add(0 if 100 <= index < 110 else 10)  # half a second of nothing
    assert line.slowest_second(0.0, 1e9) == pytest.approx(100, abs=21)
    assert line.slowest_second(0.0, 1003.0) == pytest.approx(200, abs=21)
    assert line.slowest_second(2000.0, 3000.0) is None
