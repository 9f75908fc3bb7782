"""What each candidate has cost and yielded so far, kept in shared memory by the workers of method auto.

A row a worker, written by that worker alone. Channels count by candidate; receivers by the method's
code, since a packet does not say its level and decompressing hardly depends on it.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

from guestmem.page import PAGE_BYTES
from guestmem.segment import mapped_segment

MAX_CODES = 16


class Sent(IntEnum):
    """A channel's columns for each candidate."""

    PACKETS = 0
    PLAIN_BYTES = 1
    PAYLOAD_BYTES = 2
    CPU_NS = 3
    WALL_NS = 4
    RUNS = 5
    """How often packets of this kind began to follow others: packets over runs is a run's length."""


class Received(IntEnum):
    """A receiver's columns for each method code."""

    PLAIN_BYTES = 0
    CPU_NS = 1


Cells = npt.NDArray[np.int64]


class Statistics:
    """The rows of all workers, and the choice that the coordinator publishes for the channels."""

    def __init__(self, channels: int, receivers: int, candidates: int) -> None:
        """Create it, all zero. Raises OSError."""
        sent = channels * candidates * len(Sent)
        received = receivers * MAX_CODES * len(Received)
        mapping = mapped_segment("statistics", PAGE_BYTES + 8 * (sent + received))
        self.choice = memoryview(mapping)[:4]
        numbers = np.frombuffer(mapping, np.int64, sent + received, PAGE_BYTES)
        self.sent: Cells = numbers[:sent].reshape(channels, candidates, len(Sent))
        self.received: Cells = numbers[sent:].reshape(receivers, MAX_CODES, len(Received))

    def sent_totals(self) -> Cells:
        """(candidates, columns), summed over the channels."""
        total: Cells = self.sent.sum(axis=0)
        return total

    def received_totals(self) -> Cells:
        """(codes, columns), summed over the receivers."""
        total: Cells = self.received.sum(axis=0)
        return total
