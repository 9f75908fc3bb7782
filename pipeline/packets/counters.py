"""Counters that workers keep in shared memory while they work, read by the coordinator.

A row a worker, written by that worker alone: eight-byte stores, no lock.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

from guestmem.fence import store_fence
from guestmem.segment import mapped_segment
from pipeline.packets.packet import Packet
from pipeline.report.metrics import Counts


class Count(IntEnum):
    """The columns. All only ever grow."""

    PACKETS = 0
    RAW_PACKETS = 1
    NORMAL_PAGES = 2
    ZERO_PAGES = 3
    WIRE_BYTES = 4
    QAT_HARDWARE = 5
    QAT_SOFTWARE = 6


Totals = npt.NDArray[np.int64]
"""A sum of rows, by `Count`."""


def counts_of(totals: Totals) -> Counts:
    """Totals as values with names."""
    return Counts(**{column.name.lower(): int(totals[column]) for column in Count})


class Counters:
    """The rows of one side."""

    def __init__(self, workers: int) -> None:
        """Create zeroed rows. Raises OSError."""
        width = len(Count)
        self._mapping = mapped_segment("counters", workers * width * 8)
        self.rows: npt.NDArray[np.int64] = np.frombuffer(self._mapping, np.int64).reshape(workers, width)

    def row(self, worker: int) -> memoryview:
        """A worker's own row, as signed 64-bit numbers: a memoryview is twice as fast to add to."""
        return memoryview(self.rows[worker])

    def totals(self) -> Totals:
        """The sum over the side's workers, by column."""
        total: Totals = self.rows.sum(axis=0)
        return total


def count_made(row: memoryview, packet: Packet, on_wire_bytes: int) -> None:
    """A send worker has a packet ready. It is counted last, behind a fence, as in `count_placed`."""
    row[Count.NORMAL_PAGES] += len(packet.normal)
    row[Count.ZERO_PAGES] += len(packet.zero)
    row[Count.WIRE_BYTES] += on_wire_bytes
    store_fence()
    row[Count.PACKETS] += 1


def count_placed(row: memoryview, packet: Packet, torn: int = 0) -> None:
    """A receive worker has placed a packet, all but `torn` of its pages.

    The packet itself is counted last, behind a fence: who sees it counted sees its pages in place, too.
    """
    row[Count.NORMAL_PAGES] += len(packet.normal) - torn
    row[Count.ZERO_PAGES] += len(packet.zero)
    store_fence()
    row[Count.PACKETS] += 1
