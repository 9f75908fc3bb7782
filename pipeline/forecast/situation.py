"""What a forecast is made from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from pipeline.forecast.activity import Activity
from pipeline.forecast.beside import Beside
from pipeline.forecast.cost import Changes
from pipeline.forecast.qat_device import QatDevice
from pipeline.policy import PolicySettings

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CurveSamples:
    """How many distinct pages were dirty so long after a sync: all samples of each point, in order."""

    seconds: tuple[float, ...]
    pages: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Batches:
    """What a method made of batches of sampled pages, one figure a batch: bytes before and after, and CPU
    nanoseconds of each direction. Empty where there was no page.

    `gauge` is what a quick method made of each batch, as a share, and `gauge_share` what it made of far more
    pages than were sampled; empty where nobody looked at more."""

    plain_bytes: Numbers
    payload_bytes: Numbers
    compress_ns: Numbers
    decompress_ns: Numbers
    gauge: Numbers = field(default_factory=lambda: np.zeros(0))
    gauge_share: float = 0.0

    def __len__(self) -> int:
        return len(self.plain_bytes)

    def dearer(self, send_ns: float, recv_ns: float, wire: float = 1.0) -> Batches:
        """With so much more CPU a byte, and so many times as many bytes."""
        return replace(
            self,
            payload_bytes=self.payload_bytes * wire,
            compress_ns=self.compress_ns + send_ns * self.plain_bytes,
            decompress_ns=self.decompress_ns + recv_ns * self.plain_bytes,
        )


@dataclass(frozen=True)
class Candidate:
    """A method at a level on this guest's memory: of all normal pages, and of the pages that it writes.

    `modelled` where its speed is a host profile's, not measured here. With a `device` its CPU and its waiting
    are the device model's, and of the batches only the bytes count.
    """

    method: str
    level: int | None
    whole: Batches
    written: Batches
    modelled: bool = False
    device: QatDevice | None = None

    @property
    def name(self) -> str:
        return self.method if self.level is None else f"{self.method} {self.level}"

    def dearer(self, send_ns: float, recv_ns: float, wire: float = 1.0) -> Candidate:
        """With so much more CPU a byte, and so many times as many bytes."""
        whole, written = (one.dearer(send_ns, recv_ns, wire) for one in (self.whole, self.written))
        return replace(self, whole=whole, written=written)


@dataclass(frozen=True)
class Guest:
    """A guest's RAM and what it does. `zero_share` is of all pages, `written_zero_share` of those it writes;
    `cpus` is what it keeps busy; `sync_ms` what fetching its dirty log takes; `activity` how its writing
    comes and goes."""

    ram_pages: int
    zero_share: float
    written_zero_share: float
    curve: CurveSamples
    sync_ms: float
    cpus: float = 0.0
    activity: Activity = field(default_factory=Activity)
    changes: Changes = field(default_factory=Changes)
    """Of pages that it writes again."""


@dataclass(frozen=True)
class Host:
    """What works at both ends: `cpus` of the source's host, `recv_cpus` of the destination's, `one_host`
    where these are the same; `noise` is by how much (standard deviation, share) speed differs by itself,
    `copy_noise` that of copies."""

    cpus: float
    recv_cpus: float
    one_host: bool
    noise: float = 0.12
    copy_noise: float = 0.2


@dataclass(frozen=True)
class Plan:
    """How it is to be sent. `link_bytes_per_second` 0 is no limit but the CPUs'."""

    channels: int
    receivers: int
    link_bytes_per_second: float
    policy: PolicySettings
    link_noise: float = 0.015
    delta_bytes: int = 0
    """Memory for kept versions of pages."""
    beside: Beside = field(default_factory=Beside)
    """What is done beside the codec, by whoever sends."""
    qemu_limit_bytes_per_second: float = 0.0
    """QEMU's own `max-bandwidth`, where QEMU sends and the link carries more; 0 where there is none."""
    unsettled_seconds: float = 0.0
    """For a guest that was made just now: how long after the look round 1 begins. What it writes until then
    stands in the place of what its RAM was filled with. 0 where a guest's RAM holds what it mostly does."""
