"""The bounded queue: packet slots in shared memory, slot numbers in POSIX message queues.

    free numbers  --get-->  channel writes the slot  --put-->  filled numbers
         ^                                                          |
         +--put--  receiver has applied the slot  <-----get---------+

A slot is somebody's from `get` to `put`. When receivers stop, channels run out of free slots and
wait: memory is bounded by the number of slots. No lock is held anywhere: the kernel keeps the
message queues, and a process that dies takes nothing with it but its own slot.

An unprivileged process may make message queues of 10 messages (`fs.mqueue.msg_max`), so the
numbers are spread over as many queues as that takes: slot n always travels through queue
n mod queues, which therefore is never full, and `put` never waits.
"""

from __future__ import annotations

import os
import secrets
import select
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import posix_ipc

from guestmem.names import QUEUE, guarded_name
from guestmem.page import PAGE_BYTES, WORDS_PER_PAGE
from guestmem.segment import SHM, create_segment, map_segment
from pipeline.errors import HostError
from pipeline.processes.limits import limit_of, message_queues_are_out

MSG_MAX = Path("/proc/sys/fs/mqueue/msg_max")
UNPRIVILEGED_MSG_MAX = 10
NUMBER_BYTES = 2
MAX_SLOTS = 1000
"""200 message queues of 10, of the 256 (`queues_max`) that a host has for everybody."""

CACHE_LINE_BYTES = 64
NOTE_BYTES = 8
FRONT_USED, IN_RAM = 0, 1
"""What the two numbers of a slot's note are."""


def messages_per_queue() -> int:
    """How many messages one queue may hold here, at most what everybody may have."""
    try:
        return max(1, min(UNPRIVILEGED_MSG_MAX, int(MSG_MAX.read_text())))
    except (OSError, ValueError):
        return UNPRIVILEGED_MSG_MAX


def _create_queue(label: str, capacity: int) -> posix_ipc.MessageQueue:
    name = f"/ramferry-{os.getpid()}-{label}-{secrets.token_hex(4)}"
    try:
        with guarded_name(QUEUE, name):
            queue = posix_ipc.MessageQueue(
                name,
                posix_ipc.O_CREX,
                mode=0o600,
                max_messages=capacity,
                max_message_size=NUMBER_BYTES,
            )
            queue.unlink()
            # Empty is answered at once: a receive with a time-out of 0 takes 36 us to say so.
            queue.block = False
    except (OSError, ValueError, posix_ipc.Error) as error:
        raise message_queues_are_out(error) from error
    return queue


class SlotNumbers:
    """A bounded set of slot numbers that processes hand each other, first in first out."""

    def __init__(self, label: str, slots: int) -> None:
        count = -(-slots // messages_per_queue())
        capacity = -(-slots // count)
        self._queues = [_create_queue(label, capacity) for _ in range(count)]
        self._turn = 0
        self._wait = select.poll()
        for queue in self._queues:
            self._wait.register(queue.mqd, select.POLLIN)

    def put(self, slot: int) -> None:
        """Hand on a slot. Never waits: the slot's queue has room for every slot it serves."""
        queue = self._queues[slot % len(self._queues)]
        queue.send(slot.to_bytes(NUMBER_BYTES, "little"))

    def get(self, *or_readable: int, timeout_ms: float | None = None) -> int | None:
        """Wait for a slot; None when one of the descriptors `or_readable` has something to read first, or
        after `timeout_ms`.

        Slots go before the descriptors.
        """
        slot = self.get_nowait()
        if slot is not None:
            return slot
        for fd in or_readable:
            self._wait.register(fd, select.POLLIN)
        try:
            while True:
                if all(fd in or_readable for fd, _ in self._wait.poll(timeout_ms)):
                    return None
                slot = self.get_nowait()
                if slot is not None:
                    return slot
        finally:
            for fd in or_readable:
                self._wait.unregister(fd)

    def get_nowait(self) -> int | None:
        """A slot if there is one. The queues take turns, so none is served last for ever."""
        for step in range(len(self._queues)):
            queue = self._queues[(self._turn + step) % len(self._queues)]
            try:
                message, _ = queue.receive()
            except posix_ipc.BusyError:
                continue
            except posix_ipc.SignalError:
                return None
            self._turn = (self._turn + step + 1) % len(self._queues)
            return int.from_bytes(message, "little")
        return None

    def close(self) -> None:
        for queue in self._queues:
            queue.close()


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
        """Raises HostError when shared memory or message queues cannot be had."""
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
        self.free = SlotNumbers("free", slots)
        self.filled = SlotNumbers("filled", slots)
        for slot in range(slots):
            self.free.put(slot)
        self._slots: list[Slot] = []

    def attach(self) -> None:
        """Map the slots in this process."""
        self.mapping = map_segment(self._fd, writable=True)
        memory = memoryview(self.mapping)
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
