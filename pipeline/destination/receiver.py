"""One receive worker of the queue: dequeue, check, decompress into place, count."""

from __future__ import annotations

from dataclasses import dataclass

from guestmem.ipc import Connection
from guestmem.page import PAGE_BYTES
from guestmem.prefault import NoMemoryBehind, populate, warm_heap
from pipeline.codecs.method import HEAP_PACKETS
from pipeline.destination.placer import Placer, PlacerPlan
from pipeline.errors import HostError, RunFailed
from pipeline.packets.counters import Count, Counters, count_placed
from pipeline.packets.packet import Limits, read_packet
from pipeline.packets.queue import PacketQueue
from pipeline.packets.round_list import RoundList
from pipeline.processes.usage import Usage, usage_message


@dataclass(frozen=True)
class ReceiverPlan:
    """What a receiver works with. Everything shared was created before the fork."""

    number: int
    placing: PlacerPlan
    rounds: RoundList
    queue: PacketQueue
    counters: Counters
    limits: Limits


def run_receiver(connection: Connection, plan: ReceiverPlan) -> None:
    """Set up, then apply packets until the coordinator says finish."""
    try:
        placer = Placer(plan.placing)
        receiver = Receiver(plan, placer)
        warm_heap(HEAP_PACKETS * plan.limits.packet_pages * PAGE_BYTES)
    except NoMemoryBehind as error:
        raise HostError(str(error)) from error
    connection.send(
        {
            "kind": "ready",
            "fallback_reason": placer.fallback_reason,
            "simulated": placer.simulated,
            "prealloc_ms": placer.prealloc_ms,
            "huge_bytes": placer.huge_bytes,
        }
    )
    before = Usage.now()
    while (number := plan.queue.filled.get()) is not None:
        receiver.apply(number)
    used = usage_message(before, placer.fallback_reason if placer.software_requests else "")
    connection.receive()
    connection.send(used)
    placer.close()


class Receiver:
    """The loop from filled slots to destination pages."""

    def __init__(self, plan: ReceiverPlan, placer: Placer) -> None:
        self._plan = plan
        self._placer = placer
        plan.queue.attach()
        populate(plan.queue.mapping, write=True)
        plan.rounds.attach()
        self._count = plan.counters.row(plan.number)
        self._applied = 0

    def apply(self, number: int) -> None:
        """Apply one filled slot and free it. Raises RunFailed for what is not a good packet."""
        plan = self._plan
        slot = plan.queue.slot(number)
        self._applied += 1
        name = plan.placing.methods[-1].name
        try:
            front = slot.memory[: plan.queue.front_bytes]
            packet = read_packet(front, plan.limits, plan.rounds.number)
            name = self._placer.names[packet.method_code]
            if len(packet.normal):
                self._placer.place(packet, slot.payload[: packet.payload_bytes])
            self._placer.clear(packet.zero)
        except Exception as error:
            raise RunFailed(
                f"packet {self._applied}, method {name}: {type(error).__name__}: {error}"
            ) from error
        self._count[Count.QAT_HARDWARE] = self._placer.hardware_requests
        self._count[Count.QAT_SOFTWARE] = self._placer.software_requests
        count_placed(self._count, packet)
        plan.queue.free.put(number)
