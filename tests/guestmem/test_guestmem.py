from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestmem.content import Corpus, Image, files_under, python_files
from guestmem.dirty_log.logs import SharedDirtyLog
from guestmem.ipc import Connection, PeerGone
from guestmem.prefault import NoMemoryBehind, populate
from guestmem.ram import GuestRam
from guestmem.segment import create_segment
from guestmem.workload import Phase, steady
from guestmem.writer import Writer
from guestmem.zero import normal_mask
from pipeline.processes.usage import Usage
from tests.support.harness import leftovers
from tests.support.rig import another_process

MIB = 1 << 20


def test_a_segment_has_no_name() -> None:
    before = leftovers()
    fd = create_segment("test", MIB, reserve=True)
    assert leftovers() <= before
    assert fd >= 0


def test_two_mappings_are_one_memory() -> None:
    ram = GuestRam.create(MIB, "test")
    other = ram.remap(writable=False)
    ram.words[3, 5] = 77
    assert other.words[3, 5] == 77
    with pytest.raises(ValueError, match="read-only"):
        other.words[3, 5] = 1


@pytest.mark.parametrize("size", [4095, 4097])
def test_ram_is_whole_pages(size: int) -> None:
    with pytest.raises(ValueError, match="page"):
        GuestRam.create(size, "test")


def test_populated_pages_fault_no_more() -> None:
    ram = GuestRam.create(32 * MIB, "test")
    populate(ram.mapping, write=True, first_share=0.4)
    before = Usage.now()
    ram.words[:, 0] = 1
    assert (Usage.now() - before).minor_faults < 80
    lazy = GuestRam.create(32 * MIB, "test")
    before = Usage.now()
    lazy.words[:, 0] = 1
    assert (Usage.now() - before).minor_faults > 400


def test_memory_that_is_not_there_is_an_error_and_no_sigbus() -> None:
    import os

    ram = GuestRam.create(MIB, "test")
    os.ftruncate(ram.fd, 4096)
    with pytest.raises(NoMemoryBehind, match="/dev/shm"):
        populate(ram.mapping, write=True)


@given(st.lists(st.sampled_from(["zero", "first", "last", "middle"]), min_size=1, max_size=40))
def test_zero_pages_are_those_without_a_byte(kinds: list[str]) -> None:
    pages = np.zeros((len(kinds), 512), np.uint64)
    where = {"first": 0, "middle": 200, "last": 511}
    for page, kind in zip(pages, kinds, strict=True):
        if kind != "zero":
            page[where[kind]] = 1 << 60
    assert normal_mask(pages).tolist() == [kind != "zero" for kind in kinds]


def test_a_corpus_is_repeated_over_the_filled_part(corpus: Path) -> None:
    ram = GuestRam.create(5 * MIB, "test")
    paths = files_under(corpus)
    assert [path.name for path in paths] == ["noise", "sparse", "text"]
    Corpus(corpus, 0.5).fill(ram)
    data = b"".join(path.read_bytes() for path in paths)
    filled = int(ram.pages * 0.5) * 4096
    assert bytes(ram.memory[:filled]) == (data * 4)[:filled]
    assert not any(ram.memory[filled:])


def test_an_image_is_the_ram(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    path.write_bytes(bytes(range(256)) * 4096)
    ram = GuestRam.create(MIB, "test")
    Image(path).fill(ram)
    assert bytes(ram.memory) == path.read_bytes()
    short = GuestRam.create(2 * MIB, "test")
    with pytest.raises(ValueError, match="fewer"):
        Image(path).fill(short)


def test_python_has_a_corpus_of_both_kinds() -> None:
    paths = python_files()
    assert sum(path.stat().st_size for path in paths) > 4 * MIB
    assert {path.suffix for path in paths} >= {".py"}


@pytest.mark.parametrize("filled", [0.0, 1.0])
def test_the_guest_writes_real_content(corpus: Path, filled: float) -> None:
    ram = GuestRam.create(4 * MIB, "test")
    content = Corpus(corpus, filled)
    content.fill(ram)
    pool = content.pool(ram)
    assert len({page.tobytes() for page in pool}) > 100


def synced(log: SharedDirtyLog, ram: GuestRam) -> npt.NDArray[np.uint32]:
    pages = np.zeros(ram.pages, np.uint32)
    return pages[: log.sync(pages)]


def writer(ram: GuestRam, log: SharedDirtyLog, rate: int = 0) -> Writer:
    pool = np.arange(64 * 512, dtype=np.uint64).reshape(64, 512)
    return Writer(ram, log, pool, steady(Phase(rate)))


def test_the_same_seed_writes_the_same() -> None:
    rams = [GuestRam.create(4 * MIB, "test") for _ in range(2)]
    for ram in rams:
        one = writer(ram, SharedDirtyLog.create(ram.pages))
        for _ in range(20):
            one.write(50)
    np.testing.assert_array_equal(rams[0].words, rams[1].words)


def test_what_is_written_is_marked() -> None:
    ram = GuestRam.create(4 * MIB, "test")
    log = SharedDirtyLog.create(ram.pages)
    before = ram.words.copy()
    writer(ram, log).write(200)
    changed = np.flatnonzero((ram.words != before).any(axis=1))
    assert log.count() == len(np.union1d(changed, synced(log, ram)))
    assert log.count() == 0


def test_an_idle_guest_rests() -> None:
    ram = GuestRam.create(MIB, "test")
    assert writer(ram, SharedDirtyLog.create(ram.pages)).work() > 1


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
            dirty = synced(log, ram)
            seen[dirty] = ram.words[dirty, 0]
    # Killed between a write and its mark, the guest leaves its last batch unmarked.
    last = int(np.max(ram.words[:, 0]))
    dirty = synced(log, ram)
    seen[dirty] = ram.words[dirty, 0]
    now = ram.words[:, 0]
    assert ((seen == now) | (now == last)).all()


def test_messages_carry_descriptors_and_tell_of_the_end() -> None:
    one, other = Connection.pair()
    fd = create_segment("test", 4096)
    one.send({"kind": "ready", "n": 1}, (fd,))
    message, descriptors = other.receive()
    assert (message, len(descriptors)) == ({"kind": "ready", "n": 1}, 1)
    one.socket.send(b"[1]")
    with pytest.raises(ValueError, match="kind"):
        other.receive()
    one.close()
    with pytest.raises(PeerGone):
        other.receive()
