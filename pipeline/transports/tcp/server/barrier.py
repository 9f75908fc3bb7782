"""The barrier behind a round, on the receive side: can anything of it still be on its way?"""

from __future__ import annotations

import time

from pipeline.errors import BadFrame
from pipeline.transports.tcp.messages import Settle
from pipeline.transports.tcp.protocol import STALL_SECONDS
from pipeline.transports.tcp.server.arrivals import Arrivals
from pipeline.transports.tcp.server.connections import PeerConnection

PATIENCE_SECONDS = 2 * STALL_SECONDS
"""A connection that delivers nothing for so long while the round waits for it has stalled."""


class Barrier:
    """One SETTLE, until it can be answered."""

    def __init__(self, asked: Settle, arrivals: Arrivals) -> None:
        self.asked = asked
        self._arrivals = arrivals
        self._progress: dict[int, tuple[int, float]] = {}

    def is_reached(self, connections: dict[int, PeerConnection]) -> bool:
        """Whether every connection's packets are applied, or it is at an end; ends those that are
        of no use. Raises BadFrame when more came than the sender says it sent."""
        waiting = False
        for number, (generation, packets) in enumerate(self.asked.connections):
            connection = connections.get(number)
            if connection is not None and not self._is_through(number, connection, generation, packets):
                waiting = True
        return not waiting

    def _is_through(self, number: int, connection: PeerConnection, generation: int, packets: int) -> bool:
        if connection.generation > generation:
            return True
        if connection.generation < generation:
            connection.shut()
            return False
        on, delivered = self._arrivals.packets(number)
        if on == generation and delivered == packets:
            return True
        if on == generation and delivered > packets:
            raise BadFrame(f"connections: {packets} packets on connection {number}, {delivered} came")
        before, since = self._progress.get(number, (-1, 0.0))
        now = time.monotonic()
        if before != delivered:
            self._progress[number] = (delivered, now)
        elif now - since > PATIENCE_SECONDS:
            connection.shut()
        return False
