"""A connection's worker on the send side, where a queue lies between: takes filled slots.

Compression and sending overlap: the bounded queue lies between. When the connection breaks the other senders
take on what is queued, and this one calls again.
"""

from __future__ import annotations

import select
import time
from dataclasses import dataclass

from guestmem.ipc import Connection
from guestmem.prefault import populate
from guestmem.ram import GuestRam
from pipeline.packets.queue import PacketQueue, SlotsOr
from pipeline.processes.usage import Usage, usage_message
from pipeline.transports.tcp.client.carrier import Carrier
from pipeline.transports.tcp.client.channel_connection import Finished, open_first
from pipeline.transports.tcp.client.dial import Peer
from pipeline.transports.tcp.client.sender_rows import UNACKNOWLEDGED, SenderRows

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
        ram = plan.source.remap(writable=False)
        populate(ram.mapping, write=False)
        plan.queue.attach()
        populate(plan.queue.mapping, write=True)
        self._row = memoryview(plan.rows.rows[plan.number])
        self._seen = 0
        self._is_slow = True  # until a packet has shown otherwise
        self._carrier = Carrier(
            plan.number, plan.peer, plan.run_id, ram, plan.rows, coordinator, self._more_time
        )
        self.connection = self._carrier.connection

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
        began = time.monotonic()
        slot = self._plan.queue.slot(number)
        why = self._carrier.carry(slot, connection.look if self._is_slow else None)
        self._is_slow = time.monotonic() - began > SLOW_SECONDS
        if not why:
            connection.look()
        connection.count_carried()
        self._plan.queue.free.put(number)
        if why:
            connection.again(why)
