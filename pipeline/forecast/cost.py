"""What a byte of normal pages costs, and what a delta of pages that come back leaves of it."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace

import numpy as np

KEEP_NS, COMPARE_NS, APPLY_NS = 0.8, 1.6, 0.8
"""CPU a byte of keeping a page, of comparing it and packing what changed, and of changing the destination's
(numpy, a Xeon; 256 MiB of preset database over 125 MiB/s)."""


@dataclass(frozen=True)
class Cost:
    """Of a byte of normal pages: CPU nanoseconds of both sides, and bytes on the wire.

    A channel, or a receiver, is held for its CPU and for so long as it waits for a device beside that.
    """

    send_ns: float
    recv_ns: float
    wire_share: float
    send_wait_ns: float = 0.0
    recv_wait_ns: float = 0.0

    def mixed_with(self, other: Cost, share: float) -> Cost:
        """Where so much of the pages costs what `other` does."""
        return Cost(
            *(
                mine + (theirs - mine) * share
                for mine, theirs in zip(astuple(self), astuple(other), strict=True)
            )
        )


@dataclass(frozen=True)
class Changes:
    """How much of a page that comes back has changed so many `seconds` after it was sent, as shares of its
    bytes. None where there are no points."""

    seconds: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()

    def after(self, seconds: float) -> float:
        """Between points a straight line, outside the nearest one."""
        return float(np.interp(seconds, self.seconds, self.shares)) if self.seconds else 1.0


@dataclass(frozen=True)
class Deltas:
    """`coverage` of pages that come back have a kept version; `kept` of round 1's pages are kept."""

    changes: Changes
    coverage: float
    kept: float

    def first(self, cost: Cost) -> Cost:
        """Of round 1, with what keeping takes."""
        return replace(cost, send_ns=cost.send_ns + KEEP_NS * self.kept)

    def later(self, cost: Cost, seconds: float) -> Cost:
        """Of a round of pages that were written within so many seconds."""
        left = 1 - self.coverage * (1 - self.changes.after(seconds))
        return replace(
            cost,
            send_ns=cost.send_ns * left + COMPARE_NS * self.coverage,
            recv_ns=cost.recv_ns * left + APPLY_NS * self.coverage,
            wire_share=cost.wire_share * left,
        )
