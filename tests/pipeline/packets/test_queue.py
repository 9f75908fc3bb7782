from __future__ import annotations

import os

import pytest

from pipeline.packets.queue import MAX_SLOTS, PacketQueue, SlotNumbers, SlotsOr
from tests.support.harness import leftovers


@pytest.mark.parametrize("slots", [1, 2, 9, 200, MAX_SLOTS])
def test_every_slot_number_comes_back_once(slots: int) -> None:
    numbers = SlotNumbers()
    for slot in range(slots):
        numbers.put(slot)
    assert sorted(slot for slot in iter(numbers.get_nowait, None)) == list(range(slots))
    assert numbers.get_nowait() is None


def test_nothing_has_a_name() -> None:
    before = leftovers()
    PacketQueue(4, 64, 4096)
    assert leftovers() <= before


def test_a_full_queue_makes_the_channel_wait() -> None:
    packets = PacketQueue(3, 64, 4096)
    taken = [packets.free.get() for _ in range(3)]
    assert sorted(number for number in taken if number is not None) == [0, 1, 2]
    reading, writing = os.pipe()
    either = SlotsOr(packets.free, reading)
    assert either.get(0.0) is None
    os.write(writing, b"x")
    assert either.get(None) is None  # nothing but the descriptor was ready
    assert packets.free.get_nowait() is None
    packets.free.put(1)
    assert either.get(None) == 1, "slots go first"
    packets.free.put(2)
    assert packets.free.get() == 2
    either.close()
    os.close(reading)
    os.close(writing)


def test_each_reader_hears_of_the_end_behind_what_is_there() -> None:
    numbers = SlotNumbers()
    numbers.put(5)
    numbers.end(2)
    assert [numbers.get() for _ in range(3)] == [5, None, None]


def test_of_many_that_wait_all_are_served_and_one_is_woken_a_number() -> None:
    """Each of eight processes takes one number and is gone; without a number nobody is woken."""
    numbers = SlotNumbers()
    waiting = []
    for index in range(8):
        pid = os.fork()
        if pid == 0:
            slot = numbers.get() if index % 2 else SlotsOr(numbers).get(None)
            os._exit(0 if slot is not None else 1)
        waiting.append(pid)
    for slot in range(8):
        numbers.put(slot)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in waiting] == [0] * 8
    assert numbers.get_nowait() is None


def test_a_slot_number_out_of_range_is_refused() -> None:
    packets = PacketQueue(3, 64, 4096)
    packets.attach()
    with pytest.raises(ValueError, match="slot 3"):
        packets.slot(3)


def test_slots_do_not_overlap() -> None:
    packets = PacketQueue(3, 100, 5000)
    packets.attach()
    for number in range(3):
        packets.slot(number).memory[:] = bytes([number + 1]) * packets.slot_bytes
    assert all(set(packets.slot(number).memory) == {number + 1} for number in range(3))
    assert len(packets.slot(0).payload) == 5000


def test_a_name_does_not_outlive_its_creator_killed_in_between() -> None:
    """Killed between creating and unlinking, with its whole process group."""
    import signal
    import time

    import posix_ipc

    from guestmem.names import guarded_name

    before = leftovers()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        name = f"/ramferry-{os.getpid()}-guarded"
        with guarded_name(name):
            posix_ipc.SharedMemory(name, posix_ipc.O_CREX, size=4096)
            os.write(writing, b"x")
            time.sleep(60)
    os.read(reading, 1)
    assert leftovers() - before
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    deadline = time.monotonic() + 2
    while leftovers() - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert leftovers() <= before
