"""A probe of the link to who waits for a migration: how many bytes come through, in what time.

After WELCOME (its body is a `ProbeOffer`) the prober sends bytes of no meaning, on all of its connections at
once. The waiting side reads them for as long as it offered, from the first byte on, says in PROBED how many
came in each slice of that time, by its own clock, and reads on until the prober hangs up. Nothing is kept,
and the side waits as before: a probe is no migration. It is refused while one goes on, and cut off when one
begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.transports.tcp.messages import Message, integer, integers, number

PROBE_SECONDS = 2.0
SLICE_SECONDS = 0.05
MAX_PROBE_CONNECTIONS = 16
"""At one time, of all probers."""

MAX_SLICES = 400
REFUSED_BUSY = "a migration goes on here: a probe would disturb it"
REFUSED_MANY = f"{MAX_PROBE_CONNECTIONS} connections probe already"


@dataclass(frozen=True)
class ProbeOffer(Message):
    """WELCOME of a probe: for how long bytes are read."""

    seconds: float

    @classmethod
    def read(cls, body: dict[str, Any]) -> ProbeOffer:
        return cls(number(body, "seconds", SLICE_SECONDS, SLICE_SECONDS * MAX_SLICES))


@dataclass(frozen=True)
class Probed(Message):
    """PROBED: bytes that came in each slice of `slice_ns` from `began_ns` on, of the reader's monotonic
    clock, which all connections of a probe share."""

    began_ns: int
    slice_ns: int
    slices: list[int]

    @classmethod
    def read(cls, body: dict[str, Any]) -> Probed:
        return cls(
            integer(body, "began_ns", 0, 1 << 63),
            integer(body, "slice_ns", 1, 1 << 40),
            integers(body, "slices", MAX_SLICES, 0, 1 << 48),
        )
