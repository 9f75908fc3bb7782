"""What a method is: a name, a code on the wire, its levels, and how a worker opens it.

A codec writes from a buffer into a buffer that the caller owns and returns the length. Results
as fresh `bytes` of a packet's size are not good enough: each is a new mmap'ed allocation whose
page faults cost as much as the copy (measured: 250,000 to 430,000 faults per 2 GiB, against 70).
Every packet is complete in itself: any worker decodes it, in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pipeline.errors import CodecUnavailable
from pipeline.options import QatOptions

HEAP_PACKETS = 3
"""Packets' worth of heap that a codec and numpy use at most for one packet."""


@dataclass(frozen=True)
class CodecSettings:
    """What a worker needs to open a codec."""

    level: int
    qat_buffer_bytes: int = 64 << 10
    qat_fallback: bool = True
    decode_on_qat: bool = False
    qat_timeout_seconds: float = 2.0
    asked_for: str = "qatzip"
    """The method as the user named it, for what is said where the device is missing."""

    @classmethod
    def of(cls, level: int, qat: QatOptions, asked_for: str = "qatzip") -> CodecSettings:
        """From what the user wants of the device."""
        decode = qat.decode == "hardware"
        return cls(level, qat.buffer_bytes, qat.fallback, decode, qat.timeout_seconds, asked_for)


@dataclass
class QatWork:
    """What of a codec's work the QAT device did, in requests (one is one member)."""

    hardware_requests: int = 0
    software_requests: int = 0
    fallback_reason: str = ""
    """Why software: a return code by name, or the library that is missing. Empty: not at all."""
    simulated: bool = False
    """Whether the device that answers is an emulated one (`qat.emulator`)."""


class Encoder(Protocol):
    """Compresses packets, one at a time, in the process that opened it."""

    qat: QatWork

    def compress(self, source: memoryview, dest: memoryview) -> int:
        """Compress all of `source` into `dest`; return the bytes written.

        A result that does not fit below `len(source)` may be cut off by returning that length:
        the packet then travels raw. Raises CodecError.
        """

    def close(self) -> None:
        """Give back what the codec holds."""


class Decoder(Protocol):
    """Decompresses packets, one at a time, in the process that opened it."""

    qat: QatWork

    def decompress(self, payload: memoryview, dest: memoryview) -> None:
        """Fill exactly `dest` from all of `payload`. Raises CodecError for anything else."""

    def close(self) -> None:
        """Give back what the codec holds."""


@dataclass(frozen=True)
class Method:
    """A compression method.

    `code` goes into packet headers; zero is never valid. `levels` is empty for a method that
    has none. `bound_bytes(plain, settings)` is the room that `compress` needs at most. `load` loads
    what the method needs of this host, a device not being asked, and raises CodecUnavailable.
    """

    name: str
    code: int
    levels: range
    default_level: int
    bound_bytes: Callable[[int, CodecSettings], int]
    open_encoder: Callable[[CodecSettings], Encoder]
    open_decoder: Callable[[CodecSettings], Decoder]
    load: Callable[[], object]
    zero_level: int | None = None
    """The level that the library takes 0 for, where it does: 0 would stand beside it for the same thing."""

    def unavailable(self) -> str:
        """Why this host cannot run the method, and what to do; empty when it can."""
        try:
            self.load()
        except CodecUnavailable as error:
            return str(error)
        return ""
