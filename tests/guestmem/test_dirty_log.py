"""Two logs, one contract."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from guestmem.dirty_log.logs import DirtyLog, KernelDirtyLog, SharedDirtyLog
from guestmem.dirty_log.write_protect import NoKernelLog, register
from guestmem.prefault import populate
from guestmem.ram import GuestRam

MIB = 1 << 20


class WatchedGuest:
    """Another process with its own mapping of RAM, which writes what it is told."""

    def __init__(self, kind: str, size: int) -> None:
        self.ram = GuestRam.create(size, "test")
        self.shared = SharedDirtyLog.create(self.ram.pages)
        self._orders, orders = os.pipe()[::-1]
        answers, self._tell = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._live(kind, orders)
        self._answers = answers
        answer = os.read(answers, 100).decode()
        self.address = int(answer) if answer.isdigit() else None
        self.refusal = answer

    def _live(self, kind: str, orders: int) -> None:
        ram = self.ram.remap(writable=True)
        populate(ram.mapping, write=True)
        address = ram.words.ctypes.data
        try:
            if kind == "kernel":
                register(address, ram.size_bytes)
        except NoKernelLog as error:
            os.write(self._tell, str(error).encode()[:90])
            os._exit(0)
        os.write(self._tell, str(address).encode())
        turn = 0
        while True:
            order = os.read(orders, 1 << 16).decode()
            if order == "hammer":
                choices = np.random.default_rng(1).integers(0, ram.pages, (4096, 64))
                while True:
                    turn += 1
                    pages = choices[turn % 4096]
                    ram.words[pages, 0] = turn
                    if kind == "shared":
                        self.shared.mark(pages)
            pages = np.fromstring(order, np.intp, sep=" ") if order != "none" else np.zeros(0, np.intp)
            turn += 1
            ram.words[pages, 1] += np.uint64(turn)
            if kind == "shared":
                self.shared.mark(pages)
            os.write(self._tell, b"x")

    def write(self, *pages: int) -> None:
        os.write(self._orders, " ".join(map(str, pages)).encode() or b"none")
        os.read(self._answers, 1)

    def hammer(self) -> None:
        os.write(self._orders, b"hammer")

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


Watched = tuple[WatchedGuest, DirtyLog]


@pytest.fixture(params=["shared", "kernel"])
def watched(request: pytest.FixtureRequest) -> Iterator[Watched]:
    guest = WatchedGuest(request.param, 8 * MIB)
    log: DirtyLog = guest.shared
    if request.param == "kernel":
        if guest.address is None:
            guest.kill()
            pytest.skip(guest.refusal)
        log = KernelDirtyLog(guest.pid, guest.address, guest.ram.size_bytes)
    log.sync(np.zeros(guest.ram.pages, np.uint32))
    yield guest, log
    guest.kill()


def synced(watched: Watched) -> npt.NDArray[np.uint32]:
    guest, log = watched
    pages = np.zeros(guest.ram.pages, np.uint32)
    return pages[: log.sync(pages)]


def test_a_clean_log_is_empty(watched: Watched) -> None:
    assert watched[1].count() == 0
    assert synced(watched).tolist() == []


def test_what_is_written_is_fetched_once_in_order(watched: Watched) -> None:
    guest, log = watched
    guest.write(5, 3, 2047, 0, 3)
    assert log.count() == 4
    assert synced(watched).tolist() == [0, 3, 5, 2047]
    assert log.count() == 0
    assert synced(watched).tolist() == []
    guest.write(3)
    assert synced(watched).tolist() == [3]


def test_counting_clears_nothing(watched: Watched) -> None:
    guest, log = watched
    guest.write(*range(0, 2000, 3))
    assert [log.count() for _ in range(3)] == [667] * 3
    assert synced(watched).tolist() == list(range(0, 2000, 3))


@pytest.mark.parametrize("step", [1, 2, 7])
def test_all_and_every_nth_page(watched: Watched, step: int) -> None:
    guest, log = watched
    for start in range(0, guest.ram.pages, 700):
        guest.write(*range(start, min(start + 700, guest.ram.pages), step))
    expected = sorted(
        {page for start in range(0, 2048, 700) for page in range(start, min(start + 700, 2048), step)}
    )
    assert log.count() == len(expected)
    assert synced(watched).tolist() == expected


def test_reading_is_not_writing(watched: Watched) -> None:
    guest, log = watched
    assert guest.ram.words.sum() == 0
    guest.write()
    assert log.count() == 0


def test_no_write_of_millions_is_lost(watched: Watched) -> None:
    """The guest writes as fast as it can while the log is synced as fast as it can."""
    guest, log = watched
    scratch = np.zeros(guest.ram.pages, np.uint32)
    seen = guest.ram.words[:, 0].copy()
    guest.hammer()
    while int(np.max(guest.ram.words[:, 0])) * 64 < 3_000_000:
        dirty = scratch[: log.sync(scratch)]
        seen[dirty] = guest.ram.words[dirty, 0]
    os.kill(guest.pid, signal.SIGSTOP)
    while os.waitid(os.P_PID, guest.pid, os.WSTOPPED | os.WNOWAIT) is None:
        pass
    last = int(np.max(guest.ram.words[:, 0]))
    dirty = scratch[: log.sync(scratch)]
    seen[dirty] = guest.ram.words[dirty, 0]
    now = guest.ram.words[:, 0]
    # Stopped between its stores and its marks, a guest that marks has not marked its last batch.
    lost = (seen != now) & (now != last)
    if isinstance(log, KernelDirtyLog):
        lost = seen != now
    assert not lost.any(), np.flatnonzero(lost)


def test_a_large_log_is_fetched_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    import guestmem.dirty_log.logs
    import guestmem.dirty_log.write_protect

    monkeypatch.setattr(guestmem.dirty_log.logs, "SCAN_PAGES", 100)
    monkeypatch.setattr(guestmem.dirty_log.write_protect, "MAX_REGIONS", 10)
    for kind in ("shared", "kernel"):
        guest = WatchedGuest(kind, 4 * MIB)
        log: DirtyLog = guest.shared
        if kind == "kernel":
            if guest.address is None:
                guest.kill()
                continue
            log = KernelDirtyLog(guest.pid, guest.address, guest.ram.size_bytes)
        synced((guest, log))
        pages = sorted(np.random.default_rng(3).choice(1024, 300, replace=False).tolist())
        guest.write(*pages)
        assert log.count() == 300
        assert synced((guest, log)).tolist() == pages
        guest.kill()


def test_the_kernel_log_of_a_process_that_is_gone_is_refused() -> None:
    guest = WatchedGuest("shared", MIB)
    guest.kill()
    with pytest.raises(NoKernelLog, match="pagemap"):
        KernelDirtyLog(guest.pid, 4096, MIB)


def test_a_kernel_without_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import guestmem.dirty_log.write_protect as module

    monkeypatch.setattr(module, "UFFD_FEATURE_WP_ASYNC", 1 << 60)
    ram = GuestRam.create(MIB, "test")
    with pytest.raises(NoKernelLog, match=r"since Linux 6\.7"):
        register(ram.words.ctypes.data, MIB)
    monkeypatch.setattr(module, "SYS_USERFAULTFD", {})
    with pytest.raises(NoKernelLog, match="not known on"):
        register(ram.words.ctypes.data, MIB)
