"""A channel that has its connection itself: claim, compress, send.

With a fixed method there is nothing that a queue between two processes would be good for: the socket's buffer
is one, and a packet stays in the cache of the CPU that made it. (Method auto sees in the queue how far the
channels are ahead of the wire, and chooses by it.) While a connection is broken the other channels take what
is left of the round.
"""

from __future__ import annotations

import select
import time
from dataclasses import dataclass

import numpy as np

from guestmem.ipc import Connection
from guestmem.page import PAGE_BYTES, WORDS_PER_PAGE
from guestmem.ram import GuestRam
from pipeline.packets.packet import front_room
from pipeline.packets.queue import NOTE_BYTES, Slot
from pipeline.packets.round_list import SMALL_PAGES
from pipeline.processes.usage import Usage, usage_message
from pipeline.source.channel import Channel, ChannelPlan, open_channel, ready_of, software_reason
from pipeline.transports.tcp.client.carrier import Carrier
from pipeline.transports.tcp.client.channel_connection import Finished, open_first
from pipeline.transports.tcp.client.dial import Peer
from pipeline.transports.tcp.client.sender_rows import SenderRows

QUICK_SECONDS, SLOW_SECONDS = 0.02, 0.1
"""A packet that is sent quicker makes the next one larger, one that goes slower smaller: on a fast link a
packet costs the same Python whatever its size, on a slow one what is on its way should show."""

SLOTS = 2
"""One that is filled while another waits for its time on a wire with a limit."""


@dataclass(frozen=True)
class DirectChannelPlan:
    """What such a channel works with, beside what every channel does."""

    channel: ChannelPlan
    payload_bytes: int
    peer: Peer
    run_id: bytes
    rows: SenderRows
    zero_copy: bool


def run_direct_channel(coordinator: Connection, plan: DirectChannelPlan) -> None:
    """Call the receiver, then send rounds until the coordinator says finish. Raises FerryError."""
    picker = plan.channel.open_picker()
    channel, outlet = open_channel(
        plan.channel, picker, lambda source: ConnectionOutlet(coordinator, plan, source)
    )
    receiver = open_first(outlet.connection)
    coordinator.send({"kind": "ready", **ready_of(picker), "receiver": receiver.body()})
    before = Usage.now()
    try:
        _work(coordinator, channel, outlet)
    except Finished:
        pass
    used = usage_message(before, software_reason(picker))
    coordinator.send({**used, "connection": outlet.connection.close()})
    picker.close()


def _work(coordinator: Connection, channel: Channel, outlet: ConnectionOutlet) -> None:
    """Send rounds as the coordinator calls them, until it says finish."""
    while True:
        link, order = outlet.connection.link, coordinator.fileno()
        ready, _, _ = select.select([order, link.fileno()], [], [])
        if order in ready:
            if coordinator.receive()[0]["kind"] == "finish":
                return
        elif link.wait(0):
            outlet.connection.again("the receiver closed it")
        coordinator.send({"kind": "sent", "round": channel.send_round()})
        outlet.settle()
        outlet.mend()
        outlet.has_no_claims()


class ConnectionOutlet:
    """Slots of this process's own, that are sent when they are handed on."""

    def __init__(self, coordinator: Connection, plan: DirectChannelPlan, source: GuestRam) -> None:
        """`source` is this process's own mapping of guest RAM."""
        self._coordinator = coordinator
        self._rows = plan.rows
        self._peer = plan.peer
        number = plan.channel.number
        self._carrier = Carrier(
            number,
            plan.peer,
            plan.run_id,
            source,
            plan.rows,
            coordinator,
            self._more_time,
            zero_copy=plan.zero_copy,
        )
        self.connection = self._carrier.connection
        self._slots = [_new_slot(plan) for _ in range(SLOTS)]
        self._free = list(range(SLOTS))
        self._broken = ""
        self._called = False
        self._pages, self._most = SMALL_PAGES, max(SMALL_PAGES, plan.channel.packet_pages)
        self._carried = 0

    def fitting_pages(self, most: int) -> int:
        return min(self._pages, most)

    def free(self) -> int:
        """A free slot. Where the connection broke, one is called for first. Raises RunFailed, Finished."""
        self.mend()
        return self._free.pop()

    def free_now(self) -> int | None:
        """None also where the connection broke: what is filled goes first, so nothing of it is waited for
        while this side calls."""
        return self._free.pop() if self._free and not self._broken else None

    def slot(self, number: int) -> Slot:
        return self._slots[number]

    def interrupted(self, number: int) -> bool:
        interrupted, self._called = self._called, False
        if interrupted:
            self._free.append(number)
        return interrupted

    def put(self, number: int) -> None:
        """Send it, unless the connection is broken: then it is lost, as the barrier will find."""
        if not self._broken:
            began = time.monotonic()
            self._broken = self._carrier.carry(self._slots[number])
            self._fit(time.monotonic() - began)
        self.connection.count_carried()
        self._free.append(number)

    def has_no_claims(self) -> None:
        """What was interrupted until now harms nothing."""
        self._called = False

    def settle(self) -> None:
        """Wait until nothing of this process is under way; where that does not end, the connection is
        broken."""
        self._broken = self._broken or self.connection.settle()

    def mend(self) -> None:
        """Where the connection broke, call until there is one again. Raises RunFailed, Finished."""
        if self._broken:
            why, self._broken = self._broken, ""
            self._called = True
            self.connection.again(why)

    def _fit(self, took_seconds: float) -> None:
        if took_seconds < QUICK_SECONDS:
            self._pages *= 2
        elif took_seconds > SLOW_SECONDS:
            self._pages //= 2
        self._pages = max(SMALL_PAGES, min(self._pages, self._most))

    def _more_time(self) -> float:
        """While other channels make way, this one may go on calling. Raises Finished.

        Rounds that begin meanwhile are the others'.
        """
        while select.select([self._coordinator], [], [], 0)[0]:
            if self._coordinator.receive()[0]["kind"] == "finish":
                raise Finished
        carried = self._rows.carried()
        moved = carried != self._carried
        self._carried = carried
        return time.monotonic() + self._peer.reconnect_seconds if moved else 0.0


def _new_slot(plan: DirectChannelPlan) -> Slot:
    """A slot in this process's memory, with all of its pages."""
    front = front_room(plan.channel.packet_pages)
    pages = plan.payload_bytes // PAGE_BYTES
    memory = memoryview(bytearray(front))
    payload = memoryview(bytearray(b"\1") * plan.payload_bytes)
    words = np.frombuffer(payload[: pages * PAGE_BYTES], np.uint64).reshape(pages, WORDS_PER_PAGE)
    return Slot(memory, memoryview(bytearray(NOTE_BYTES)).cast("I"), payload, words)
