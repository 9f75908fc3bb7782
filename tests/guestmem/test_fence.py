"""Stores and loads in an order that every process sees, on every architecture.

What a fence does to a processor of another architecture cannot be seen here (x86-64 in CI): the tests look
at where it stands, and that the call it makes is one that the kernel knows.
"""

from __future__ import annotations

import numpy as np
import pytest

from guestmem import fence
from guestmem.dirty_log import kernel, shared
from guestmem.dirty_log.shared import SharedDirtyLog
from pipeline.packets import counters
from pipeline.packets.counters import Count, Counters, count_placed
from pipeline.packets.packet import Packet

PAGES = 64
NONE = np.zeros(0, np.uint32)


@pytest.fixture
def log() -> SharedDirtyLog:
    return SharedDirtyLog.create(PAGES)


def test_a_full_fence_is_a_call_that_the_kernel_knows() -> None:
    assert fence._libc.syscall(fence._NUMBER, fence.MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0
    fence.full_fence()
    fence._by_lock()


def test_a_page_is_written_before_it_is_marked(log: SharedDirtyLog, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(shared, "full_fence", lambda: seen.append(log.count()))
    log.mark(np.array([3, 4]))
    assert seen == [0] and log.count() == 2


def test_marks_are_cleared_before_pages_are_read(
    log: SharedDirtyLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.mark(np.array([3, 4]))
    seen: list[int] = []
    monkeypatch.setattr(shared, "full_fence", lambda: seen.append(log.count()))
    assert log.sync(np.zeros(PAGES, np.uint32)) == 2
    assert seen == [0]


def test_the_kernels_marks_are_cleared_before_pages_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    class Scan:
        def pages(self, into: object, clear: bool) -> int:
            done.append(f"scan, clear {clear}")
            return 0

    log = object.__new__(kernel.KernelDirtyLog)
    monkeypatch.setattr(log, "_scan", Scan(), raising=False)
    monkeypatch.setattr(kernel, "full_fence", lambda: done.append("fence"))
    log.sync(NONE)
    assert done == ["scan, clear True", "fence"]


def test_a_packet_is_counted_behind_its_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Counters(1)
    packet = Packet(1, 0, 1, np.array([1, 2], np.uint32), np.array([5], np.uint32), 0, 16, [0])
    seen: list[tuple[int, int]] = []

    def look() -> None:
        totals = rows.totals()
        seen.append((int(totals[Count.NORMAL_PAGES]), int(totals[Count.PACKETS])))

    monkeypatch.setattr(counters, "store_fence", look)
    count_placed(rows.row(0), packet)
    assert seen == [(2, 0)] and int(rows.totals()[Count.PACKETS]) == 1


@pytest.mark.parametrize("in_order", [True, False])
def test_stores_are_fenced_where_the_processor_does_not_keep_their_order(
    in_order: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fenced: list[int] = []
    monkeypatch.setattr(fence, "STORES_IN_ORDER", in_order)
    monkeypatch.setattr(fence, "full_fence", lambda: fenced.append(1))
    fence.store_fence()
    assert bool(fenced) is not in_order
