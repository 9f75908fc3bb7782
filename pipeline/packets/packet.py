"""The packet header: layout and checks.

A packet is a header, then the page numbers (normal pages first, then zero pages, each list
strictly ascending, no page in both, u32 little endian), then the checksums of the normal pages,
then the payload: the normal pages, one after the other, as the method leaves them.

     0  u32 magic "RFP1"
     4  u8  method code (`pipeline.codecs`; 1 for a packet that travels raw)
     5  u8  version = 2; 3 where there are deltas
     6  u16 channel
     8  u32 round, from 1
    12  u32 normal pages
    16  u32 zero pages
    20  u32 payload bytes
    24  u16 block: the normal pages that one checksum covers (the last may cover fewer); 0: no checksums
    26  u16 deltas: so many of the normal pages, the last ones, are the difference to what an earlier round
            brought (`pipeline.packets.delta`); both parts of the list are strictly ascending
    28  u32 CRC-32 of the 28 bytes above, of the page numbers and of the checksums
    32  u32 page numbers
     +  u32 CRC-32 of each block of normal pages, before compression and behind the XOR
     +  u32 round that each delta is against     only where there are deltas, as these two:
     +  u32 payload bytes of the whole pages; the rest of the payload is the deltas'
     +  u32 bytes of the deltas before compression

Whole pages and deltas are two groups, each compressed as one, or as it is where that is no smaller.

A packet that was made from a snapshot has one block. Raw pages that are sent straight out of live RAM have no
checksums: what the guest writes meanwhile is dirty, and goes again. ramferry 0.1.0 knows none without; it is
sent, and sends, many blocks: where the guest wrote meanwhile one does not match, and only that one is lost.

Zero is never valid: fresh shared memory is zero, and must not read as a packet. The checks of
`read_packet` are those that multifd's unfill lacks as well (alignment is by construction, since
pages travel as numbers; duplicates are refused by the order). The checksums are against damage;
they are no message authentication.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from guestmem.page import PAGE_BYTES
from pipeline.errors import BadPacket
from pipeline.packets.delta import group_bytes_range

HEADER = struct.Struct("<IBBHIIIIHHI")
_BEFORE_CRC = struct.Struct("<IBBHIIIIHH")
MAGIC = 0x31504652
VERSION, DELTA_VERSION = 2, 3
PAGE_NUMBER_BYTES = 4
CHECKSUM_BYTES = 4

NOT_SUMMED = 0
"""As a packet's block: there are no checksums."""

MIN_BLOCK_PAGES = 16
"""64 KiB: a checksum costs a call of 0.2 us beside the 4 us of the bytes it covers."""


NO_BASES: npt.NDArray[np.uint32] = np.zeros(0, np.uint32)
GROUP_SIZES = struct.Struct("<II")


@dataclass(slots=True)
class Packet:
    """One packet's header, page numbers and checksums, copied out of shared memory.

    The last `len(bases)` of the normal pages are deltas against those rounds. `whole_bytes` of the payload
    are of the pages before them; `group_bytes` is what the deltas take before compression."""

    method_code: int
    channel: int
    round: int
    normal: npt.NDArray[np.uint32]
    zero: npt.NDArray[np.uint32]
    payload_bytes: int
    block_pages: int
    block_crcs: list[int]
    bases: npt.NDArray[np.uint32] = field(default_factory=lambda: NO_BASES)
    whole_bytes: int = 0
    group_bytes: int = 0

    @property
    def whole_pages(self) -> int:
        """Normal pages that are no deltas."""
        return len(self.normal) - len(self.bases)


