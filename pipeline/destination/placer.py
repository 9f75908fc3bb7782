"""Packets into the destination mapping: decompress into place, or tell where raw pages go.

Used by every worker that receives, whatever brought the packet: `pipeline.destination.receiver` takes it
out of the queue, `pipeline.transports.tcp.server.channel_receiver` out of a socket. The packet has been
checked against this very mapping (`pipeline.packets.packet.read_packet`) before it comes here.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from guestmem.page import PAGE_BYTES, WORDS_PER_PAGE
from guestmem.prefault import huge_bytes_of, populate
from guestmem.ram import GuestRam
from guestmem.segment import mapped_segment
from pipeline.auto.statistics import Received, Statistics
from pipeline.codecs.method import CodecSettings, Decoder, Method
from pipeline.destination.applied_rounds import AppliedRounds
from pipeline.errors import CodecError
from pipeline.packets.checksums import block_crcs, crcs_in_ram
from pipeline.packets.delta import apply_group, group_bytes_range
from pipeline.packets.packet import NOT_SUMMED, Packet
from pipeline.packets.page_runs import bytes_of, runs, side_by_side


class WrittenMap:
    """Which destination pages hold data: one byte a page, shared by the receivers.

    A zero page is cleared only where something had been written before, so that memory nobody
    needs is never touched. Rounds are apart (the barrier), and within one a page occurs once,
    so no two receivers write the same byte.
    """

    def __init__(self, pages: int) -> None:
        """Create it, all clean. Raises OSError."""
        self.mapping = mapped_segment("written", pages)
        self.flags: npt.NDArray[np.bool_] = np.frombuffer(self.mapping, np.bool_)


@dataclass(frozen=True)
class PlacerPlan:
    """What a receiving worker places with. Everything shared was created before the fork.

    `share` (0 to 1) is where in the destination this worker begins to give it its pages.
    """

    destination: GuestRam
    written: WrittenMap
    methods: tuple[Method, ...]
    raw: Method
    settings: CodecSettings
    packet_pages: int
    prealloc: bool
    huge_pages: bool
    share: float
    statistics: Statistics | None = None
    statistics_row: int = 0
    applied: AppliedRounds | None = None
    """Where deltas may come."""


class Placer:
    """One worker's hand in the destination."""

    def __init__(self, plan: PlacerPlan) -> None:
        """Open decoders, map and populate. Raises CodecUnavailable, NoMemoryBehind."""
        self.plan = plan
        self._decoders: dict[int, Decoder] = {
            method.code: method.open_decoder(plan.settings) for method in plan.methods
        }
        self.names = {method.code: method.name for method in plan.methods}
        self._destination = plan.destination.remap(writable=True)
        self.prealloc_ms = 0.0
        self.huge_bytes = 0
        if plan.prealloc:
            began = time.perf_counter()
            mapping = self._destination.mapping
            populate(mapping, write=True, huge=plan.huge_pages, first_share=plan.share)
            self.prealloc_ms = (time.perf_counter() - began) * 1e3
            self.huge_bytes = huge_bytes_of(mapping)
        populate(plan.written.mapping, write=True)
        self._scratch = np.zeros((plan.packet_pages, WORDS_PER_PAGE), np.uint64)
        self._plain = self._scratch.data.cast("B")
        if plan.applied is not None:
            self._group = memoryview(bytearray(group_bytes_range(plan.packet_pages)[1]))
        if plan.statistics is not None:
            self._cells = [memoryview(row) for row in plan.statistics.received[plan.statistics_row]]

    def place(self, packet: Packet, payload: memoryview) -> None:
        """Put the normal pages where they belong: straight, when they lie side by side.

        Raises BadPacket for a delta against what is not here, and then nothing was touched; CodecError for a
        payload that is not what the header says, and then pages may be torn.
        """
        applied = self.plan.applied
        if applied is not None:
            if len(packet.bases):
                applied.check(packet.normal[packet.whole_pages :], packet.bases)
            applied.forget(packet.normal)
        if len(packet.bases):
            self._place_with_deltas(packet, payload)
        else:
            self._place_whole(packet, payload)
        if applied is not None:
            applied.note(packet.normal, packet.round)

    def _place_with_deltas(self, packet: Packet, payload: memoryview) -> None:
        """Put together beside the destination, checked, and then written: a delta is applied once."""
        pages, whole = packet.normal, packet.whole_pages
        words, plain = self._scratch[: len(pages)], self._plain[: len(pages) * PAGE_BYTES]
        if whole:
            self._unpack(packet.method_code, payload[: packet.whole_bytes], plain[: whole * PAGE_BYTES])
        group = self._group[: packet.group_bytes]
        self._unpack(packet.method_code, payload[packet.whole_bytes :], group)
        np.take(self._destination.words, pages[whole:].astype(np.intp), axis=0, out=words[whole:])
        apply_group(group, words[whole:])
        _check_crcs(packet, plain)
        self.plan.written.flags[pages] = True
        self._destination.words[pages] = words

    def _unpack(self, code: int, payload: memoryview, plain: memoryview) -> None:
        """A group: compressed, or as it is where that was no smaller."""
        if len(payload) == len(plain):
            plain[:] = payload
        else:
            self._decode(code, payload, plain)

    def _place_whole(self, packet: Packet, payload: memoryview) -> None:
        pages = packet.normal
        count = len(pages)
        raw = packet.method_code == self.plan.raw.code
        whole = side_by_side(pages)
        if whole is not None:
            plain = self._destination.memory[bytes_of(whole)]
            self.plan.written.flags[whole] = True
            if raw:
                plain[:] = payload
            else:
                self._decode(packet.method_code, payload, plain)
        else:
            plain = payload
            if not raw:
                plain = self._plain[: count * PAGE_BYTES]
                self._decode(packet.method_code, payload, plain)
            self.plan.written.flags[pages] = True
            self._destination.words[pages] = np.frombuffer(plain, np.uint64).reshape(count, WORDS_PER_PAGE)
        _check_crcs(packet, plain)

    def places(self, packet: Packet) -> Sequence[memoryview]:
        """Where the raw pages of a packet go, in order: whoever reads a payload reads it there. They are no
        base for a delta until `placed` says so."""
        memory = self._destination.memory
        if self.plan.applied is not None:
            self.plan.applied.forget(packet.normal)
        self.plan.written.flags[packet.normal] = True
        return [memory[bytes_of(run)] for run in runs(packet.normal)]

    def placed(self, packet: Packet, good: npt.NDArray[np.uint32]) -> None:
        """These raw pages of a packet are in their places, as they were when its checksums were made."""
        if self.plan.applied is not None and packet.block_pages != NOT_SUMMED:
            self.plan.applied.note(good, packet.round)

    def torn(self, packet: Packet) -> npt.NDArray[np.bool_]:
        """Of a packet whose raw pages are in their places: which do not match their block's checksum, where
        there are any."""
        found = []
        if packet.block_pages != NOT_SUMMED:
            found = crcs_in_ram(self._destination.memory, packet.normal, packet.block_pages)
        if found == packet.block_crcs:
            return np.zeros(len(packet.normal), np.bool_)
        wrong = np.array(found, np.int64) != np.array(packet.block_crcs, np.int64)
        return np.repeat(wrong, packet.block_pages)[: len(packet.normal)]

    def clear(self, zero: npt.NDArray[np.uint32]) -> None:
        """Make pages zero where something had been written before."""
        if not len(zero):
            return
        if self.plan.applied is not None:
            self.plan.applied.forget(zero)
        stale = zero[self.plan.written.flags[zero]]
        if len(stale):
            self._destination.words[stale] = 0
            self.plan.written.flags[stale] = False

    def _decode(self, code: int, payload: memoryview, plain: memoryview) -> None:
        decoder = self._decoders[code]
        if self.plan.statistics is None:
            decoder.decompress(payload, plain)
            return
        began = time.thread_time_ns()
        decoder.decompress(payload, plain)
        cells = self._cells[code]
        cells[Received.PLAIN_BYTES] += len(plain)
        cells[Received.CPU_NS] += time.thread_time_ns() - began

    @property
    def hardware_requests(self) -> int:
        """Requests that the QAT device decompressed."""
        return sum(decoder.qat.hardware_requests for decoder in self._decoders.values())

    @property
    def software_requests(self) -> int:
        """Requests that were meant for the device and done in software."""
        return sum(decoder.qat.software_requests for decoder in self._decoders.values())

    @property
    def fallback_reason(self) -> str:
        """Why the device does not decode what it was asked to; empty when it does."""
        return next((d.qat.fallback_reason for d in self._decoders.values() if d.qat.fallback_reason), "")

    @property
    def simulated(self) -> bool:
        """Whether a device that answers is an emulated one."""
        return any(decoder.qat.simulated for decoder in self._decoders.values())

    def close(self) -> None:
        for decoder in self._decoders.values():
            decoder.close()


def _check_crcs(packet: Packet, plain: memoryview) -> None:
    """Raises CodecError."""
    for said, found in zip(packet.block_crcs, block_crcs(plain, packet.block_pages), strict=True):
        if said != found:
            raise CodecError(f"decompressed bytes have CRC-32 {found:#010x}, not {said:#010x}")
