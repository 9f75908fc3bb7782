"""The packet header: layout and checks.

A packet is a header, then the page numbers (normal pages first, then zero pages, each list
strictly ascending, no page in both, u32 little endian), then the checksums of the normal pages,
then the payload: the normal pages, one after the other, as the method leaves them.

     0  u32 magic "RFP1"
     4  u8  method code (`pipeline.codecs`; 1 for a packet that travels raw)
     5  u8  version = 2
     6  u16 channel
     8  u32 round, from 1
    12  u32 normal pages
    16  u32 zero pages
    20  u32 payload bytes
    24  u16 block: the normal pages that one checksum covers (the last may cover fewer); 0: no checksums
    26  u16 0
    28  u32 CRC-32 of the 28 bytes above, of the page numbers and of the checksums
    32  u32 page numbers
     +  u32 CRC-32 of each block of normal pages, before compression

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
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from guestmem.page import PAGE_BYTES
from pipeline.errors import BadPacket

HEADER = struct.Struct("<IBBHIIIIHHI")
_BEFORE_CRC = struct.Struct("<IBBHIIIIHH")
MAGIC = 0x31504652
VERSION = 2
PAGE_NUMBER_BYTES = 4
CHECKSUM_BYTES = 4

NOT_SUMMED = 0
"""As a packet's block: there are no checksums."""

MIN_BLOCK_PAGES = 16
"""64 KiB: a checksum costs a call of 0.2 us beside the 4 us of the bytes it covers."""


@dataclass(slots=True)
class Packet:
    """One packet's header, page numbers and checksums, copied out of shared memory."""

    method_code: int
    channel: int
    round: int
    normal: npt.NDArray[np.uint32]
    zero: npt.NDArray[np.uint32]
    payload_bytes: int
    block_pages: int
    block_crcs: list[int]


def blocks_of(pages: int, block_pages: int) -> int:
    """How many checksums cover `pages` normal pages."""
    return -(-pages // block_pages) if block_pages else 0


def front_bytes(normal: int, zero: int, block_pages: int) -> int:
    """Bytes before the payload."""
    numbers = PAGE_NUMBER_BYTES * (normal + zero)
    return HEADER.size + numbers + CHECKSUM_BYTES * blocks_of(normal, block_pages)


def front_room(packet_pages: int) -> int:
    """Bytes before the payload of a packet of `packet_pages` pages, at most."""
    return front_bytes(packet_pages, 0, MIN_BLOCK_PAGES)


def wire_bytes(packet: Packet) -> int:
    """What the packet costs on the wire: header, page numbers, checksums and payload."""
    return front_bytes(len(packet.normal), len(packet.zero), packet.block_pages) + packet.payload_bytes


def write_packet(into: memoryview, packet: Packet) -> int:
    """Write all but the payload to the front of a slot; how many bytes that is."""
    crcs = struct.pack(f"<{len(packet.block_crcs)}I", *packet.block_crcs)
    behind = packet.normal.tobytes() + packet.zero.tobytes() + crcs
    head = _BEFORE_CRC.pack(
        MAGIC,
        packet.method_code,
        VERSION,
        packet.channel,
        packet.round,
        len(packet.normal),
        len(packet.zero),
        packet.payload_bytes,
        packet.block_pages,
        0,
    )
    crc = isal_zlib.crc32(behind, isal_zlib.crc32(head))
    end = HEADER.size + len(behind)
    into[: HEADER.size] = head + crc.to_bytes(4, "little")
    into[HEADER.size : end] = behind
    return end


@dataclass(frozen=True)
class Limits:
    """What a receiver accepts: its own mapping, its own slots, its own methods.

    `not_summed`: raw packets without checksums too.
    """

    ram_pages: int
    packet_pages: int
    payload_bytes: int
    channels: int
    method_codes: frozenset[int]
    raw_code: int
    not_summed: bool = False


def read_packet(front: memoryview, limits: Limits, current_round: int) -> Packet:
    """Copy the front of a packet out of a slot or a buffer, once, and check it. Raises BadPacket."""
    if len(front) < HEADER.size:
        raise BadPacket(f"front: {len(front)} bytes, a header has {HEADER.size}")
    head = bytes(front[: HEADER.size])
    magic, code, version, channel, round_, normal, zero, payload, block, reserved, crc = HEADER.unpack(head)
    _refuse(magic != MAGIC, "magic", f"{magic:#010x}")
    _refuse(version != VERSION, "version", version)
    _refuse(code not in limits.method_codes, "method code", code)
    _refuse(channel >= limits.channels, "channel", f"{channel} of {limits.channels}")
    _refuse(round_ != current_round, "round", f"{round_} in round {current_round}")
    _refuse(not 0 < normal + zero <= limits.packet_pages, "page count", normal + zero)
    may_be_none = limits.not_summed and code == limits.raw_code
    _refuse(block < MIN_BLOCK_PAGES and not (block == NOT_SUMMED and may_be_none), "block", f"{block} pages")
    _refuse(reserved != 0, "reserved", reserved)
    end = front_bytes(normal, zero, block)
    _refuse(end > len(front), "front", f"{end} bytes of {len(front)}")
    behind = bytes(front[HEADER.size : end])
    found = isal_zlib.crc32(behind, isal_zlib.crc32(head[: _BEFORE_CRC.size]))
    _refuse(crc != found, "header CRC-32", f"{crc:#010x}, computed {found:#010x}")
    plain = normal * PAGE_BYTES
    _refuse((payload == 0) != (normal == 0), "payload", f"{payload} bytes for {normal} pages")
    if code == limits.raw_code:
        _refuse(payload != plain, "raw payload", f"{payload} bytes for {normal} pages")
    else:
        _refuse(normal > 0 and payload >= plain, "payload", f"{payload} bytes for {normal} pages")
    _refuse(payload > limits.payload_bytes, "payload", f"{payload} bytes")
    words = np.frombuffer(behind, np.uint32)
    normal_pages, zero_pages = words[:normal], words[normal : normal + zero]
    _check_pages(normal_pages, limits.ram_pages)
    _check_pages(zero_pages, limits.ram_pages)
    if normal and zero and len(np.intersect1d(normal_pages, zero_pages, assume_unique=True)):
        raise BadPacket("page numbers: one is listed as normal and as zero")
    crcs = words[normal + zero :].tolist()
    return Packet(code, channel, round_, normal_pages, zero_pages, payload, block, crcs)


def _check_pages(pages: npt.NDArray[np.uint32], ram_pages: int) -> None:
    if not len(pages):
        return
    last = int(pages[-1])
    if last >= ram_pages:
        raise BadPacket(f"page number: {last} of {ram_pages} pages")
    if np.count_nonzero(pages[1:] <= pages[:-1]):
        raise BadPacket("page numbers: not strictly ascending")


def _refuse(bad: bool, field: str, value: object) -> None:
    if bad:
        raise BadPacket(f"{field}: {value}")
