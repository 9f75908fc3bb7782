from __future__ import annotations

import errno
import os

import numpy as np
import numpy.typing as npt
import pytest

from guestmem.dirty_log import shared
from guestmem.dirty_log.contract import NoDirtyLog, Opening
from guestmem.dirty_log.shared import KIND, SharedDirtyLog
from guestmem.page import PAGE_BYTES
from guestmem.ram import GuestRam
from guestmem.segment import SHM
from tests.support.rig import another_process

MIB = 1 << 20


def synced(log: SharedDirtyLog) -> npt.NDArray[np.uint32]:
    pages = np.zeros(MIB // PAGE_BYTES, np.uint32)
    return pages[: log.sync(pages)]


def test_no_write_is_lost_between_syncs() -> None:
    """Write, then mark; clear, then read: the reader ends with the last version of every page."""
    ram = GuestRam.create(MIB, "test")
    log = SharedDirtyLog.create(ram.pages)
    seen = np.zeros(ram.pages, np.uint64)
    choices = np.random.default_rng(5).integers(0, ram.pages, (997, 16))

    def guest(turn: int) -> None:
        pages = choices[turn % len(choices)]
        ram.words[pages, 0] = turn
        log.mark(pages)

    with another_process(guest):
        while np.max(ram.words[:, 0]) < 50_000:
            dirty = synced(log)
            seen[dirty] = ram.words[dirty, 0]
    # Killed between a write and its mark, the guest leaves its last batch unmarked.
    last = int(np.max(ram.words[:, 0]))
    dirty = synced(log)
    seen[dirty] = ram.words[dirty, 0]
    now = ram.words[:, 0]
    assert ((seen == now) | (now == last)).all()


def test_a_mark_set_during_a_sync_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the marks and their clearing, the guest marks another page."""
    log = SharedDirtyLog.create(256)
    log.mark(np.array([3, 200]))
    look = np.flatnonzero

    def marked_meanwhile(marks: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
        found = look(marks)
        log.mark(np.array([4]))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(np, "flatnonzero", marked_meanwhile)
        assert synced(log).tolist() == [3, 200]
    assert synced(log).tolist() == [4]


def test_both_sides_are_one_log() -> None:
    guest = SharedDirtyLog.create(256)
    opening = Opening(os.getpid(), 0, 256, guest.fields, [os.dup(fd) for fd in guest.descriptors])
    migration = KIND.open(opening)
    guest.close()
    guest.mark(np.array([17]))
    assert migration.count() == 1
    with pytest.raises(ValueError, match="256 bytes for 257 pages"):
        KIND.open(Opening(os.getpid(), 0, 257, {}, opening.descriptors))


def test_a_log_without_room_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(label: str, size_bytes: int, *, reserve: bool) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shared, "create_segment", full)
    with pytest.raises(NoDirtyLog, match=f"no room in {SHM}"):
        SharedDirtyLog.create(256)
