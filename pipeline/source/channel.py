"""One send worker: claim, snapshot, find zero pages, compress, hand on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from guestmem.ipc import Connection, Message
from guestmem.page import PAGE_BYTES, WORDS_PER_PAGE
from guestmem.prefault import NoMemoryBehind, populate, warm_heap
from guestmem.ram import GuestRam
from guestmem.zero import normal_mask
from pipeline.auto.picker import Picker
from pipeline.codecs.method import HEAP_PACKETS, Method
from pipeline.errors import CodecError, HostError, RunFailed
from pipeline.packets.checksums import block_crcs
from pipeline.packets.counters import Count, Counters, count_made
from pipeline.packets.pacing import Wire, sleep_until
from pipeline.packets.packet import MIN_BLOCK_PAGES, NOT_SUMMED, Packet, write_packet
from pipeline.packets.page_runs import side_by_side
from pipeline.packets.queue import FRONT_USED, IN_RAM, PacketQueue, Slot
from pipeline.packets.round_list import RoundList
from pipeline.processes.usage import Usage, usage_message
from pipeline.source.in_place import sort_out_zero
from pipeline.source.kept_pages import Keeper, KeptPages, Split

MAX_CROSSING = 2
"""Packets of one channel that may be on the wire while it compresses the next."""


@dataclass(frozen=True)
class ChannelPlan:
    """What a channel works with. Everything shared was created before the fork.

    With `in_place` a packet that is not to be compressed stays where it is in guest RAM, and its slot
    holds the front alone. `frame_bytes` are what the transport adds to a packet on the wire.
    """

    number: int
    source: GuestRam
    rounds: RoundList
    counters: Counters
    wire: Wire
    raw: Method
    open_picker: Callable[[], Picker]
    packet_pages: int
    in_place: bool = False
    frame_bytes: int = 0
    kept: KeptPages | None = None


class Outlet(Protocol):
    """Where a channel's packets go, and the slots it writes them to."""

    def fitting_pages(self, most: int) -> int:
        """Pages of the next packet, at most `most`."""

    def free(self) -> int:
        """Wait for a free slot."""

    def free_now(self) -> int | None:
        """A free slot, if there is one."""

    def slot(self, number: int) -> Slot:
        """The slot of a number."""

    def put(self, number: int) -> None:
        """Hand a filled slot on."""

    def interrupted(self, number: int) -> bool:
        """Whether there was no way out for a while before this free slot was had; then it is given back."""


class QueueOutlet:
    """The bounded queue."""

    def __init__(self, queue: PacketQueue, wire: Wire) -> None:
        """Map the queue in this process."""
        queue.attach()
        populate(queue.mapping, write=True)
        self.fitting_pages = wire.fitting_pages
        self.free_now = queue.free.get_nowait
        self.slot = queue.slot
        self.put = queue.filled.put
        self._free = queue.free

    def free(self) -> int:
        number = self._free.get()
        assert number is not None, "nobody ends this side"
        return number

    def interrupted(self, number: int) -> bool:
        return False


def run_channel(connection: Connection, plan: ChannelPlan, queue: PacketQueue) -> None:
    """Set up, then send rounds as the coordinator calls them, until it says finish."""
    picker = plan.open_picker()
    channel, _ = open_channel(plan, picker, lambda source: QueueOutlet(queue, plan.wire))
    connection.send({"kind": "ready", **ready_of(picker)})
    before = Usage.now()
    while True:
        message, _ = connection.receive()
        if message["kind"] == "finish":
            break
        connection.send({"kind": "sent", "round": channel.send_round()})
    connection.send(usage_message(before, software_reason(picker)))
    picker.close()


Opened = TypeVar("Opened", bound=Outlet)


def open_channel(
    plan: ChannelPlan, picker: Picker, open_outlet: Callable[[GuestRam], Opened]
) -> tuple[Channel, Opened]:
    """Map and populate what a channel touches. `open_outlet` is given this process's mapping of guest RAM.

    Raises HostError.
    """
    try:
        source = plan.source.remap(writable=False)
        populate(source.mapping, write=False)
        outlet = open_outlet(source)
        channel = Channel(plan, picker, outlet, source)
        warm_heap(HEAP_PACKETS * plan.packet_pages * PAGE_BYTES)
    except NoMemoryBehind as error:
        raise HostError(str(error)) from error
    return channel, outlet


def ready_of(picker: Picker) -> Message:
    """What a channel says of its device when it is ready."""
    return {"fallback_reason": picker.qat.fallback_reason, "simulated": picker.qat.simulated}


