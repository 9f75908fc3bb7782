"""A channel's connection on the receive side: read, check, place, count.

One process for all connections of a number, one after the other, forked when the first has shown that it
belongs to the run. Raw pages are read from the socket straight into the destination mapping.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from guestmem.ipc import Connection, PeerGone
from guestmem.page import PAGE_BYTES
from guestmem.prefault import NoMemoryBehind, populate, warm_heap
from pipeline.codecs.method import HEAP_PACKETS
from pipeline.destination.placer import Placer, PlacerPlan
from pipeline.errors import BadFrame, ConnectionLost, HostError, RunFailed
from pipeline.packets.counters import Count, Counters, count_placed
from pipeline.packets.packet import Limits, Packet, front_bytes_of, front_room, read_packet
from pipeline.processes.usage import Usage, usage_message
from pipeline.transports.tcp.link import Link
from pipeline.transports.tcp.messages import Ready
from pipeline.transports.tcp.protocol import FrameLimits, FrameType
from pipeline.transports.tcp.server.arrivals import Arrivals

READ_AHEAD_PACKETS = 2
"""Room for packets that are read at once, when they come compressed."""


@dataclass(frozen=True)
class ChannelReceiverPlan:
    """What a worker takes packets with. Everything shared was created before the fork."""

    number: int
    placing: PlacerPlan
    arrivals: Arrivals
    counters: Counters
    limits: Limits


def run_channel_receiver(
    connection: Connection, plan: ChannelReceiverPlan, generation: int, link: Link
) -> None:
    """Set up, welcome the sender, then take packets until it ends; when the connection breaks, until it ends
    on the next one that the session hands over.

    Raises RunFailed for what no honest sender sends.
    """
    try:
        placer = Placer(plan.placing)
        warm_heap(HEAP_PACKETS * plan.limits.packet_pages * PAGE_BYTES)
    except NoMemoryBehind as error:
        raise HostError(str(error)) from error
    populate(plan.arrivals.mapping, write=True)
    before = Usage.now()
    following: tuple[int, Link] | None = (generation, link)
    while following is not None:
        why = _serve(plan, placer, *following)
        if not why:
            break
        connection.send({"kind": "broken", "why": why})
        following = _next_link(connection)
    reason = placer.fallback_reason if placer.software_requests else ""
    connection.send(usage_message(before, reason))


def _serve(plan: ChannelReceiverPlan, placer: Placer, generation: int, link: Link) -> str:
    """One connection to its end: why it broke, or nothing after END. Raises RunFailed."""
    plan.arrivals.delivered[plan.number] = generation << 32
    applied = int(plan.counters.totals()[Count.PACKETS])
    ready = Ready(placer.prealloc_ms, placer.fallback_reason, placer.simulated, applied, placer.huge_bytes)
    try:
        receiver = ChannelReceiver(plan, placer, link)
        link.send(FrameType.WELCOME, ready.body())
        receiver.work()
    except ConnectionLost as error:
        return str(error) or "closed by the peer"
    finally:
        link.close()
    return ""


def _next_link(connection: Connection) -> tuple[int, Link] | None:
    """The next connection's generation and link, as the session hands it over; None at the end."""
    try:
        order, descriptors = connection.receive()
    except PeerGone:
        return None
    if order["kind"] != "connection":
        return None
    sock = socket.socket(fileno=descriptors[0])
    link = Link(sock, received=order["received"], sent=order["sent"], version=order["version"])
    return int(order["generation"]), link


class ChannelReceiver:
    """The loop from the socket to destination pages."""

    def __init__(self, plan: ChannelReceiverPlan, placer: Placer, link: Link) -> None:
        self._plan = plan
        self._placer = placer
        self._link = link
        self._row = plan.counters.row(plan.number)
        room = front_room(plan.limits.packet_pages) + plan.limits.payload_bytes
        link.incoming.reserve(READ_AHEAD_PACKETS * room)
        self._frames = FrameLimits(
            frozenset({FrameType.PACKET, FrameType.END}),
            front_room(plan.limits.packet_pages),
            plan.limits.payload_bytes,
        )
        self._packet = 0

    def work(self) -> None:
        """Until END. Raises ConnectionLost, RunFailed."""
        while self._link.wait(None):
            self._packet += 1
            try:
                header = self._link.header(self._frames)
                front = self._link.body(header)
                if header.type is FrameType.END:
                    return
                packet = read_packet(front, self._plan.limits, self._plan.arrivals.round)
                said = front_bytes_of(packet)
                if said != len(front):
                    raise BadFrame(f"frame body: {len(front)} bytes, the packet's front has {said}")
                if header.payload_bytes != packet.payload_bytes:
                    raise BadFrame(
                        f"payload: {header.payload_bytes} bytes, the packet says {packet.payload_bytes}"
                    )
                self._land(packet)
            except ConnectionLost:
                raise
            except Exception as error:
                raise RunFailed(f"packet {self._packet}: {type(error).__name__}: {error}") from error

    def _land(self, packet: Packet) -> None:
        """Place a packet and count it. Its pages are torn from the first byte until they are checked."""
        plan, arrivals = self._plan, self._plan.arrivals
        self._refuse_twice(packet.normal)
        self._refuse_twice(packet.zero)
        torn: npt.NDArray[np.uint32] = packet.normal[:0]
        good = packet.normal
        if len(packet.normal):
            arrivals.whole[packet.normal] = 0
            if packet.method_code == plan.limits.raw_code and not len(packet.bases):
                self._link.incoming.read_ahead = False
                self._link.incoming.fill(self._placer.places(packet))
                wrong = self._placer.torn(packet)
                torn, good = packet.normal[wrong], packet.normal[~wrong]
                self._placer.placed(packet, good)
            else:
                self._placer.place(packet, self._link.incoming.take(packet.payload_bytes))
                self._link.incoming.read_ahead = True
            arrivals.whole[good] = 1
            arrivals.applied[good] = 1
        self._placer.clear(packet.zero)
        arrivals.whole[packet.zero] = 1
        arrivals.applied[packet.zero] = 1
        arrivals.note(time.monotonic_ns())
        self._row[Count.QAT_HARDWARE] = self._placer.hardware_requests
        self._row[Count.QAT_SOFTWARE] = self._placer.software_requests
        count_placed(self._row, packet, len(torn))
        arrivals.delivered[plan.number] += 1

    def _refuse_twice(self, pages: npt.NDArray[np.uint32]) -> None:
        again = self._plan.arrivals.applied[pages]
        if again.any():
            page = int(pages[np.flatnonzero(again)[0]])
            raise BadFrame(f"page {page}: twice in round {self._plan.arrivals.round}")
