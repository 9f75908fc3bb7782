from __future__ import annotations

import os
import select

import pytest

from pipeline.packets import queue
from pipeline.packets.queue import PacketQueue, SlotNumbers
from tests.support.harness import leftovers


@pytest.mark.parametrize("slots", [1, 2, 9, 10, 11, 25, 200])
def test_every_slot_number_comes_back_once(slots: int) -> None:
    numbers = SlotNumbers("test", slots)
    for slot in range(slots):
        numbers.put(slot)
    assert sorted(slot for slot in iter(numbers.get_nowait, None)) == list(range(slots))
    assert numbers.get_nowait() is None


def test_queues_stay_within_what_anybody_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    create = queue._create_queue

    def noting(label: str, capacity: int) -> object:
        made.append(capacity)
        return create(label, capacity)

    monkeypatch.setattr(queue, "_create_queue", noting)
    SlotNumbers("test", 194)
    assert max(made) <= 10
    assert sum(made) >= 194


def test_nothing_has_a_name() -> None:
    before = leftovers()
    PacketQueue(4, 64, 4096)
    assert leftovers() <= before


def test_a_full_queue_makes_the_channel_wait() -> None:
    packets = PacketQueue(3, 64, 4096)
    taken = [packets.free.get() for _ in range(3)]
    assert sorted(number for number in taken if number is not None) == [0, 1, 2]
    reading, writing = os.pipe()
    os.write(writing, b"x")
    assert packets.free.get(reading) is None  # nothing but the descriptor was ready
    assert not select.select([packets.free._queues[0].mqd], [], [], 0)[0]
    packets.free.put(1)
    assert packets.free.get() == 1
    os.close(reading)
    os.close(writing)


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

    from guestmem.names import QUEUE, SEGMENT, guarded_name

    before = leftovers()
    for kind in (SEGMENT, QUEUE):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            name = f"/ramferry-{os.getpid()}-guarded"
            with guarded_name(kind, name):
                if kind == SEGMENT:
                    posix_ipc.SharedMemory(name, posix_ipc.O_CREX, size=4096)
                else:
                    posix_ipc.MessageQueue(name, posix_ipc.O_CREX, max_messages=1)
                os.write(writing, b"x")
                time.sleep(60)
        os.read(reading, 1)
        assert kind == QUEUE or leftovers() - before
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        deadline = time.monotonic() + 2
        while leftovers() - before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert leftovers() <= before
