"""A channel that sends raw pages itself: claim, sort out zero pages, send from where they lie in guest RAM.

What is not compressed needs no queue between two processes, so one process does both. While its connection is
broken the other channels take what is left of the round.
"""

from __future__ import annotations

import select
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from guestmem.ipc import Connection
from guestmem.page import PAGE_BYTES
from guestmem.prefault import populate
from guestmem.ram import GuestRam
from pipeline.codecs.method import Method
from pipeline.packets.counters import Counters, count_made
from pipeline.packets.pacing import Wire, sleep_until
from pipeline.packets.packet import NOT_SUMMED, Packet, front_room, write_packet
from pipeline.packets.page_runs import bytes_of, runs
from pipeline.packets.round_list import RoundList
from pipeline.processes.usage import Usage, usage_message
from pipeline.source.in_place import sort_out_zero, summed
from pipeline.transports.tcp.client.channel_connection import ChannelConnection, Finished, open_first
from pipeline.transports.tcp.client.dial import Peer
from pipeline.transports.tcp.client.sender_rows import SenderRows
from pipeline.transports.tcp.protocol import HEADER as FRAME_HEADER
from pipeline.transports.tcp.version1 import VERSION_1

FIRST_PAGES = 128
QUICK_SECONDS, SLOW_SECONDS = 0.005, 0.05
"""A packet that goes quicker makes the next one larger, one that goes slower smaller: on a fast link a packet
costs the same Python whatever its size, on a slow one what is on its way should show."""


@dataclass(frozen=True)
class RawChannelPlan:
    """What such a channel works with. Everything shared was created before the fork."""

    number: int
    peer: Peer
    run_id: bytes
    source: GuestRam
    rounds: RoundList
    counters: Counters
    wire: Wire
    rows: SenderRows
    raw: Method
    packet_pages: int


def run_raw_channel(coordinator: Connection, plan: RawChannelPlan) -> None:
    """Call the receiver, then send rounds until the coordinator says finish. Raises FerryError."""
    channel = RawChannel(coordinator, plan)
    ready = open_first(channel.connection)
    coordinator.send({"kind": "ready", **ready.body()})
    before = Usage.now()
    try:
        channel.work()
    except Finished:
        pass
    coordinator.send({**usage_message(before, ""), "connection": channel.connection.close()})


class RawChannel:
    """The loop from the round's list to the socket."""

    def __init__(self, coordinator: Connection, plan: RawChannelPlan) -> None:
        self._coordinator = coordinator
        self._plan = plan
        self._source = plan.source.remap(writable=False)
        populate(self._source.mapping, write=False)
        plan.rounds.attach()
        populate(plan.rounds.mapping, write=False)
        self._count = plan.counters.row(plan.number)
        self._front = memoryview(bytearray(front_room(plan.packet_pages)))
        self._pages = min(FIRST_PAGES, plan.packet_pages)
        self._seen = 0
        self.connection = ChannelConnection(
            plan.number, plan.peer, plan.run_id, plan.rows, coordinator, self._more_time
        )

    def _more_time(self) -> float:
        """While other channels make way, this one may go on calling. Raises Finished.

        Rounds that begin meanwhile are the others'.
        """
        while select.select([self._coordinator], [], [], 0)[0]:
            if self._coordinator.receive()[0]["kind"] == "finish":
                raise Finished
        carried = self._plan.rows.carried()
        moved = carried != self._seen
        self._seen = carried
        return time.monotonic() + self._plan.peer.reconnect_seconds if moved else 0.0

    def work(self) -> None:
        """Send rounds as the coordinator calls them, until it says finish."""
        while True:
            link = self.connection.link
            order = self._coordinator.fileno()
            ready, _, _ = select.select([order, link.fileno()], [], [])
            if order in ready:
                if self._coordinator.receive()[0]["kind"] == "finish":
                    return
                self._send_round()
            elif link.wait(0):
                self.connection.again("the receiver closed it")
                self._send_round()

    def _send_round(self) -> None:
        """Claim and send until the round's list is used up; say so."""
        rounds = self._plan.rounds
        while True:
            # Read before the claim: what is said of a round is true of that one, whatever began meanwhile.
            number = rounds.number
            size = self._pages
            if not len(pages := rounds.claim(size)):
                break
            for start in range(0, len(pages), size):
                self._send(pages[start : start + size])
        self._coordinator.send({"kind": "sent", "round": number})

    def _send(self, pages: npt.NDArray[np.uint32]) -> None:
        packet = self._packet_of(pages)
        front = self._front[: write_packet(self._front, packet)]
        on_wire = FRAME_HEADER.size + len(front) + packet.payload_bytes
        count_made(self._count, packet, on_wire)
        sleep_until(self._plan.wire.reserve(on_wire))
        memory = self._source.memory
        began = time.monotonic()
        why = self.connection.send(front, [memory[bytes_of(run)] for run in runs(packet.normal)])
        self._fit(time.monotonic() - began)
        self.connection.count_carried()
        if why:
            self.connection.again(why)

    def _packet_of(self, pages: npt.NDArray[np.uint32]) -> Packet:
        plan = self._plan
        normal, zero = sort_out_zero(self._source, pages)
        payload_bytes = len(normal) * PAGE_BYTES
        packet = Packet(
            plan.raw.code, plan.number, plan.rounds.number, normal, zero, payload_bytes, NOT_SUMMED, []
        )
        old = self.connection.link.version == VERSION_1
        return summed(packet, self._source) if old else packet

    def _fit(self, took_seconds: float) -> None:
        if took_seconds < QUICK_SECONDS:
            self._pages = min(2 * self._pages, self._plan.packet_pages)
        elif took_seconds > SLOW_SECONDS:
            self._pages = max(self._pages // 2, min(FIRST_PAGES, self._plan.packet_pages))
