"""A channel's connection to the receiver: made again when it breaks, and what it carried.

What was on a connection that broke is lost; the barrier finds out what was applied.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from guestmem.ipc import Connection
from pipeline.errors import ConnectionLost, PeerRefused, RunFailed
from pipeline.net.socket_info import added_up, socket_record
from pipeline.net.zero_copy import ZeroCopy
from pipeline.transports.tcp.client.dial import Peer
from pipeline.transports.tcp.client.no_progress import NoProgress, no_connection_again
from pipeline.transports.tcp.client.sender_rows import (
    CALLING,
    CARRIED,
    CONNECTION,
    FULL,
    SENT_BYTES,
    UNACKNOWLEDGED,
    SenderRows,
)
from pipeline.transports.tcp.link import Link
from pipeline.transports.tcp.messages import Ready
from pipeline.transports.tcp.protocol import HEADER as FRAME_HEADER
from pipeline.transports.tcp.protocol import STALL_SECONDS, FrameType, Hello, Role

LAST_WORD_SECONDS = 0.2
"""How long the kernel may take, when a connection ends, to say what it did with the last bytes."""

AGAIN_WELCOME_SECONDS = 2 * STALL_SECONDS
"""How long the receiver may take to get ready for a connection that is made again: RAM has its pages."""


class ChannelConnection:
    """The connection of one number, of one process."""

    def __init__(
        self,
        number: int,
        peer: Peer,
        run_id: bytes,
        rows: SenderRows,
        coordinator: Connection,
        more_time: Callable[[], float],
        *,
        zero_copy: bool = False,
    ) -> None:
        """`zero_copy`: payloads that lie in guest RAM are sent without a copy. `more_time` is called after
        each call in vain, and may say until when to go on calling (monotonic seconds); what it raises ends
        the calling.
        """
        self._number = number
        self._peer = peer
        self._run_id = run_id
        self._coordinator = coordinator
        self._more_time = more_time
        self._row = memoryview(rows.rows[number])
        self.generation = 1
        self._progress_made = NoProgress(peer)
        self._carried_here = 0
        self._record: dict[str, Any] = {"channel": number, "broken": []}
        self.link: Link
        self._with_zero_copy = zero_copy
        self._zero_copy: ZeroCopy | None = None

    def open(self) -> Ready:
        """Call until somebody answers. Raises RunFailed, PeerRefused, and what `more_time` does."""
        hello = Hello(Role.PACKETS, self._number, self.generation, self._run_id)
        self.link, body, self.generation = self._peer.keep_calling(
            hello, self._peer.reconnect_seconds, self._more_time
        )
        self._row[CONNECTION] = self.generation << 32
        self._zero_copy = ZeroCopy(self.link.socket) if self._with_zero_copy else None
        version = self.link.version
        ready = Ready.of(body)
        # Version 1 does not say how much was applied, so nothing can be concluded.
        self._progress_made.welcomed(ready.packets, sent=self._carried_here > 0 and version > 1)
        self._carried_here = 0
        return ready

    def send(
        self,
        front: bytes | memoryview,
        payload: Sequence[memoryview],
        on_part: Callable[[int], None] | None = None,
        *,
        in_ram: bool = False,
    ) -> str:
        """Send a packet, whose payload may lie in guest RAM: why the connection broke meanwhile, or nothing.
        Then `again` is to be called.

        What becomes of a packet that was lost, the barrier will tell.
        """
        row, why = self._row, ""
        self._carried_here += 1
        try:
            zero_copy = self._zero_copy if in_ram else None
            self.link.send_frame(FrameType.PACKET, front, payload, on_part, zero_copy)
        except ConnectionLost as error:
            why = str(error)
            row[CONNECTION] = (self.generation + 1) << 32
            row[CALLING] = 1
        else:
            row[CONNECTION] += 1
        row[SENT_BYTES] += FRAME_HEADER.size + len(front) + sum(len(view) for view in payload)
        return why

    def settle(self) -> str:
        """Wait until the kernel is done with what it sends without a copy, or the coordinator has something
        to say: why neither comes, or nothing. Until then its messages would look like something to read."""
        if self._zero_copy is None or self._zero_copy.settle(STALL_SECONDS, self._coordinator.fileno()):
            return ""
        return "the kernel does not end what it sends without a copy"

    def count_carried(self) -> None:
        """The packet is done with."""
        self._row[CARRIED] += 1

    def look(self, of_this_packet: int = 0) -> None:
        """Note what the socket holds, so many bytes of the packet that is under way among it."""
        self._row[UNACKNOWLEDGED] = self.link.unacknowledged() - of_this_packet
        self._row[FULL] = self.link.is_full()

    def again(self, why: str) -> None:
        """The connection is of no use: close it, call anew. Raises RunFailed, and what `more_time` does."""
        self._record["broken"].append(why)
        self._row[CONNECTION] = (self.generation + 1) << 32
        self._row[UNACKNOWLEDGED] = self._row[FULL] = 0
        self._row[CALLING] = 1
        self._note()
        self.link.close()
        self.generation += 1
        self._peer = dataclasses.replace(self._peer, welcome_seconds=AGAIN_WELCOME_SECONDS)
        try:
            self.open()
        except PeerRefused as error:
            raise RunFailed(f"the connection broke ({why}); {error}") from error
        except RunFailed as error:
            raise no_connection_again(self._peer, error) from error
        self._row[CALLING] = 0
        self._coordinator.send(
            {"kind": "warning", "text": f"connection {self._number} broke ({why}) and was made again"}
        )

    def _note(self) -> None:
        self._record = added_up(self._record, socket_record(self.link.socket))
        if self._zero_copy is not None:
            self._zero_copy.settle(LAST_WORD_SECONDS)
            for name in ("sent_bytes", "copied_bytes", "unknown_bytes"):
                key = f"zero_copy_{name}"
                self._record[key] = self._record.get(key, 0) + getattr(self._zero_copy, name)

    def close(self) -> dict[str, Any]:
        """Say that no more comes; what the connection was like."""
        self._note()
        try:
            self.link.send(FrameType.END, {})
        except ConnectionLost:
            pass
        self.link.close()
        return {**self._record, "connections": self.generation}


class Finished(Exception):
    """The coordinator wants an end, while a worker calls in vain."""


def open_first(connection: ChannelConnection) -> Ready:
    """A worker's first connection. Raises RunFailed."""
    try:
        return connection.open()
    except PeerRefused as error:
        raise RunFailed(f"the receiver had taken the run, and refuses a connection of it: {error}") from error
