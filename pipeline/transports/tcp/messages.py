"""The bodies of control frames: one record a message, and what each of their fields may be.

`of` builds a record out of what came; a field that is missing, of another type, or out of its range
raises BadFrame with its name and value. Unknown fields are refused too: a peer of the next version
must say so in the frame, not here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from guestmem.page import PAGE_BYTES
from pipeline.destination.verification import MAX_REGIONS
from pipeline.errors import BadFrame
from qat.session import MAX_HW_BUFF_BYTES, MIN_HW_BUFF_BYTES

U32 = (1 << 32) - 1
MAX_TEXT = 2000
MAX_LISTED = 64

M = TypeVar("M", bound="Message")


def integer(body: dict[str, Any], name: str, low: int, high: int) -> int:
    """A whole number within limits."""
    value = body.get(name)
    if type(value) is not int or not low <= value <= high:
        raise BadFrame(f"{name}: {_shown(value)}, must be {low} to {high}")
    return value


def number(body: dict[str, Any], name: str, low: float, high: float) -> float:
    """A finite number within limits."""
    value = body.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise BadFrame(f"{name}: {_shown(value)}, must be {low:g} to {high:g}")
    return float(value)


def text(body: dict[str, Any], name: str, longest: int = MAX_TEXT) -> str:
    """Printable text, in one line."""
    value = body.get(name)
    if type(value) is not str or len(value) > longest or not value.isprintable():
        raise BadFrame(f"{name}: {_shown(value)}, must be a line of at most {longest} characters")
    return value


def flag(body: dict[str, Any], name: str) -> bool:
    """A truth value."""
    value = body.get(name)
    if type(value) is not bool:
        raise BadFrame(f"{name}: {_shown(value)}, must be true or false")
    return value


def listed(body: dict[str, Any], name: str, longest: int) -> list[Any]:
    """A list of at most so many."""
    value = body.get(name)
    if type(value) is not list or len(value) > longest:
        raise BadFrame(f"{name}: {_shown(value)}, must be a list of at most {longest}")
    return value


def integers(body: dict[str, Any], name: str, longest: int, low: int, high: int) -> list[int]:
    """A list of at most so many whole numbers within limits."""
    return [integer({name: value}, name, low, high) for value in listed(body, name, longest)]


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}..."


class Message:
    """A body."""

    def body(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def of(cls: type[M], body: dict[str, Any]) -> M:
        """Check and build. Raises BadFrame."""
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(body) - known)
        if unknown:
            raise BadFrame(f"{_shown(unknown[0])}: not a field of {cls.__name__}")
        return cls.read(body)

    @classmethod
    def read(cls: type[M], body: dict[str, Any]) -> M:
        """Each message's own fields."""
        raise NotImplementedError


@dataclass(frozen=True)
class Offer(Message):
    """WELCOME on control: what the receiver has, and where the copy goes. The sender must fit.

    `decode_on_qat`: the receiver wants a QAT device to decompress, which takes members of at most
    `qat_buffer_bytes` of OPEN.
    """

    ram_bytes_max: int
    channels_max: int
    packet_pages_max: int
    payload_bytes_max: int
    method_codes: list[int]
    prealloc: bool
    output: str
    reconnect_seconds: float
    decode_on_qat: bool

    @classmethod
    def read(cls, body: dict[str, Any]) -> Offer:
        return cls(
            integer(body, "ram_bytes_max", 0, 1 << 60),
            integer(body, "channels_max", 1, 1 << 16),
            integer(body, "packet_pages_max", 1, 1 << 16),
            integer(body, "payload_bytes_max", PAGE_BYTES, U32),
            integers(body, "method_codes", MAX_LISTED, 1, 255),
            flag(body, "prealloc"),
            text(body, "output"),
            number(body, "reconnect_seconds", 0, 1e6),
            flag(body, "decode_on_qat"),
        )


@dataclass(frozen=True)
class Ready(Message):
    """WELCOME on a connection for packets: its worker is ready, and so many packets of the run were applied
    so far; `huge_bytes` of the destination lie in huge pages. Both 0 where version 1 does not say."""

    prealloc_ms: float
    fallback_reason: str
    simulated: bool
    packets: int
    huge_bytes: int

    @classmethod
    def read(cls, body: dict[str, Any]) -> Ready:
        return cls(
            number(body, "prealloc_ms", 0, 1e12),
            text(body, "fallback_reason"),
            flag(body, "simulated"),
            integer(body, "packets", 0, 1 << 62),
            integer(body, "huge_bytes", 0, 1 << 62),
        )


