"""The packet header: layout and checks.

A packet is a header, then the page numbers (normal pages first, then zero pages, each list
strictly ascending, u32 little endian), then the payload: the normal pages, one after the other,
as the method leaves them.

     0  u32 magic "RFP1"
     4  u8  method code (`pipeline.codecs`; 1 for a packet that travels raw)
     5  u8  version = 1
     6  u16 channel
     8  u32 round, from 1
    12  u32 normal pages
    16  u32 zero pages
    20  u32 payload bytes
    24  u32 CRC-32 of the normal pages, before compression
    28  u32 CRC-32 of the 28 bytes above and of the page numbers

Zero is never valid: fresh shared memory is zero, and must not read as a packet. The checks of
`read_packet` are those that multifd's unfill lacks as well (alignment is by construction, since
pages travel as numbers; duplicates are refused by the order).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from guestmem.segment import PAGE_BYTES

HEADER = struct.Struct("<IBBHIIIIII")
_BEFORE_CRC = struct.Struct("<IBBHIIIII")
MAGIC = 0x31504652
VERSION = 1
PAGE_NUMBER_BYTES = 4


class BadPacket(Exception):
    """A packet that breaks the layout or the limits, with the field and what it holds."""


@dataclass(slots=True)
class Packet:
    """One packet's header and page numbers, copied out of shared memory."""

    method_code: int
    channel: int
    round: int
    normal: npt.NDArray[np.uint32]
    zero: npt.NDArray[np.uint32]
    payload_bytes: int
    plain_crc32: int


def front_bytes(pages: int) -> int:
    """Bytes before the payload of a packet of `pages` pages."""
    return HEADER.size + PAGE_NUMBER_BYTES * pages


def wire_bytes(packet: Packet) -> int:
    """What the packet costs on the wire: header, page numbers and payload."""
    return front_bytes(len(packet.normal) + len(packet.zero)) + packet.payload_bytes


def write_packet(into: memoryview, packet: Packet) -> None:
    """Write header and page numbers to the front of a slot."""
    numbers = packet.normal.tobytes() + packet.zero.tobytes()
    head = _BEFORE_CRC.pack(
        MAGIC,
        packet.method_code,
        VERSION,
        packet.channel,
        packet.round,
        len(packet.normal),
        len(packet.zero),
        packet.payload_bytes,
        packet.plain_crc32,
    )
    crc = isal_zlib.crc32(numbers, isal_zlib.crc32(head))
    into[: HEADER.size] = head + crc.to_bytes(4, "little")
    into[HEADER.size : HEADER.size + len(numbers)] = numbers


@dataclass(frozen=True)
class Limits:
    """What a receiver accepts: its own mapping, its own slots, its own method."""

    ram_pages: int
    packet_pages: int
    payload_bytes: int
    channels: int
    method_codes: frozenset[int]
    raw_code: int


def read_packet(slot: memoryview, limits: Limits, current_round: int) -> Packet:
    """Copy the front of a packet out of a slot, once, and check it. Raises BadPacket."""
    head = bytes(slot[: HEADER.size])
    magic, code, version, channel, round_, normal, zero, payload, plain_crc, crc = HEADER.unpack(head)
    _refuse(magic != MAGIC, "magic", f"{magic:#010x}")
    _refuse(version != VERSION, "version", version)
    _refuse(code not in limits.method_codes, "method code", code)
    _refuse(channel >= limits.channels, "channel", channel)
    _refuse(round_ != current_round, "round", f"{round_} in round {current_round}")
    _refuse(not 0 < normal + zero <= limits.packet_pages, "page count", normal + zero)
    numbers_bytes = PAGE_NUMBER_BYTES * (normal + zero)
    numbers = bytes(slot[HEADER.size : HEADER.size + numbers_bytes])
    found = isal_zlib.crc32(numbers, isal_zlib.crc32(head[: _BEFORE_CRC.size]))
    _refuse(crc != found, "header CRC-32", f"{crc:#010x}, computed {found:#010x}")
    plain = normal * PAGE_BYTES
    _refuse((payload == 0) != (normal == 0), "payload", f"{payload} bytes for {normal} pages")
    if code == limits.raw_code:
        _refuse(payload != plain, "raw payload", f"{payload} bytes for {normal} pages")
    else:
        _refuse(normal > 0 and payload >= plain, "payload", f"{payload} bytes for {normal} pages")
    _refuse(payload > limits.payload_bytes, "payload", f"{payload} bytes")
    pages = np.frombuffer(numbers, np.uint32)
    _check_pages(pages[:normal], limits.ram_pages)
    _check_pages(pages[normal:], limits.ram_pages)
    return Packet(code, channel, round_, pages[:normal], pages[normal:], payload, plain_crc)


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
