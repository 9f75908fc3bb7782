"""From a filled slot to the socket."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from guestmem.ipc import Connection
from guestmem.ram import GuestRam
from pipeline.packets.packet import HEADER, Packet, front_room, write_packet
from pipeline.packets.page_runs import bytes_of, runs
from pipeline.packets.queue import FRONT_USED, IN_RAM, Slot
from pipeline.source.in_place import summed
from pipeline.transports.tcp.client.channel_connection import ChannelConnection
from pipeline.transports.tcp.client.dial import Peer
from pipeline.transports.tcp.client.sender_rows import SenderRows
from pipeline.transports.tcp.older_versions import VERSION_1

PAYLOAD_AT = 7
"""The field of a packet's header (`pipeline.packets.packet`)."""


class Carrier:
    """Sends packets over a connection, raw ones from where they lie in guest RAM."""

    def __init__(
        self,
        number: int,
        peer: Peer,
        run_id: bytes,
        ram: GuestRam,
        rows: SenderRows,
        coordinator: Connection,
        more_time: Callable[[], float],
        *,
        zero_copy: bool = False,
    ) -> None:
        """`ram` is this process's own mapping of guest RAM; `more_time` and `zero_copy` as the
        `ChannelConnection` has them."""
        self._ram = ram
        self.connection = ChannelConnection(
            number, peer, run_id, rows, coordinator, more_time, zero_copy=zero_copy
        )

    def carry(self, slot: Slot, on_part: Callable[[int], None] | None = None) -> str:
        """Send what a slot holds: why the connection broke meanwhile, or nothing."""
        front, payload = self._parts(slot)
        return self.connection.send(front, payload, on_part, in_ram=bool(slot.note[IN_RAM]))

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


def _read_own(front: memoryview) -> Packet:
    """A front that a channel of this run has written, and that has no checksums."""
    _, code, _, channel, round_, normal, zero, payload_bytes, block_pages, _, _ = HEADER.unpack_from(front)
    numbers = np.frombuffer(front, np.uint32, normal + zero, HEADER.size)
    return Packet(code, channel, round_, numbers[:normal], numbers[normal:], payload_bytes, block_pages, [])
