"""What a migration costs beside the codec."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.auto.chooser import RECEIVE_NS, SEND_NS

SCAN_NS = 0.12
"""CPU a byte to find zero pages (numpy, about 8 to 12 GB/s)."""

SEND_WAITING, RECV_WAITING = 0.035, 0.014
"""CPUs that are busy while a side waits for the wire: it wakes for every packet, with cold caches (25 MB/s,
an AMD EPYC: 2 to 6 % and 1 to 2 % of the time)."""


@dataclass(frozen=True)
class Beside:
    """CPU nanoseconds a byte beside the codec: of normal pages sent and received, of all pages looked at; and
    the CPUs that are busy while a side waits for the wire."""

    send_ns: float = SEND_NS
    recv_ns: float = RECEIVE_NS
    scan_ns: float = SCAN_NS
    send_waiting: float = SEND_WAITING
    recv_waiting: float = RECV_WAITING


NOTHING_BESIDE = Beside(0.0, 0.0, 0.0, 0.0, 0.0)
"""For costs that are those of a whole migration, as they were measured."""
