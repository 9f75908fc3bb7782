"""The bounded queue: packet slots in shared memory, slot numbers in pipes.

    free numbers  --get-->  channel writes the slot  --put-->  filled numbers
         ^                                                          |
         +--put--  receiver has applied the slot  <-----get---------+

A slot is somebody's from `get` to `put`. When receivers stop, channels run out of free slots and
wait: memory is bounded by the number of slots. No lock is held anywhere: the kernel keeps the
pipes, and a process that dies takes nothing with it but its own slot.

Of many that wait at a pipe the kernel wakes one for each number (since Linux 5.5). POSIX message queues,
of which nobody can wait at several but by poll(2), woke all of them: 0.63 ms of CPU a number with 63.
"""

from __future__ import annotations

import os
import select
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from guestmem.aligned import AlignedMapping
from guestmem.page import PAGE_BYTES, WORDS_PER_PAGE
from guestmem.prefault import populate
from guestmem.segment import SHM, create_segment
from pipeline.errors import HostError
from pipeline.processes.limits import limit_of

NUMBER_BYTES = 2
END = 0xFFFF
"""In the place of a slot's number: no more come."""

MAX_SLOTS = 1000
"""Their numbers fit any pipe: the smallest of Linux (pipe(7), pipe-user-pages-soft) holds 4096 bytes."""

HUGE_FROM_BYTES = 64 << 20
"""A queue as large as this lies in huge pages where the kernel makes them, since every worker maps it: 128 of
them took 6 s to get their page tables of 256 MiB on two CPUs."""

CACHE_LINE_BYTES = 64
NOTE_BYTES = 8
FRONT_USED, IN_RAM = 0, 1
"""What the two numbers of a slot's note are."""


class SlotNumbers:
    """A bounded set of slot numbers that processes hand each other, first in first out: a pipe.

    A number is written and read whole, since it is shorter than PIPE_BUF. The kernel wakes one waiter a
    number, in turn.
    """

    def __init__(self) -> None:
        """Raises OSError."""
        self._reading, self._writing = os.pipe()
        # The same pipe by another open file, which alone does not wait (open(2) of /proc/self/fd/N).
        self._looking = os.open(f"/proc/self/fd/{self._reading}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def put(self, slot: int) -> None:
        """Hand on a slot. Never waits: the pipe has room for every number there is."""
        os.write(self._writing, slot.to_bytes(NUMBER_BYTES, "little"))

    def end(self, readers: int) -> None:
        """Tell so many readers that no more come, behind what is there."""
        for _ in range(readers):
            self.put(END)

    def get(self) -> int | None:
        """Wait for a slot; None when no more come."""
        return _slot(os.read(self._reading, NUMBER_BYTES))

    def get_nowait(self) -> int | None:
        """A slot if there is one."""
        try:
            return _slot(os.read(self._looking, NUMBER_BYTES))
        except BlockingIOError:
            return None

    def fileno(self) -> int:
        """The descriptor that shows that a slot is there."""
        return self._looking

    def close(self) -> None:
        for fd in (self._reading, self._writing, self._looking):
            os.close(fd)


class SlotsOr:
    """Waits for a slot, or for one of some descriptors. Belongs to the process that made it.

    One waiter is woken a number here too (EPOLLEXCLUSIVE, epoll_ctl(2)).
    """

    def __init__(self, numbers: SlotNumbers, *descriptors: int) -> None:
        self._numbers = numbers
        self._epoll = select.epoll()
        self._epoll.register(numbers, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        for descriptor in descriptors:
            self._epoll.register(descriptor, select.EPOLLIN)

    def get(self, timeout_seconds: float | None) -> int | None:
        """A slot; None when a descriptor has something to read first, or after a time. Slots go first."""
        slot = self._numbers.get_nowait()
        while slot is None:
            ready = self._epoll.poll(timeout_seconds)
            slot = self._numbers.get_nowait()
            if slot is None and any(fd != self._numbers.fileno() for fd, _ in ready or [(-1, 0)]):
                return None
        self._stand_last()
        return slot

    def _stand_last(self) -> None:
        """Of those that wait the kernel wakes the one that came first, so whoever was served comes again."""
        self._epoll.unregister(self._numbers)
        self._epoll.register(self._numbers, select.EPOLLIN | select.EPOLLEXCLUSIVE)

    def close(self) -> None:
        self._epoll.close()


def _slot(number: bytes) -> int | None:
    slot = int.from_bytes(number, "little")
    return None if slot == END else slot


class Slot(NamedTuple):
    """One slot: the whole of it, its payload part, and that as (pages, 512) uint64.

    `note` is between the processes of one side and never travels: how many bytes of the front are
    used, and whether the payload is still where it was in guest RAM.
    """

    memory: memoryview
    note: memoryview
    payload: memoryview
    words: npt.NDArray[np.uint64]


class PacketQueue:
    """The slots, with the free and the filled numbers.

    A slot is `front_bytes` for header, page numbers and checksums, a note, then `payload_bytes`, each
    rounded up to cache lines, the whole to pages. Created by the coordinator before the workers are forked;
    each worker then calls `attach` for a mapping of its own.
    """

    def __init__(self, slots: int, front_bytes: int, payload_bytes: int) -> None:
        """Raises HostError when shared memory or pipes cannot be had."""
        self.slots = slots
        self.front_bytes = _round_up(front_bytes, CACHE_LINE_BYTES)
        self.payload_bytes = payload_bytes
        self.slot_bytes = _round_up(self.front_bytes + CACHE_LINE_BYTES + payload_bytes, PAGE_BYTES)
        self.size_bytes = slots * self.slot_bytes
        try:
            self._fd = create_segment("slots", self.size_bytes, reserve=True)
        except OSError as error:
            raise limit_of(error) or HostError(
                f"no room in {SHM} for a queue of {self.size_bytes} bytes: {error.strerror}"
            ) from error
        try:
            self.free, self.filled = SlotNumbers(), SlotNumbers()
        except OSError as error:
            raise limit_of(error) or HostError(f"cannot make a pipe: {error.strerror}") from error
        for slot in range(slots):
            self.free.put(slot)
        self._slots: list[Slot] = []
        if self.size_bytes >= HUGE_FROM_BYTES:
            populate(AlignedMapping(self._fd, writable=True), write=True, huge=True)

    def attach(self) -> None:
        """Map the slots in this process."""
        self.mapping = AlignedMapping(self._fd, writable=True)
        memory = self.mapping.memory
        starts = range(0, self.size_bytes, self.slot_bytes)
        self._slots = [self._slot(memory[start : start + self.slot_bytes]) for start in starts]

    def _slot(self, memory: memoryview) -> Slot:
        start = self.front_bytes + CACHE_LINE_BYTES
        note = memory[self.front_bytes : self.front_bytes + NOTE_BYTES].cast("I")
        payload = memory[start : start + self.payload_bytes]
        pages = self.payload_bytes // PAGE_BYTES
        words = np.frombuffer(payload[: pages * PAGE_BYTES], np.uint64)
        return Slot(memory, note, payload, words.reshape(pages, WORDS_PER_PAGE))

    def close(self) -> None:
        """Give back this process's hold on the slots and their numbers."""
        os.close(self._fd)
        self.free.close()
        self.filled.close()

    def slot(self, number: int) -> Slot:
        """A slot in this process's mapping. Raises ValueError for a number that is none."""
        if not 0 <= number < self.slots:
            raise ValueError(f"slot {number} of {self.slots}")
        return self._slots[number]


def _round_up(size: int, unit: int) -> int:
    return -(-size // unit) * unit
