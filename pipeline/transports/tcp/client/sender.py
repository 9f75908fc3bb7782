"""A channel's connection on the send side: takes filled slots, whoever filled them, and sends them.

Compression and sending overlap: the bounded queue lies between. When the connection breaks, what was
on it is lost (the barrier finds out what was applied), the other senders take on what is queued, and
this one calls again.
"""

from __future__ import annotations

import dataclasses
import select
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from guestmem.ipc import Connection
from guestmem.prefault import populate
from guestmem.ram import GuestRam
from guestmem.segment import create_segment, map_segment
from pipeline.errors import ConnectionLost, PeerRefused, RunFailed
from pipeline.net.socket_info import added_up, socket_record
from pipeline.packets.checksums import crcs_in_ram
from pipeline.packets.packet import HEADER, MIN_BLOCK_PAGES, write_checksums
from pipeline.packets.page_runs import bytes_of, runs
from pipeline.packets.queue import FRONT_USED, IN_RAM, PacketQueue, Slot
from pipeline.processes.usage import Usage, usage_message
from pipeline.transports.tcp.client.dial import Peer
from pipeline.transports.tcp.client.no_progress import NoProgress, no_connection_again
from pipeline.transports.tcp.link import Link
from pipeline.transports.tcp.messages import Ready
from pipeline.transports.tcp.protocol import HEADER as FRAME_HEADER
from pipeline.transports.tcp.protocol import STALL_SECONDS, FrameType, Hello, Role

CARRIED, CONNECTION, SENT_BYTES, UNACKNOWLEDGED, FULL = range(5)
COLUMNS = 8
"""Of 64-bit numbers: a cache line a sender."""

AGAIN_WELCOME_SECONDS = 2 * STALL_SECONDS
"""How long the receiver may take to get ready for a connection that is made again: RAM has its pages."""

SLOW_SECONDS = 0.05
"""A link on which a packet takes longer is looked at while the next one goes, so that auto sees its speed."""

LOOK_MS = 5.0
"""How often an idle sender looks what its socket still holds."""

NORMAL_AT, ZERO_AT, PAYLOAD_AT = 5, 6, 7
"""Fields of a packet's header (`pipeline.packets.packet`)."""


class SenderRows:
    """What each sender has done, in shared memory: a row a sender, written by it alone.

    CARRIED: packets taken from the queue and done with, sent or lost. CONNECTION: the generation of
    its connection (upper 32 bits), and packets written whole on that one. SENT_BYTES: of packets done
    with. UNACKNOWLEDGED: bytes of them that the socket still holds, less those of the packet under way
    that are through. FULL: 1 when bytes wait that the network takes no faster.
    """

    def __init__(self, senders: int) -> None:
        """Create it. Raises OSError."""
        fd = create_segment("senders", senders * COLUMNS * 8, reserve=True)
        self._mapping = map_segment(fd, writable=True)
        self.rows: npt.NDArray[np.int64] = np.frombuffer(self._mapping, np.int64).reshape(senders, COLUMNS)

    def carried(self) -> int:
        """Packets of all senders."""
        return int(self.rows[:, CARRIED].sum())

    def acknowledged(self) -> int:
        """Bytes that all senders are rid of."""
        return int(self.rows[:, SENT_BYTES].sum() - self.rows[:, UNACKNOWLEDGED].sum())

    def full(self) -> bool:
        """Whether most senders' sockets are full: the wire is what they wait for."""
        return 2 * int(self.rows[:, FULL].sum()) >= len(self.rows)

    def connections(self) -> list[list[int]]:
        """[generation, packets] of each sender, as SETTLE says it."""
        return [[value >> 32, value & 0xFFFFFFFF] for value in self.rows[:, CONNECTION].tolist()]


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
    try:
        ready = sender.open()
    except PeerRefused as error:
        raise RunFailed(f"the receiver had taken the run, and refuses a connection of it: {error}") from error
    connection.send({"kind": "ready", **ready.body()})
    before = Usage.now()
    try:
        sender.work()
    except _Finished:
        connection.receive()
    connection.send({**usage_message(before, ""), "connection": sender.close()})


class _Finished(Exception):
    """The coordinator has something to say, while this sender calls in vain."""