@dataclass(frozen=True)
class Refusal(Message):
    """REFUSED: a line that says why, and whether it may be otherwise soon."""

    text: str
    busy: bool

    @classmethod
    def read(cls, body: dict[str, Any]) -> Refusal:
        return cls(text(body, "text"), flag(body, "busy"))


@dataclass(frozen=True)
class Failure(Message):
    """FAILED: a line that says why."""

    text: str

    @classmethod
    def read(cls, body: dict[str, Any]) -> Failure:
        return cls(text(body, "text"))


@dataclass(frozen=True)
class Open(Message):
    """OPEN: what will be sent.

    `qat_buffer_bytes`: the plain bytes of one request to a QAT device (hw_buff_sz of QATzip); None from a
    sender of version 1, which does not say. `decode_on_qat`: the software path cuts members at that size too,
    so that a device can decompress all of them. `deltas`: packets may have them.
    """

    request: int
    ram_bytes: int
    channels: int
    packet_pages: int
    payload_bytes: int
    method_codes: list[int]
    qat_buffer_bytes: int | None
    decode_on_qat: bool
    deltas: bool

    @classmethod
    def read(cls, body: dict[str, Any]) -> Open:
        buffer = body.get("qat_buffer_bytes")
        if buffer is not None:
            buffer = integer(body, "qat_buffer_bytes", MIN_HW_BUFF_BYTES, MAX_HW_BUFF_BYTES)
            if buffer & (buffer - 1):
                raise BadFrame(f"qat_buffer_bytes: {buffer}, must be a power of two")
        return cls(
            integer(body, "request", 1, U32),
            integer(body, "ram_bytes", PAGE_BYTES, 1 << 60),
            integer(body, "channels", 1, 1 << 16),
            integer(body, "packet_pages", 1, 1 << 16),
            integer(body, "payload_bytes", PAGE_BYTES, U32),
            integers(body, "method_codes", MAX_LISTED, 1, 255),
            buffer,
            flag(body, "decode_on_qat"),
            flag(body, "deltas"),
        )


@dataclass(frozen=True)
class Asked(Message):
    """FINISH, and the answer OPENED: nothing but the request's number."""

    request: int

    @classmethod
    def read(cls, body: dict[str, Any]) -> Asked:
        return cls(integer(body, "request", 1, U32))


@dataclass(frozen=True)
class Commit(Message):
    """COMMIT. `dirty_pages`: how many pages the guest had written since they were sent, or that had never
    arrived, when it was paused; None from a sender of version 1."""

    request: int
    dirty_pages: int | None

    @classmethod
    def read(cls, body: dict[str, Any]) -> Commit:
        dirty = None if body.get("dirty_pages", 0) is None else integer(body, "dirty_pages", 0, U32)
        return cls(integer(body, "request", 1, U32), dirty)


@dataclass(frozen=True)
class Ping(Message):
    """PING and PONG. `sent_ns` is the sender's clock, `here_ns` the receiver's (0 in PING)."""

    sent_ns: int
    here_ns: int

    @classmethod
    def read(cls, body: dict[str, Any]) -> Ping:
        return cls(integer(body, "sent_ns", 0, 1 << 63), integer(body, "here_ns", 0, 1 << 63))


@dataclass(frozen=True)
class Settle(Message):
    """SETTLE: the round, how many pages it listed, and for each connection [generation, packets].

    `guest_stands`: the guest has stood still since these pages were listed (version 1 does not say).
    """

    request: int
    round: int
    pages: int
    connections: list[list[int]]
    guest_stands: bool

    @classmethod
    def read(cls, body: dict[str, Any]) -> Settle:
        connections = []
        for pair in listed(body, "connections", 1 << 16):
            if type(pair) is not list or len(pair) != 2:
                raise BadFrame(f"connections: {_shown(pair)}, must be [generation, packets]")
            connections.append([integer({"connections": value}, "connections", 0, U32) for value in pair])
        return cls(
            integer(body, "request", 1, U32),
            integer(body, "round", 1, U32),
            integer(body, "pages", 0, U32),
            connections,
            flag(body, "guest_stands"),
        )


