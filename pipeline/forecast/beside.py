"""What a migration costs beside the codec."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline.auto.chooser import RECEIVE_NS, SEND_NS
from pipeline.forecast.packet_size import PACKET_PAGES
from pipeline.packets.checksums import block_crcs

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

    def slower(self, by: float) -> Beside:
        """With copies that take so many times as long."""
        return replace(self, send_ns=self.send_ns * by, recv_ns=self.recv_ns * by, scan_ns=self.scan_ns * by)


NOTHING_BESIDE = Beside(0.0, 0.0, 0.0, 0.0, 0.0)
"""For costs that are those of a whole migration, as they were measured."""

SEND_PACKET_NS, RECV_PACKET_NS = 0.115, 0.08
"""A byte of a packet of 512 KiB beside its bytes: 60 and 40 us of Python, locks and waking up (Xeon)."""

COPIED_PACKETS, PASSES, SLOTS = 96, 3, 4


def beside_here(pages: npt.NDArray[np.uint64], threads: int) -> Beside:
    """What a page costs beside the codec on so many CPUs of this host, as it is now: its way into a slot and
    its checksum there, its way to its place and its checksum there. Memory is faster on one host than on
    another, and slower when others use it. Without pages what an idle EPYC had."""
    shares = [pages[at::threads][: COPIED_PACKETS * PACKET_PAGES] for at in range(threads)]
    if len(shares[-1]) < PACKET_PAGES:
        return Beside()
    with ThreadPoolExecutor(threads) as pool:
        scan_ns, send_ns, recv_ns = np.array(list(pool.map(_packets_moved, shares))).mean(axis=0)
    return Beside(float(send_ns) + SEND_PACKET_NS, float(recv_ns) + RECV_PACKET_NS, float(scan_ns))


def _packets_moved(share: npt.NDArray[np.uint64]) -> list[float]:
    """Nanoseconds a byte of one thread: into a slot, its checksum, and to its place."""
    slots = np.ones((SLOTS, PACKET_PAGES, share.shape[1]), np.uint64)
    room = np.ones_like(share)
    rows = []
    for _ in range(PASSES):
        for number, first in enumerate(range(0, len(share) - PACKET_PAGES + 1, PACKET_PAGES)):
            slot, place = slots[number % SLOTS], room[first : first + PACKET_PAGES]
            times = [time.thread_time_ns()]
            np.copyto(slot, share[first : first + PACKET_PAGES])
            np.count_nonzero(slot[:, 0])
            times.append(time.thread_time_ns())
            block_crcs(slot.data.cast("B"), PACKET_PAGES)
            times.append(time.thread_time_ns())
            np.copyto(place, slot)
            block_crcs(place.data.cast("B"), PACKET_PAGES)
            times.append(time.thread_time_ns())
            rows.append(np.diff(times))
    return [float(one) / slots[0].nbytes for one in np.median(rows, axis=0)]
