"""What a migration costs beside the codec."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import numpy.typing as npt

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

    def slower(self, by: float) -> Beside:
        """With copies that take so many times as long."""
        return replace(self, send_ns=self.send_ns * by, recv_ns=self.recv_ns * by, scan_ns=self.scan_ns * by)


NOTHING_BESIDE = Beside(0.0, 0.0, 0.0, 0.0, 0.0)
"""For costs that are those of a whole migration, as they were measured."""

SCAN_COPIES, SEND_COPIES, RECV_COPIES = 0.45, 2.2, 1.7
"""As many copies of its bytes a page costs beside the codec: to find out whether it is zero; its snapshot,
checksum and way through the queue; its checksum and its place."""

COPIED_PAGES = 512
PASSES = 3


def beside_here(pages: npt.NDArray[np.uint64], threads: int) -> Beside:
    """By what a copy of these pages costs on so many CPUs of this host, as it is now: memory is faster on one
    host than on another, and slower when others use it. Without pages what an idle EPYC had."""
    shares = [pages[at::threads] for at in range(threads)]
    if not len(shares[-1]):
        return Beside()

    def work(share: npt.NDArray[np.uint64]) -> float:
        room = np.ones_like(share)
        found = []
        for _ in range(PASSES):
            begun = time.thread_time_ns()
            for first in range(0, len(share), COPIED_PAGES):
                np.copyto(room[first : first + COPIED_PAGES], share[first : first + COPIED_PAGES])
            found.append((time.thread_time_ns() - begun) / share.nbytes)
        return median(found)

    with ThreadPoolExecutor(threads) as pool:
        copy_ns = max(pool.map(work, shares))
    return Beside(SEND_COPIES * copy_ns, RECV_COPIES * copy_ns, SCAN_COPIES * copy_ns)