class Sender:
    """The loop from filled slots to the socket."""

    def __init__(self, connection: Connection, plan: SenderPlan) -> None:
        self._connection = connection
        self._plan = plan
        self._memory = plan.source.remap(writable=False)
        populate(self._memory.mapping, write=False)
        plan.queue.attach()
        populate(plan.queue.mapping, write=True)
        self._row = memoryview(plan.rows.rows[plan.number])
        self._generation = 1
        self._peer = plan.peer
        self._seen = 0
        self._is_slow = False
        self._progress_made = NoProgress(plan.peer)
        self._carried_here = 0
        self._record: dict[str, Any] = {"channel": plan.number, "broken": []}
        self._link: Link

    def open(self) -> Ready:
        """Call until somebody answers. Raises RunFailed, PeerRefused."""
        plan = self._plan
        hello = Hello(Role.PACKETS, plan.number, self._generation, plan.run_id)
        self._link, body, self._generation = self._peer.keep_calling(
            hello, plan.peer.reconnect_seconds, self._more_time
        )
        self._row[CONNECTION] = self._generation << 32
        version = self._link.version
        ready = Ready.of(body)
        # Version 1 does not say how much was applied, so nothing can be concluded.
        self._progress_made.welcomed(ready.packets, sent=self._carried_here > 0 and version > 1)
        self._carried_here = 0
        return ready

    def _more_time(self) -> float:
        """While other senders make way, this one may go on calling. Raises _Finished."""
        if select.select([self._connection], [], [], 0)[0]:
            raise _Finished
        carried = self._plan.rows.carried()
        moved = carried != self._seen
        self._seen = carried
        return time.monotonic() + self._plan.peer.reconnect_seconds if moved else 0.0

    def work(self) -> None:
        """Send what is queued, until the coordinator has something to say."""
        queue, order, row = self._plan.queue, self._connection, self._row
        while True:
            look_again = LOOK_MS if row[UNACKNOWLEDGED] else None
            number = queue.filled.get(order.fileno(), self._link.fileno(), timeout_ms=look_again)
            if number is not None:
                self._carry(number)
            elif self._link.wait(0):
                self._again("the receiver closed it")
            elif select.select([order], [], [], 0)[0]:
                order.receive()
                return
            else:
                self._look()

    def _carry(self, number: int) -> None:
        slot, row = self._plan.queue.slot(number), self._row
        front, payload = self._parts(slot)
        why = ""
        self._carried_here += 1
        began = time.monotonic()
        try:
            self._link.send_frame(FrameType.PACKET, front, payload, self._look if self._is_slow else None)
        except ConnectionLost as error:
            # The packet is done with; what became of it, the barrier will tell.
            why = str(error)
            row[CONNECTION] = (self._generation + 1) << 32
        else:
            row[CONNECTION] += 1
        row[SENT_BYTES] += FRAME_HEADER.size + len(front) + sum(len(view) for view in payload)
        self._is_slow = time.monotonic() - began > SLOW_SECONDS
        if not why:
            self._look()
        row[CARRIED] += 1
        self._plan.queue.free.put(number)
        if why:
            self._again(why)

    def _look(self, of_this_packet: int = 0) -> None:
        """Note what the socket holds, so many bytes of the packet that is under way among it."""
        self._row[UNACKNOWLEDGED] = self._link.unacknowledged() - of_this_packet
        self._row[FULL] = self._link.is_full()

    def _parts(self, slot: Slot) -> tuple[memoryview, list[memoryview]]:
        """The front of a packet, and where its payload lies: in the slot, or still in guest RAM.

        What the guest writes between the checksums here and the sending does not match its block's
        checksum, is refused at the other end, and is dirty: it goes again in a later round.
        """
        front = slot.memory[: slot.note[FRONT_USED]]
        head = HEADER.unpack_from(front)
        if slot.note[IN_RAM]:
            pages = np.frombuffer(front, np.uint32, head[NORMAL_AT], HEADER.size)
            memory = self._memory.memory
            crcs = crcs_in_ram(memory, pages, MIN_BLOCK_PAGES)
            write_checksums(front, crcs, head[NORMAL_AT], head[ZERO_AT])
            return front, [memory[bytes_of(run)] for run in runs(pages)]
        return front, [slot.payload[: head[PAYLOAD_AT]]]

    def _again(self, why: str) -> None:
        """The connection is of no use: close it and call anew."""
        self._record["broken"].append(why)
        self._row[CONNECTION] = (self._generation + 1) << 32
        self._row[UNACKNOWLEDGED] = self._row[FULL] = 0
        self._note()
        self._link.close()
        self._generation += 1
        self._peer = dataclasses.replace(self._peer, welcome_seconds=AGAIN_WELCOME_SECONDS)
        try:
            self.open()
        except PeerRefused as error:
            raise RunFailed(f"the connection broke ({why}); {error}") from error
        except RunFailed as error:
            raise no_connection_again(self._peer, error) from error
        self._connection.send(
            {"kind": "warning", "text": f"connection {self._plan.number} broke ({why}) and was made again"}
        )

    def _note(self) -> None:
        self._record = added_up(self._record, socket_record(self._link.socket))

    def close(self) -> dict[str, Any]:
        """Say that no more comes; what the connection was like."""
        self._note()
        try:
            self._link.send(FrameType.END, {})
        except ConnectionLost:
            pass
        self._link.close()
        return {**self._record, "connections": self._generation}
