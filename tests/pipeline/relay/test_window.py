"""How much is under way, and how fast QEMU is read."""

from __future__ import annotations

import time

import pytest

from pipeline.relay.link_wire import LinkWire
from pipeline.relay.window import MIN_READ_BYTES, MIN_STREAM_BYTES, Pace, Window

MB = 10**6


def test_each_stream_has_its_share_and_a_full_one_leaves_the_others_theirs() -> None:
    window = Window()
    window.limit_bytes = 8 * MB
    assert window.room(0, 4) == 2 * MB
    assert window.room(2 * MB, 4) == 0
    assert window.room(0, 1000) == MIN_STREAM_BYTES
    # Less than a third of a share is not read: small blocks compress badly.
    assert window.room(MIN_STREAM_BYTES - MIN_READ_BYTES, 1000) == 0


def test_easy_memory_does_not_make_qemu_believe_in_a_fast_link() -> None:
    pace = Pace()
    pace.saw(100_000, 50_000)
    limit = pace.limit_bytes_per_second(10 * MB)
    for _ in range(1000):
        pace.saw(100_000, 100)
    assert pace.limit_bytes_per_second(10 * MB) == pytest.approx(limit)
    for _ in range(50):
        pace.room(10 * MB)
        pace.took(10 * MB)
        pace.look(link_is_full=False)
    assert pace.limit_bytes_per_second(10 * MB) == pytest.approx(limit)


def test_a_link_that_was_measured_too_slow_is_found_out() -> None:
    pace = Pace()
    for _ in range(20):
        pace.saw(100_000, 50_000)
    slow = pace.limit_bytes_per_second(MB)
    for _ in range(60):
        pace.took(MB)
        assert pace.room(MB) == 0
        pace.look(link_is_full=False)
    assert pace.limit_bytes_per_second(MB) > 100 * slow
    pace.look(link_is_full=True)
    assert pace.limit_bytes_per_second(MB) == pytest.approx(slow)


def test_what_crossed_while_qemu_was_held_back_is_not_the_links_speed() -> None:
    """Else easy memory, paced as if it were hard, would make the link seem slower with every look."""
    link, crossed = LinkWire(0), 0
    for _ in range(5):
        crossed += MB
        link.look(crossed, MB, held_back=False)
        time.sleep(0.002)
    measured = link.measured_bytes_per_second
    assert measured > 0
    for _ in range(50):
        crossed += 10
        link.look(crossed, MB, held_back=True)
    assert link.measured_bytes_per_second == measured
    assert not link.is_full()


def test_what_crosses_while_a_relay_has_no_cpu_is_not_the_links_speed() -> None:
    link, crossed = LinkWire(0), 0
    for _ in range(5):
        crossed += MB
        time.sleep(0.002)
        link.look(crossed, MB, held_back=False, sending_ns=10**9)
    measured = link.measured_bytes_per_second
    assert measured > 0
    for _ in range(50):
        crossed += 10
        time.sleep(0.001)
        link.look(crossed, MB, held_back=False, sending_ns=10**4)
    assert link.measured_bytes_per_second == measured
    assert not link.is_full()


def test_what_a_block_takes_at_least_is_no_queue() -> None:
    """A host so busy that a block takes 100 ms by itself must not have an ever smaller window."""
    window = Window()
    for _ in range(3):
        window.took(MB)
        window.room(window.under_way_bytes, 1)
        window.limit_bytes = MB
        window._looked_at = time.monotonic() - 0.1  # a look's time has passed
        assert window.room(MB, 1) == 0
        window.gave(MB, 0.1)
    assert window.limit_bytes > MB