def blocks_of(pages: int, block_pages: int) -> int:
    """How many checksums cover `pages` normal pages."""
    return -(-pages // block_pages) if block_pages else 0


def front_bytes(normal: int, zero: int, block_pages: int, deltas: int = 0) -> int:
    """Bytes before the payload."""
    numbers = PAGE_NUMBER_BYTES * (normal + zero)
    of_deltas = PAGE_NUMBER_BYTES * deltas + GROUP_SIZES.size if deltas else 0
    return HEADER.size + numbers + CHECKSUM_BYTES * blocks_of(normal, block_pages) + of_deltas


def front_bytes_of(packet: Packet) -> int:
    """The same of a packet."""
    return front_bytes(len(packet.normal), len(packet.zero), packet.block_pages, len(packet.bases))


def front_room(packet_pages: int) -> int:
    """Bytes before the payload of a packet of `packet_pages` pages, at most."""
    return front_bytes(packet_pages, 0, MIN_BLOCK_PAGES, packet_pages)


def wire_bytes(packet: Packet) -> int:
    """What the packet costs on the wire: header, page numbers, checksums and payload."""
    return front_bytes_of(packet) + packet.payload_bytes


def write_packet(into: memoryview, packet: Packet) -> int:
    """Write all but the payload to the front of a slot; how many bytes that is."""
    crcs = struct.pack(f"<{len(packet.block_crcs)}I", *packet.block_crcs)
    behind = packet.normal.tobytes() + packet.zero.tobytes() + crcs
    deltas = len(packet.bases)
    if deltas:
        behind += packet.bases.tobytes() + GROUP_SIZES.pack(packet.whole_bytes, packet.group_bytes)
    head = _BEFORE_CRC.pack(
        MAGIC,
        packet.method_code,
        DELTA_VERSION if deltas else VERSION,
        packet.channel,
        packet.round,
        len(packet.normal),
        len(packet.zero),
        packet.payload_bytes,
        packet.block_pages,
        deltas,
    )
    crc = isal_zlib.crc32(behind, isal_zlib.crc32(head))
    end = HEADER.size + len(behind)
    into[: HEADER.size] = head + crc.to_bytes(4, "little")
    into[HEADER.size : end] = behind
    return end


@dataclass(frozen=True)
class Limits:
    """What a receiver accepts: its own mapping, its own slots, its own methods.

    `not_summed`: raw packets without checksums too. `deltas`: packets with deltas too.
    """

    ram_pages: int
    packet_pages: int
    payload_bytes: int
    channels: int
    method_codes: frozenset[int]
    raw_code: int
    not_summed: bool = False
    deltas: bool = False


def read_packet(front: memoryview, limits: Limits, current_round: int) -> Packet:
    """Copy the front of a packet out of a slot or a buffer, once, and check it. Raises BadPacket."""
    if len(front) < HEADER.size:
        raise BadPacket(f"front: {len(front)} bytes, a header has {HEADER.size}")
    head = bytes(front[: HEADER.size])
    magic, code, version, channel, round_, normal, zero, payload, block, deltas, crc = HEADER.unpack(head)
    _refuse(magic != MAGIC, "magic", f"{magic:#010x}")
    _refuse(version != VERSION and not (version == DELTA_VERSION and limits.deltas), "version", version)
    _refuse(code not in limits.method_codes, "method code", code)
    _refuse(channel >= limits.channels, "channel", f"{channel} of {limits.channels}")
    _refuse(round_ != current_round, "round", f"{round_} in round {current_round}")
    _refuse(not 0 < normal + zero <= limits.packet_pages, "page count", normal + zero)
    may_be_none = limits.not_summed and code == limits.raw_code and not deltas
    _refuse(block < MIN_BLOCK_PAGES and not (block == NOT_SUMMED and may_be_none), "block", f"{block} pages")
    _refuse((deltas > 0) != (version == DELTA_VERSION) or deltas > normal, "deltas", f"{deltas} of {normal}")
    end = front_bytes(normal, zero, block, deltas)
    _refuse(end > len(front), "front", f"{end} bytes of {len(front)}")
    behind = bytes(front[HEADER.size : end])
    found = isal_zlib.crc32(behind, isal_zlib.crc32(head[: _BEFORE_CRC.size]))
    _refuse(crc != found, "header CRC-32", f"{crc:#010x}, computed {found:#010x}")
    plain = normal * PAGE_BYTES
    _refuse((payload == 0) != (normal == 0), "payload", f"{payload} bytes for {normal} pages")
    if deltas:
        _refuse(payload == 0, "payload", "none for deltas")
    elif code == limits.raw_code:
        _refuse(payload != plain, "raw payload", f"{payload} bytes for {normal} pages")
    else:
        _refuse(normal > 0 and payload >= plain, "payload", f"{payload} bytes for {normal} pages")
    _refuse(payload > limits.payload_bytes, "payload", f"{payload} bytes")
    words = np.frombuffer(behind, np.uint32)
    normal_pages, zero_pages = words[:normal], words[normal : normal + zero]
    _check_pages(normal_pages[: normal - deltas], limits.ram_pages)
    _check_pages(normal_pages[normal - deltas :], limits.ram_pages)
    _check_pages(zero_pages, limits.ram_pages)
    if deltas and _one_twice(normal_pages):
        raise BadPacket("page numbers: one is listed as whole and as delta")
    if normal and zero and _one_twice(words[: normal + zero]):
        raise BadPacket("page numbers: one is listed as normal and as zero")
    blocks = blocks_of(normal, block)
    crcs = words[normal + zero : normal + zero + blocks].tolist()
    packet = Packet(code, channel, round_, normal_pages, zero_pages, payload, block, crcs)
    if deltas:
        _read_deltas(packet, words[normal + zero + blocks :], deltas, raw=code == limits.raw_code)
    return packet


def _read_deltas(packet: Packet, words: npt.NDArray[np.uint32], deltas: int, *, raw: bool) -> None:
    """What is said of deltas, into a packet. Raises BadPacket."""
    packet.bases = words[:deltas]
    packet.whole_bytes, packet.group_bytes = (int(word) for word in words[deltas : deltas + 2])
    newest, oldest = int(packet.bases.max()), int(packet.bases.min())
    _refuse(oldest < 1 or newest >= packet.round, "delta's round", f"{oldest} to {newest} in {packet.round}")
    plain, whole = packet.whole_pages * PAGE_BYTES, packet.whole_bytes
    least, most = group_bytes_range(deltas)
    group = packet.payload_bytes - whole
    _refuse(whole > plain or (whole == 0) != (plain == 0), "payload of whole pages", f"{whole} bytes")
    _refuse(not least <= packet.group_bytes <= most, "deltas", f"{packet.group_bytes} bytes")
    _refuse(not 0 < group <= packet.group_bytes, "payload of deltas", f"{group} bytes")
    _refuse(
        raw and (whole, group) != (plain, packet.group_bytes), "raw payload", f"{whole} and {group} bytes"
    )


def _check_pages(pages: npt.NDArray[np.uint32], ram_pages: int) -> None:
    if not len(pages):
        return
    last = int(pages[-1])
    if last >= ram_pages:
        raise BadPacket(f"page number: {last} of {ram_pages} pages")
    if np.count_nonzero(pages[1:] <= pages[:-1]):
        raise BadPacket("page numbers: not strictly ascending")


def _one_twice(pages: npt.NDArray[np.uint32]) -> bool:
    """Sorted here: numpy's functions for sets import its masked arrays when they are first called, which took
    20 ms of a switchover."""
    ordered = np.sort(pages)
    return bool((ordered[1:] == ordered[:-1]).any())


def _refuse(bad: bool, field: str, value: object) -> None:
    if bad:
        raise BadPacket(f"{field}: {value}")
