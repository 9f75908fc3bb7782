"""Every dirty log, one contract."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from guestmem.dirty_log import KINDS, shared, write_protect
from guestmem.dirty_log.contract import DirtyLog, LogKind, NoDirtyLog, Opening
from guestmem.dirty_log.kernel import KernelDirtyLog
from guestmem.ipc import Connection
from guestmem.prefault import populate
from guestmem.ram import GuestRam

MIB = 1 << 20


class WatchedGuest:
    """Another process with its own mapping of RAM, which writes what it is told, and its log."""

    def __init__(self, kind: LogKind, size: int) -> None:
        self.ram = GuestRam.create(size, "test")
        self._connection, theirs = Connection.pair()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._live(kind, theirs)
            finally:
                os._exit(1)
        theirs.close()
        ready, descriptors = self._connection.receive()
        self.refusal = str(ready.get("text", ""))
        if not self.refusal:
            self.log = kind.open(Opening(self.pid, self.ram.fd, self.ram.pages, ready["fields"], descriptors))

    def _live(self, kind: LogKind, owner: Connection) -> None:
        ram = self.ram.remap(writable=True)
        populate(ram.mapping, write=True)
        try:
            log = kind.create(ram)
        except NoDirtyLog as error:
            owner.send({"kind": "no-log", "text": str(error)})
            return
        owner.send({"kind": "ready", "fields": dict(log.fields)}, log.descriptors)
        turn = 0
        while True:
            order, _ = owner.receive()
            if order["kind"] == "hammer":
                choices = np.random.default_rng(1).integers(0, ram.pages, (4096, 64))
                while True:
                    turn += 1
                    pages = choices[turn % 4096]
                    ram.words[pages, 0] = turn
                    log.mark(pages)
            pages = np.array(order["pages"], np.intp)
            turn += 1
            ram.words[pages, 1] += np.uint64(turn)
            log.mark(pages)
            owner.send({"kind": "written"})

    def write(self, *pages: int) -> None:
        self._connection.send({"kind": "write", "pages": pages})
        self._connection.receive()

    def hammer(self) -> None:
        self._connection.send({"kind": "hammer"})

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._connection.close()


Watched = tuple[WatchedGuest, DirtyLog]


def watched_guest(name: str, size: int) -> WatchedGuest:
    guest = WatchedGuest(KINDS[name], size)
    if guest.refusal:
        guest.kill()
        pytest.skip(guest.refusal)
    return guest


@pytest.fixture(params=list(KINDS))
def watched(request: pytest.FixtureRequest) -> Iterator[Watched]:
    guest = watched_guest(request.param, 8 * MIB)
    guest.log.sync(np.zeros(guest.ram.pages, np.uint32))
    yield guest, guest.log
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


@pytest.mark.parametrize("name", list(KINDS))
def test_a_large_log_is_fetched_in_parts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "SCAN_PAGES", 100)
    monkeypatch.setattr(write_protect, "REGIONS_OF_A_CALL", 10)
    guest = watched_guest(name, 4 * MIB)
    synced((guest, guest.log))
    pages = sorted(np.random.default_rng(3).choice(guest.ram.pages, 300, replace=False).tolist())
    guest.write(*pages)
    assert guest.log.count() == 300
    assert synced((guest, guest.log)).tolist() == pages
    guest.kill()
