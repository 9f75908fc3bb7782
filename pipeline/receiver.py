"""One receive worker: dequeue, check, decompress into place, count."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from guestmem.control import Connection
from guestmem.prefault import NoMemoryBehind, populate, warm_heap
from guestmem.ram import WORDS_PER_PAGE, GuestRam
from guestmem.segment import PAGE_BYTES, create_segment, map_segment
from pipeline.accounting import Usage, private_bytes
from pipeline.codecs.method import (
    HEAP_PACKETS,
    CodecError,
    CodecSettings,
    CodecUnavailable,
    Decoder,
    Method,
)
from pipeline.codecs.qatzip import METHOD as QATZIP
from pipeline.counters import Count, Counters
from pipeline.errors import HostError, RunFailed
from pipeline.packet import Limits, Packet, read_packet
from pipeline.queue import PacketQueue, Slot
from pipeline.rounds import RoundList
from pipeline.tally import Received, Tally


class WrittenMap:
    """Which destination pages hold data: one byte a page, shared by the receivers.

    A zero page is cleared only where something had been written before, so that memory nobody
    needs is never touched. Rounds are apart (the barrier), and within one a page occurs once,
    so no two receivers write the same byte.
    """

    def __init__(self, pages: int) -> None:
        """Create it, all clean. Raises OSError."""
        self.mapping = map_segment(create_segment("written", pages, reserve=True), writable=True)
        self.flags: npt.NDArray[np.bool_] = np.frombuffer(self.mapping, np.bool_)


@dataclass(frozen=True)
class ReceiverPlan:
    """What a receiver works with. Everything shared was created before the fork."""

    number: int
    receivers: int
    destination: GuestRam
    written: WrittenMap
    rounds: RoundList
    queue: PacketQueue
    counters: Counters
    methods: tuple[Method, ...]
    raw: Method
    settings: CodecSettings
    limits: Limits
    prealloc: bool
    tally: Tally | None = None


def run_receiver(connection: Connection, plan: ReceiverPlan) -> None:
    """Set up, then apply packets until the coordinator says finish."""
    try:
        decoders = {method.code: method.open_decoder(plan.settings) for method in plan.methods}
        receiver = Receiver(plan, decoders)
        warm_heap(HEAP_PACKETS * plan.limits.packet_pages * PAGE_BYTES)
    except (CodecUnavailable, NoMemoryBehind) as error:
        raise HostError(str(error)) from error
    connection.send(
        {
            "kind": "ready",
            "fallback_reason": receiver.fallback_reason,
            "simulated": any(decoder.qat.simulated for decoder in decoders.values()),
            "prealloc_ms": receiver.prealloc_ms,
        }
    )
    before = Usage.now()
    while (number := plan.queue.filled.get(or_readable=connection.fileno())) is not None:
        receiver.apply(number)
    used = Usage.now() - before
    connection.receive()
    connection.send(
        {
            "kind": "usage",
            "private_bytes": private_bytes(),
            "fallback_reason": receiver.fallback_reason if receiver.software_requests else "",
            **asdict(used),
        }
    )
    for decoder in decoders.values():
        decoder.close()


class Receiver:
    """The loop from filled slots to destination pages."""

    def __init__(self, plan: ReceiverPlan, decoders: dict[int, Decoder]) -> None:
        """`decoders` by method code, all that a packet may name."""
        self._plan = plan
        self._decoders = decoders
        self._names = {method.code: method.name for method in plan.methods}
        self._destination = plan.destination.remap(writable=True)
        self.prealloc_ms = 0.0
        if plan.prealloc:
            began = time.perf_counter()
            share = plan.number / plan.receivers
            populate(self._destination.mapping, write=True, first_share=share)
            self.prealloc_ms = (time.perf_counter() - began) * 1e3
        plan.queue.attach()
        populate(plan.queue.mapping, write=True)
        populate(plan.written.mapping, write=True)
        plan.rounds.attach()
        self._count = plan.counters.row(plan.number)
        self._scratch = np.zeros((plan.limits.packet_pages, WORDS_PER_PAGE), np.uint64)
        self._plain = self._scratch.data.cast("B")
        self._applied = 0
        self._device = decoders.get(QATZIP.code)
        if plan.tally is not None:
            self._cells = [memoryview(row) for row in plan.tally.received[plan.number]]

    def apply(self, number: int) -> None:
        """Apply one filled slot and free it. Raises RunFailed for what is not a good packet."""
        plan = self._plan
        slot = plan.queue.slot(number)
        self._applied += 1
        name = plan.methods[-1].name
        try:
            packet = read_packet(slot.memory, plan.limits, plan.rounds.number)
            name = self._names[packet.method_code]
            if len(packet.normal):
                self._place(packet, slot)
            self._clear(packet.zero)
        except Exception as error:
            raise RunFailed(
                f"packet {self._applied}, method {name}: {type(error).__name__}: {error}"
            ) from error
        self._account(packet)
        plan.queue.free.put(number)

    def _place(self, packet: Packet, slot: Slot) -> None:
        """Put the normal pages where they belong: straight, when they lie side by side."""
        pages, payload = packet.normal, slot.payload[: packet.payload_bytes]
        first, count = int(pages[0]), len(pages)
        beside = int(pages[-1]) - first == count - 1
        raw = packet.method_code == self._plan.raw.code
        if beside:
            start = first * PAGE_BYTES
            plain = self._destination.memory[start : start + count * PAGE_BYTES]
            if raw:
                plain[:] = payload
            else:
                self._decode(packet.method_code, payload, plain)
            self._plan.written.flags[first : first + count] = True
        else:
            plain = payload
            words = slot.words[:count]
            if not raw:
                plain = self._plain[: count * PAGE_BYTES]
                words = self._scratch[:count]
                self._decode(packet.method_code, payload, plain)
            self._destination.words[pages] = words
            self._plan.written.flags[pages] = True
        found = isal_zlib.crc32(plain)
        if found != packet.plain_crc32:
            raise CodecError(f"decompressed bytes have CRC-32 {found:#010x}, not {packet.plain_crc32:#010x}")

    def _decode(self, code: int, payload: memoryview, plain: memoryview) -> None:
        decoder = self._decoders[code]
        if self._plan.tally is None:
            decoder.decompress(payload, plain)
            return
        began = time.thread_time_ns()
        decoder.decompress(payload, plain)
        cells = self._cells[code]
        cells[Received.PLAIN_BYTES] += len(plain)
        cells[Received.CPU_NS] += time.thread_time_ns() - began

    @property
    def fallback_reason(self) -> str:
        """Why the device does not decode what it was asked to; empty when it does."""
        return next((d.qat.fallback_reason for d in self._decoders.values() if d.qat.fallback_reason), "")

    @property
    def software_requests(self) -> int:
        """Requests that were meant for the device and done in software."""
        return sum(decoder.qat.software_requests for decoder in self._decoders.values())

    def _clear(self, zero: npt.NDArray[np.uint32]) -> None:
        if not len(zero):
            return
        stale = zero[self._plan.written.flags[zero]]
        if len(stale):
            self._destination.words[stale] = 0
            self._plan.written.flags[stale] = False

    def _account(self, packet: Packet) -> None:
        count = self._count
        count[Count.NORMAL_PAGES] += len(packet.normal)
        count[Count.ZERO_PAGES] += len(packet.zero)
        if self._device is not None:
            count[Count.QAT_HARDWARE] = self._device.qat.hardware_requests
            count[Count.QAT_SOFTWARE] = self._device.qat.software_requests
        count[Count.PACKETS] += 1