def software_reason(picker: Picker) -> str:
    """Why software did a device's work; empty where it did none."""
    return picker.qat.fallback_reason if picker.qat.software_requests else ""


class Channel:
    """The loop from guest pages to filled slots."""

    def __init__(self, plan: ChannelPlan, picker: Picker, outlet: Outlet, source: GuestRam) -> None:
        """`source` is this process's own mapping of guest RAM."""
        self._plan = plan
        self._picker = picker
        self._outlet = outlet
        self._source = source
        plan.rounds.attach()
        populate(plan.rounds.mapping, write=False)
        self._count = plan.counters.row(plan.number)
        self._scratch = np.zeros((plan.packet_pages, WORDS_PER_PAGE), np.uint64)
        self._plain = self._scratch.data.cast("B")
        self._whole = max(plan.packet_pages, MIN_BLOCK_PAGES)
        self._crossing: deque[tuple[int, int]] = deque()
        self._keeper = Keeper(plan.kept, plan.number) if plan.kept is not None else None
        self._packet = 0

    def send_round(self) -> int:
        """Claim and send until the round's list is used up; which round that was. Raises RunFailed."""
        plan = self._plan
        while True:
            # Read before the claim: what is said of a round is true of that one, whatever began meanwhile.
            round_number = plan.rounds.number
            size = self._outlet.fitting_pages(plan.packet_pages)
            if not len(claimed := plan.rounds.claim(size)):
                break
            for start in range(0, len(claimed), size):
                if not self._send(claimed[start : start + size]):
                    break
        while self._crossing:
            self._deliver_first()
        return round_number

    def _send(self, pages: npt.NDArray[np.uint32]) -> bool:
        """One packet: compressed from a snapshot, copied into its slot, or left where it is in RAM.

        False where the channel was without a connection meanwhile: then the round may have ended without it,
        and what it has claimed is missing there and goes again, in the next one.
        """
        self._packet += 1
        number = self._free_slot()
        if self._outlet.interrupted(number):
            return False
        slot = self._outlet.slot(number)
        method = self._picker.pick(len(pages))
        if self._keeper is not None and self._keeper.has_any(pages):
            self._send_kept(number, slot, pages, method, self._keeper)
        elif method is not self._plan.raw:
            self._send_compressed(number, slot, pages, method)
        elif self._plan.in_place:
            self._leave_in_ram(number, slot, pages)
        else:
            self._send_copied(number, slot, pages)
        return True

    def _send_compressed(
        self, number: int, slot: Slot, pages: npt.NDArray[np.uint32], method: Method
    ) -> None:
        """Scratch holds the snapshot, so that live memory is never compressed."""
        normal, zero = self._take(pages, self._scratch[: len(pages)])
        plain = self._plain[: len(normal) * PAGE_BYTES]
        length, method = self._compressed(method, plain, slot.payload) if len(normal) else (0, self._plan.raw)
        packet = self._packet_of(method, normal, zero, length, plain)
        self._hand_on(number, slot, packet, did_not_shrink=method is self._plan.raw)

    def _send_kept(
        self, number: int, slot: Slot, pages: npt.NDArray[np.uint32], method: Method, keeper: Keeper
    ) -> None:
        """As from a snapshot; of pages that were sent before only what changed, where that is less."""
        normal, zero = self._take(pages, self._scratch[: len(pages)])
        keeper.forget(zero)
        words = self._scratch[: len(normal)]
        split = keeper.split(normal, words, self._plan.rounds.number)
        if len(split.bases):
            words[:] = words[split.order]
            normal = normal[split.order]
        plain = self._plain[: len(normal) * PAGE_BYTES]
        whole = plain[: split.whole * PAGE_BYTES]
        whole_bytes, used = self._group(method, whole, slot.payload)
        delta_bytes, used_too = self._group(method, memoryview(split.group), slot.payload[whole_bytes:])
        keeper.account(split, whole_bytes, delta_bytes)
        raw = self._plan.raw
        shrank = used is not raw or used_too is not raw
        packet = self._packet_of(
            method if shrank else raw, normal, zero, whole_bytes + delta_bytes, plain, split, whole_bytes
        )
        self._hand_on(number, slot, packet, did_not_shrink=not shrank and method is not raw)

    def _group(self, method: Method, plain: memoryview, payload: memoryview) -> tuple[int, Method]:
        """Fill `payload` with a group of pages or of deltas: compressed, or as it is."""
        raw = self._plan.raw
        if len(plain) and method is not raw:
            return self._compressed(method, plain, payload)
        payload[: len(plain)] = plain
        return len(plain), raw

    def _send_copied(self, number: int, slot: Slot, pages: npt.NDArray[np.uint32]) -> None:
        """The slot itself holds the snapshot."""
        normal, zero = self._take(pages, slot.words[: len(pages)])
        plain = slot.payload[: len(normal) * PAGE_BYTES]
        self._hand_on(number, slot, self._packet_of(self._plan.raw, normal, zero, len(plain), plain))

    def _leave_in_ram(self, number: int, slot: Slot, pages: npt.NDArray[np.uint32]) -> None:
        """The payload is the live pages, read when they are sent."""
        plan = self._plan
        normal, zero = sort_out_zero(self._source, pages)
        payload_bytes = len(normal) * PAGE_BYTES
        packet = Packet(
            plan.raw.code, plan.number, plan.rounds.number, normal, zero, payload_bytes, NOT_SUMMED, []
        )
        self._hand_on(number, slot, packet, in_ram=True)

    def _packet_of(
        self,
        method: Method,
        normal: npt.NDArray[np.uint32],
        zero: npt.NDArray[np.uint32],
        payload_bytes: int,
        plain: memoryview,
        split: Split | None = None,
        whole_bytes: int = 0,
    ) -> Packet:
        """A packet whose pages no longer change: one block, one checksum."""
        plan = self._plan
        crcs = block_crcs(plain, self._whole)
        packet = Packet(
            method.code, plan.number, plan.rounds.number, normal, zero, payload_bytes, self._whole, crcs
        )
        if split is not None and len(split.bases):
            packet.bases, packet.whole_bytes, packet.group_bytes = split.bases, whole_bytes, len(split.group)
        return packet

    def _hand_on(
        self,
        number: int,
        slot: Slot,
        packet: Packet,
        *,
        did_not_shrink: bool = False,
        in_ram: bool = False,
    ) -> None:
        """Give a filled slot to the other side, when its bytes have had their time on the wire."""
        plan = self._plan
        front = write_packet(slot.memory, packet)
        slot.note[FRONT_USED], slot.note[IN_RAM] = front, in_ram
        on_wire = plan.frame_bytes + front + packet.payload_bytes
        self._account(packet, on_wire, raw=did_not_shrink and len(packet.normal) > 0)
        across = plan.wire.reserve(on_wire)
        if across:
            self._crossing.append((number, across))
        else:
            self._outlet.put(number)

    def _take(
        self, pages: npt.NDArray[np.uint32], snapshot: npt.NDArray[np.uint64]
    ) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        """Copy pages out of live RAM: the normal ones, moved to the front, and the zero ones."""
        whole = side_by_side(pages)
        if whole is not None:
            np.copyto(snapshot, self._source.words[whole])
        else:
            np.take(self._source.words, pages.astype(np.intp), axis=0, out=snapshot, mode="clip")
        if np.count_nonzero(snapshot[:, 0]) == len(pages):
            return pages, pages[:0]
        mask = normal_mask(snapshot)
        normal, zero = pages[mask], pages[~mask]
        snapshot[: len(normal)] = snapshot[mask]
        return normal, zero

    def _compressed(self, method: Method, plain: memoryview, payload: memoryview) -> tuple[int, Method]:
        """Fill `payload`: compressed, or as it is when that is no smaller."""
        try:
            length = self._picker.compress(plain, payload)
            if not 0 < length <= len(payload):
                raise CodecError(f"compress returned {length} for a buffer of {len(payload)}")
        except Exception as error:
            raise RunFailed(
                f"packet {self._packet}, method {method.name}: {type(error).__name__}: {error}"
            ) from error
        if length < len(plain):
            return length, method
        payload[: len(plain)] = plain
        return len(plain), self._plan.raw

    def _account(self, packet: Packet, on_wire: int, *, raw: bool) -> None:
        count = self._count
        count[Count.RAW_PACKETS] += raw
        count[Count.QAT_HARDWARE] = self._picker.qat.hardware_requests
        count[Count.QAT_SOFTWARE] = self._picker.qat.software_requests
        count_made(count, packet, on_wire)

    def _free_slot(self) -> int:
        """Wait for a free slot; meanwhile deliver what has crossed the wire."""
        if self._crossing:
            while len(self._crossing) >= MAX_CROSSING:
                self._deliver_first()
            while self._crossing:
                number = self._outlet.free_now()
                if number is not None:
                    return number
                self._deliver_first()
        return self._outlet.free()

    def _deliver_first(self) -> None:
        number, across = self._crossing.popleft()
        sleep_until(across)
        self._outlet.put(number)