@dataclass(frozen=True)
class Settled(Message):
    """SETTLED: how many of the pages were applied, and when the last was (the receiver's clock). Where
    they are not all, the payload is a bitmap of RAM, one bit a page, of those that were."""

    request: int
    applied: int
    applied_ns: int
    bitmap_crc32: int

    @classmethod
    def read(cls, body: dict[str, Any]) -> Settled:
        return cls(
            integer(body, "request", 1, U32),
            integer(body, "applied", 0, U32),
            integer(body, "applied_ns", 0, 1 << 63),
            integer(body, "bitmap_crc32", 0, U32),
        )


@dataclass(frozen=True)
class Verify(Message):
    """VERIFY: digests of regions of so many bytes, or the self-check's invariant."""

    request: int
    how: str
    region_bytes: int

    @classmethod
    def read(cls, body: dict[str, Any]) -> Verify:
        how = text(body, "how", 16)
        if how not in ("images", "invariant"):
            raise BadFrame(f"how: {how!r}, must be images or invariant")
        return cls(integer(body, "request", 1, U32), how, integer(body, "region_bytes", PAGE_BYTES, 1 << 60))


@dataclass(frozen=True)
class Verified(Message):
    """VERIFIED: the digests of all regions in order, or what contradicts the invariant."""

    request: int
    digests: list[str]
    wrong: str

    @classmethod
    def read(cls, body: dict[str, Any]) -> Verified:
        digests = [text({"digests": one}, "digests", 64) for one in listed(body, "digests", MAX_REGIONS)]
        return cls(integer(body, "request", 1, U32), digests, text(body, "wrong"))


@dataclass(frozen=True)
class VerifyPages(Message):
    """VERIFY_PAGES: one of the regions of so many bytes that VERIFY counts, by its index."""

    request: int
    region_bytes: int
    region: int

    @classmethod
    def read(cls, body: dict[str, Any]) -> VerifyPages:
        return cls(
            integer(body, "request", 1, U32),
            integer(body, "region_bytes", PAGE_BYTES, 1 << 60),
            integer(body, "region", 0, MAX_REGIONS - 1),
        )


@dataclass(frozen=True)
class VerifiedPages(Message):
    """VERIFIED_PAGES: the payload is one u32 a page of the region, its CRC-32; `crc32` is the payload's."""

    request: int
    pages: int
    crc32: int

    @classmethod
    def read(cls, body: dict[str, Any]) -> VerifiedPages:
        return cls(
            integer(body, "request", 1, U32),
            integer(body, "pages", 1, U32),
            integer(body, "crc32", 0, U32),
        )


@dataclass(frozen=True)
class Committed(Message):
    """COMMITTED: where the copy is now, in words; empty where nobody wanted it."""

    request: int
    where: str

    @classmethod
    def read(cls, body: dict[str, Any]) -> Committed:
        return cls(integer(body, "request", 1, U32), text(body, "where"))


@dataclass(frozen=True)
class Report(Message):
    """REPORT: what the receive side used inside the clock, and what it is."""

    request: int
    cpu_seconds: float
    minor_faults: int
    major_faults: int
    involuntary_switches: int
    private_bytes_max: int
    counts: list[int]
    fallback_reasons: list[str]
    host: dict[str, Any]
    connections: list[dict[str, Any]]

    @classmethod
    def read(cls, body: dict[str, Any]) -> Report:
        """Check and build. What is only shown (host, connections) is taken as it is."""
        host, connections = body.get("host"), listed(body, "connections", 1 << 16)
        if type(host) is not dict or not all(type(one) is dict for one in connections):
            raise BadFrame(f"host: {_shown(host)}, must be an object, and connections a list of them")
        reasons = listed(body, "fallback_reasons", MAX_LISTED)
        return cls(
            integer(body, "request", 1, U32),
            number(body, "cpu_seconds", 0, 1e12),
            integer(body, "minor_faults", 0, 1 << 60),
            integer(body, "major_faults", 0, 1 << 60),
            integer(body, "involuntary_switches", 0, 1 << 60),
            integer(body, "private_bytes_max", 0, 1 << 60),
            integers(body, "counts", MAX_LISTED, 0, 1 << 62),
            [text({"fallback_reasons": reason}, "fallback_reasons") for reason in reasons],
            host,
            connections,
        )
