"""GZIP_EXT: a member layout that both QAT hardware and any inflater can read.

RFC 1952 with a 12-byte extra field (`qatzip_gzip.h`, `outputHeaderGen` of libqatzip 1.3.1), all
integers little endian:

     0  1f 8b 08 04     ID1 ID2, method deflate, flags FEXTRA
     4  u32 mtime = 0
     8  u8  xfl         0 from hardware, 4 from zlib at level 1
     9  u8  os = 255
    10  u16 xlen = 12
    12  'Q' 'Z'         subfield
    14  u16 length = 8
    16  u32 plain       bytes of this member before compression
    20  u32 deflate     bytes of the deflate stream that follows
    24  deflate stream
     +  u32 crc32 of the plain bytes, u32 plain bytes

The device cuts its input into pieces of `hw_buff_sz` bytes and turns each into one member. A packet
is a sequence of members. The two lengths let a reader find each member without inflating the others.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

HEADER = struct.Struct("<4sIBBH2sHII")
FOOTER = struct.Struct("<II")
MAGIC = b"\x1f\x8b\x08\x04"
OS_UNKNOWN = 255
EXTRA_BYTES = 12
SUBFIELD = b"QZ"
SUBFIELD_BYTES = 8
FRAMING_BYTES = HEADER.size + FOOTER.size


class CorruptMember(Exception):
    """A GZIP_EXT member breaks the layout. The message names the field and its value."""


@dataclass(frozen=True)
class Member:
    """The offsets of one member's deflate stream, and what its header and footer say about it."""

    deflate_start: int
    deflate_end: int
    plain_bytes: int
    crc32: int

    @property
    def size_bytes(self) -> int:
        """All of it: header, deflate stream and footer."""
        return self.deflate_end - self.deflate_start + FRAMING_BYTES

    def fits_device(self, hw_buff_sz: int) -> bool:
        """Whether a device session with this `hw_buff_sz` decompresses the member.

        libqatzip gives a member that does not fit, and all that follow it in the call, to software, or
        with `sw_backup = 0` fails (`isQATProcessable` and `checkHeader` in `qatzip.c`, 1.3.1).
        """
        deflate = self.deflate_end - self.deflate_start
        return self.plain_bytes <= hw_buff_sz and deflate <= hw_buff_sz * 9 // 8 + 1024


def bound_bytes(plain_bytes: int, member_bytes: int) -> int:
    """The most bytes that `plain_bytes` take as members, for data that does not compress.

    9/8 is libqatzip's own bound for the device (qzMaxCompressedLength). Its function is not used:
    before 2.0 it counts the framing of only one member.
    """
    members = -(-plain_bytes // member_bytes)
    return plain_bytes + plain_bytes // 8 + members * (FRAMING_BYTES + 512)


def deflate_room(into: memoryview) -> memoryview:
    """The part of `into` that the deflate stream may use, for a member that begins with `into`."""
    return into[HEADER.size : len(into) - FOOTER.size]


def frame_member(into: memoryview, deflate_bytes: int, plain_bytes: int, crc32: int) -> int:
    """Write header and footer around the deflate stream in `into`; return the member's length in bytes.

    Raises ValueError when they do not fit.
    """
    end = HEADER.size + deflate_bytes
    if end + FOOTER.size > len(into):
        raise ValueError(f"a member of {end + FOOTER.size} bytes in {len(into)}")
    HEADER.pack_into(
        into,
        0,
        MAGIC,
        0,
        0,
        OS_UNKNOWN,
        EXTRA_BYTES,
        SUBFIELD,
        SUBFIELD_BYTES,
        plain_bytes,
        deflate_bytes,
    )
    FOOTER.pack_into(into, end, crc32, plain_bytes)
    return end + FOOTER.size


def walk(data: memoryview, expected_bytes: int) -> Iterator[Member]:
    """The members of `data`, which must inflate to exactly `expected_bytes` together.

    Every length is checked against `data` before it is used. Raises CorruptMember.
    """
    offset = 0
    left = expected_bytes
    while offset < len(data):
        member = _read_member(data, offset)
        if member.plain_bytes > left:
            raise CorruptMember(f"members hold more than the {expected_bytes} bytes that are expected")
        yield member
        left -= member.plain_bytes
        offset = member.deflate_end + FOOTER.size
    if left:
        raise CorruptMember(f"members end {left} bytes before the {expected_bytes} expected")


def _read_member(data: memoryview, offset: int) -> Member:
    if len(data) - offset < FRAMING_BYTES:
        raise CorruptMember(f"{len(data) - offset} bytes at {offset} are not a whole member")
    magic, _, _, _, extra, subfield, length, plain, deflate = HEADER.unpack_from(data, offset)
    if magic != MAGIC:
        raise CorruptMember(f"magic {magic.hex()} at {offset} is not {MAGIC.hex()}")
    if (extra, subfield, length) != (EXTRA_BYTES, SUBFIELD, SUBFIELD_BYTES):
        raise CorruptMember(f"extra field {extra}, {subfield!r}, {length} at {offset}")
    start = offset + HEADER.size
    if deflate > len(data) - start - FOOTER.size:
        raise CorruptMember(f"deflate length {deflate} at {offset} runs past the packet")
    if not plain or not deflate:
        raise CorruptMember(f"an empty member at {offset}")
    crc32, size = FOOTER.unpack_from(data, start + deflate)
    if size != plain:
        raise CorruptMember(f"footer length {size} is not the header's {plain} at {offset}")
    return Member(start, start + deflate, plain, crc32)
