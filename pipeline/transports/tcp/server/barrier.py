"""The barrier behind a round, on the receive side: can anything of it still be on its way?"""

from __future__ import annotations

import time

from pipeline.transports.tcp.messages import Settle
from pipeline.transports.tcp.protocol import STALL_SECONDS, BadFrame
from pipeline.transports.tcp.server.arrivals import Arrivals
from pipeline.transports.tcp.server.connections import PeerConnection

PATIENCE_SECONDS = 2 * STALL_SECONDS
"""A channel that delivers nothing for so long while the round waits for it has stalled."""


class Barrier:
    """One SETTLE, until it can be answered."""

    def __init__(self, asked: Settle, arrivals: Arrivals) -> None:
        self.asked = asked
        self._arrivals = arrivals
        self._progress: dict[int, tuple[int, float]] = {}

    def is_reached(self, channels: dict[int, PeerConnection]) -> bool:
        """Whether every channel's packets are applied, or its connection is at an end; ends those that are
        of no use. Raises BadFrame when more came than the sender says it sent."""
        waiting = False
        for channel, (generation, packets) in enumerate(self.asked.channels):
            held = channels.get(channel)
            if held is not None and not self._is_through(channel, held, generation, packets):
                waiting = True
        return not waiting

    def _is_through(self, channel: int, held: PeerConnection, generation: int, packets: int) -> bool:
        if held.generation > generation:
            return True
        if held.generation < generation:
            held.shut()
            return False
        on, delivered = self._arrivals.packets(channel)
        if on == generation and delivered == packets:
            return True
        if on == generation and delivered > packets:
            raise BadFrame(f"channels: {packets} packets on channel {channel}, {delivered} came")
        before, since = self._progress.get(channel, (-1, 0.0))
        now = time.monotonic()
        if before != delivered:
            self._progress[channel] = (delivered, now)
        elif now - since > PATIENCE_SECONDS:
            held.shut()
        return False
