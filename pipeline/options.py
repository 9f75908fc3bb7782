"""What a run was asked to do, as values that have been checked; every limit and default in one place.

`pipeline.cli` makes these out of a command line.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from guestmem.content import Content, Corpus, Image
from guestmem.page import PAGE_BYTES
from guestmem.trace import TraceMemory
from guestmem.workload import Workload
from pipeline.net.address import Address
from pipeline.net.tls import Tls
from pipeline.policy import PolicySettings

AUTO = "auto"
SELF_CHECK = "self-check"

DEFAULT_SIZE_BYTES = 1 << 30
MAX_RAM_BYTES = PAGE_BYTES << 32
DEFAULT_FILLED = 0.9375
DEFAULT_DIRTY_RATE = "32M"
DEFAULT_SEED = 1

DEFAULT_CHANNELS = 2
MAX_WORKERS = 64
DEFAULT_QUEUE_BYTES = 256 << 20
DEFAULT_PACKET_BYTES = 2 << 20
"""zstd 1 over loopback TCP on an AMD EPYC (2026), three turns: 787 MB/s with 512 KiB, 837 with 1 MiB, 874
with 2 MiB. Where the wire is slow a channel takes less (`Wire.fitting_pages`)."""

MIN_PACKET_BYTES, MAX_PACKET_BYTES = PAGE_BYTES, 4 << 20
MAX_QUEUE_DEPTH = 1000
"""Slots of the bounded queue (`pipeline.packets.queue`)."""

DEFAULT_TRANSPORT = "queue"
DEFAULT_RECONNECT_SECONDS = 30.0
MAX_RECONNECT_SECONDS = 86400.0

MAX_DOWNTIME_LIMIT_MS = 2_000_000.0
DOWNTIME_RAMP_FACTOR = 3.0
MAX_QAT_TIMEOUT_SECONDS = 3600.0

CHECKS = {"images": ("images",), "invariant": ("invariant",), "both": ("invariant", "images")}
"""What --verify may ask for, and the checks that each is, in order."""


HUGE_PAGES = {
    "auto": "where the kernel does",
    "on": "or fail",
    "off": "never",
}
"""What --huge-pages may be, and what that means."""


@dataclass(frozen=True)
class RamOptions:
    """Guest RAM to make: its size in bytes, and what fills it."""

    size_bytes: int
    image: str | None
    fill: str | None
    filled: float
    image_format: str | None
    image_ranges: tuple[dict[str, Any], ...]
    """What the image was found to be: `name`, `address` and `size_bytes` of its first ranges, which are laid
    side by side in this order."""

    @property
    def advice(self) -> str:
        """What a user can do where there is not enough memory."""
        return "choose a smaller --size" if self.image is None else "the image needs as much as it holds"

    def content(self) -> Content:
        """What fills guest RAM."""
        if self.image is not None:
            return Image(Path(self.image))
        return Corpus(None if self.fill is None else Path(self.fill), self.filled)


@dataclass(frozen=True)
class GuestOptions(RamOptions):
    """A guest to make. `dirty_rate` is bytes per second; `preset` or `phases` name a whole workload, and then
    the settings that it replaces are None. `workload` is what all of them come to."""

    dirty_rate: int | None
    dirty_pattern: str | None
    dirty_content: str | None
    write_bytes: int | None
    preset: str | None
    phases: str | None
    seed: int
    workload: Workload = field(repr=False)

    def content(self) -> Content:
        """What fills guest RAM."""
        trace = self.workload.trace
        return super().content() if trace is None else TraceMemory(trace)

    def record(self) -> dict[str, Any]:
        """For a result document: what was asked for, by option."""
        return {name: value for name, value in asdict(self).items() if name != "workload"}


def has_queue(transport: str, method: str) -> bool:
    """Whether a bounded queue lies between channels and what takes their packets. Over a socket a channel
    sends itself what it makes, but for method auto, which chooses by how full the queue is."""
    return transport == DEFAULT_TRANSPORT or method == AUTO


@dataclass(frozen=True)
class QatOptions:
    """How the QAT device is used. `buffer_bytes` is the size of one request (hw_buff_sz)."""

    fallback: bool = True
    buffer_bytes: int = 64 << 10
    timeout_seconds: float = 2.0
    decode: str = "cpu"


@dataclass(frozen=True)
class Options:
    """What a run was asked to do: sizes in bytes, rates in bytes per second.

    `guest` is None when the run attaches to a guest that somebody else made. `level` is None where the
    method has none, and for method `auto`, which chooses; `auto_with_qat` says whether a QAT device
    answered it.
    """

    attach: str | None
    guest: GuestOptions | None
    method: str
    level: int | None
    channels: int
    receivers: int
    packet_bytes: int
    queue_depth: int
    prealloc: bool
    dirty_log: str
    max_bandwidth: int
    timeout_seconds: float
    policy: PolicySettings
    qat: QatOptions
    verify: str | None
    transport: str = DEFAULT_TRANSPORT
    to: Address | None = None
    tls: Tls | None = None
    secret: bytes | None = field(default=None, repr=False)
    reconnect_seconds: float = DEFAULT_RECONNECT_SECONDS
    insecure: bool = False
    auto_with_qat: bool = False
    huge_pages: str = "auto"
    send_cpus: frozenset[int] | None = None
    recv_cpus: frozenset[int] | None = None
    numa: int | None = None
    zero_copy: bool = False
    delta_bytes: int | None = None
    """For kept versions of pages; None is what the run finds good, 0 is none."""

    @property
    def packet_pages(self) -> int:
        """Pages of a packet at most."""
        return self.packet_bytes // PAGE_BYTES

    @property
    def method_name(self) -> str:
        """Method and level: `zstd 3`, `none`."""
        return self.method if self.level is None else f"{self.method} {self.level}"

    def record(self) -> dict[str, Any]:
        """For the result document: one flat record. An attached guest's size is added by the run."""
        grouped = ("guest", "policy", "qat", "to", "tls", "secret")
        record = {name: value for name, value in asdict(self).items() if name not in grouped}
        record |= {f"qat_{name}": value for name, value in asdict(self.qat).items()}
        for name in ("send_cpus", "recv_cpus"):
            record[name] = None if record[name] is None else sorted(record[name])
        record["to"] = None if self.to is None else str(self.to)
        record["tls_dir"] = None if self.tls is None else self.tls.folder
        guest = self.guest.record() if self.guest is not None else {}
        return {**guest, **record, **asdict(self.policy)}


@dataclass(frozen=True)
class ReceiveOptions:
    """What a receiver has and wants. `ram_bytes_max` None is what is free; `output` and `output_shm` are
    where the copy goes in the end, a file or a name in shared memory, or nowhere."""

    tls: Tls | None = None
    secret: bytes | None = field(default=None, repr=False)
    reconnect_seconds: float = DEFAULT_RECONNECT_SECONDS
    prealloc: bool = False
    huge_pages: str = "auto"
    recv_cpus: frozenset[int] | None = None
    numa: int | None = None
    ram_bytes_max: int | None = None
    channels_max: int = MAX_WORKERS
    output: str | None = None
    output_shm: str | None = None
    qat: QatOptions = field(default_factory=QatOptions)
