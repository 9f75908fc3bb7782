"""A connection's worker on the send side, where channels compress: takes filled slots, whoever filled them.

Compression and sending overlap: the bounded queue lies between. When the connection breaks the other senders
take on what is queued, and this one calls again.
"""

from __future__ import annotations

import select
import time
from dataclasses import dataclass

import numpy as np

from guestmem.ipc import Connection
from guestmem.prefault import populate
from guestmem.ram import GuestRam
from pipeline.packets.packet import HEADER, Packet, front_room, write_packet
from pipeline.packets.page_runs import bytes_of, runs
from pipeline.packets.queue import FRONT_USED, IN_RAM, PacketQueue, Slot, SlotsOr
from pipeline.processes.usage import Usage, usage_message
from pipeline.source.in_place import summed
from pipeline.transports.tcp.client.channel_connection import ChannelConnection, Finished, open_first
from pipeline.transports.tcp.client.dial import Peer
from pipeline.transports.tcp.client.sender_rows import UNACKNOWLEDGED, SenderRows
from pipeline.transports.tcp.version1 import VERSION_1

SLOW_SECONDS = 0.05
"""A link on which a packet takes longer is looked at while the next one goes, so that auto sees its speed."""

LOOK_SECONDS = 0.005
"""How often an idle sender looks what its socket still holds."""


@dataclass(frozen=True)
class SenderPlan:
    """What a sender works with. Everything shared was created before the fork."""

    number: int
    peer: Peer
    run_id: bytes
    source: GuestRam
    queue: PacketQueue
    rows: SenderRows


def run_sender(connection: Connection, plan: SenderPlan) -> None:
    """Call the receiver, then send until the coordinator says finish. Raises FerryError."""
    sender = Sender(connection, plan)
    ready = open_first(sender.connection)
    connection.send({"kind": "ready", **ready.body()})
    before = Usage.now()
    try:
        sender.work()
    except Finished:
        connection.receive()
    connection.send({**usage_message(before, ""), "connection": sender.connection.close()})


class Sender:
    """The loop from filled slots to the socket."""

    def __init__(self, coordinator: Connection, plan: SenderPlan) -> None:
        self._coordinator = coordinator
        self._plan = plan
        self._ram = plan.source.remap(writable=False)
        populate(self._ram.mapping, write=False)
        plan.queue.attach()
        populate(plan.queue.mapping, write=True)
        self._row = memoryview(plan.rows.rows[plan.number])
        self._seen = 0
        self._is_slow = False
        self.connection = ChannelConnection(
            plan.number, plan.peer, plan.run_id, plan.rows, coordinator, self._more_time
        )

    def _more_time(self) -> float:
        """While other senders make way, this one may go on calling. Raises Finished."""
        if select.select([self._coordinator], [], [], 0)[0]:
            raise Finished
        carried = self._plan.rows.carried()
        moved = carried != self._seen
        self._seen = carried
        return time.monotonic() + self._plan.peer.reconnect_seconds if moved else 0.0

    def work(self) -> None:
        """Send what is queued, until the coordinator has something to say."""
        order, row = self._coordinator, self._row
        slots = self._slots()
        while True:
            generation = self.connection.generation
            number = slots.get(LOOK_SECONDS if row[UNACKNOWLEDGED] else None)
            if number is not None:
                self._carry(number)
            elif self.connection.link.wait(0):
                self.connection.again("the receiver closed it")
            elif select.select([order], [], [], 0)[0]:
                order.receive()
                return
            else:
                self.connection.look()
            if self.connection.generation != generation:
                slots.close()
                slots = self._slots()

    def _slots(self) -> SlotsOr:
        return SlotsOr(self._plan.queue.filled, self._coordinator.fileno(), self.connection.link.fileno())

    def _carry(self, number: int) -> None:
        connection = self.connection
        front, payload = self._parts(self._plan.queue.slot(number))
        began = time.monotonic()
        why = connection.send(front, payload, connection.look if self._is_slow else None)
        self._is_slow = time.monotonic() - began > SLOW_SECONDS
        if not why:
            connection.look()
        connection.count_carried()
        self._plan.queue.free.put(number)
        if why:
            connection.again(why)

    def _parts(self, slot: Slot) -> tuple[memoryview, list[memoryview]]:
        """The front of a packet, and where its payload lies: in the slot, or still in guest RAM."""
        front = slot.memory[: slot.note[FRONT_USED]]
        if not slot.note[IN_RAM]:
            return front, [slot.payload[: HEADER.unpack_from(front)[PAYLOAD_AT]]]
        packet = _read_own(front)
        if self.connection.link.version == VERSION_1:
            front = memoryview(bytearray(front_room(len(packet.normal) + len(packet.zero))))
            front = front[: write_packet(front, summed(packet, self._ram))]
        memory = self._ram.memory
        return front, [memory[bytes_of(run)] for run in runs(packet.normal)]


PAYLOAD_AT = 7
"""The field of a packet's header (`pipeline.packets.packet`)."""


def _read_own(front: memoryview) -> Packet:
    """A front that a channel of this run has written, and that has no checksums."""
    _, code, _, channel, round_, normal, zero, payload_bytes, block_pages, _, _ = HEADER.unpack_from(front)
    numbers = np.frombuffer(front, np.uint32, normal + zero, HEADER.size)
    return Packet(code, channel, round_, numbers[:normal], numbers[normal:], payload_bytes, block_pages, [])
