"""`isal`: one gzip member (RFC 1952) a packet, deflated and inflated by ISA-L.

Any gzip reads it. Level 0 is the fastest, 3 the smallest; ISA-L has no others.
"""

from __future__ import annotations

import struct

from isal import isal_zlib

from pipeline.codecs.igzip import LEVELS, Deflater, Inflater, load
from pipeline.codecs.method import CodecSettings, Method, QatWork
from pipeline.errors import CodecError

HEADER = bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255])
"""Magic, deflate, no flags, no time, no extra flags, operating system unknown."""

TRAILER = struct.Struct("<II")
"""CRC-32 and length of the plain bytes."""


class IsalEncoder:
    """Writes members."""

    def __init__(self, settings: CodecSettings) -> None:
        self.qat = QatWork()
        self._deflater = Deflater(settings.level)

    def compress(self, source: memoryview, dest: memoryview) -> int:
        """Compress into `dest`; where it does not fit, the result is no smaller."""
        room = len(dest) - TRAILER.size
        if room <= len(HEADER):
            return len(source)
        length = self._deflater.deflate(source, dest[len(HEADER) : room])
        if length is None:
            return len(source)
        end = len(HEADER) + length
        dest[: len(HEADER)] = HEADER
        TRAILER.pack_into(dest, end, isal_zlib.crc32(source), len(source))
        return end + TRAILER.size

    def close(self) -> None:
        pass


class IsalDecoder:
    """Reads members as `IsalEncoder` writes them."""

    def __init__(self, settings: CodecSettings) -> None:
        self.qat = QatWork()
        self._inflater = Inflater()

    def decompress(self, payload: memoryview, dest: memoryview) -> None:
        """Decompress one member that holds exactly `len(dest)` bytes and ends with `payload`."""
        end = len(payload) - TRAILER.size
        if end < len(HEADER) or payload[: len(HEADER)] != HEADER:
            raise CodecError("no gzip member begins the payload")
        crc, length = TRAILER.unpack_from(payload, end)
        if length != len(dest):
            raise CodecError(f"a gzip member of {length} bytes for {len(dest)}")
        self._inflater.inflate(payload[len(HEADER) : end], dest)
        if isal_zlib.crc32(dest) != crc:
            raise CodecError("a gzip member's CRC-32 does not match its bytes")

    def close(self) -> None:
        pass


METHOD = Method(
    name="isal",
    code=5,
    levels=LEVELS,
    default_level=1,
    bound_bytes=lambda plain, settings: plain,
    open_encoder=IsalEncoder,
    open_decoder=IsalDecoder,
    load=load,
)
