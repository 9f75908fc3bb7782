"""`zlib`: one zlib stream (RFC 1950) a packet.

Deflated by zlib's C library between buffers of ours (Python's own `zlib` returns `bytes`; see
`pipeline.codecs.method` for what that costs), inflated by ISA-L.
"""

from __future__ import annotations

from typing import Any

from isal import isal_zlib

from pipeline.codecs._libz import ffi
from pipeline.codecs.igzip import Inflater
from pipeline.codecs.method import CodecSettings, Method, QatWork
from pipeline.errors import CodecError, CodecUnavailable

SONAME = "libz.so.1"
HEADER_BYTES, ADLER_BYTES = 2, 4
DEFLATE, PRESET_DICTIONARY = 8, 0x20
"""RFC 1950, 2.2: compression method and flag."""

Z_OK, Z_STREAM_END, Z_FINISH = 0, 1, 4

_NAMES = {
    2: "Z_NEED_DICT",
    0: "Z_OK",
    -1: "Z_ERRNO",
    -2: "Z_STREAM_ERROR",
    -3: "Z_DATA_ERROR",
    -4: "Z_MEM_ERROR",
    -5: "Z_BUF_ERROR",
    -6: "Z_VERSION_ERROR",
}


def _error(call: str, code: int) -> CodecError:
    return CodecError(f"zlib {call} returned {_NAMES.get(code, 'status')} ({code})")


def _library() -> Any:
    try:
        return ffi.dlopen(SONAME)
    except OSError as error:
        raise CodecUnavailable(f"method zlib needs {SONAME}: install zlib1g ({error})") from error


class ZlibEncoder:
    """One deflate stream, reset for every packet."""

    def __init__(self, settings: CodecSettings) -> None:
        self.qat = QatWork()
        self._libz = _library()
        self._stream = ffi.new("z_stream *")
        code = self._libz.deflateInit_(
            self._stream, settings.level, self._libz.zlibVersion(), ffi.sizeof("z_stream")
        )
        if code != Z_OK:
            raise _error("deflateInit", code)

    def compress(self, source: memoryview, dest: memoryview) -> int:
        """Compress into `dest`; stops at its end, which is where the result is no smaller."""
        out_of = ffi.from_buffer("unsigned char[]", source)
        into = ffi.from_buffer("unsigned char[]", dest, require_writable=True)
        stream = self._stream
        stream.next_in, stream.avail_in = out_of, len(source)
        stream.next_out, stream.avail_out = into, len(dest)
        code = self._libz.deflate(stream, Z_FINISH)
        length = len(dest) - int(stream.avail_out)
        self._libz.deflateReset(stream)
        if code == Z_STREAM_END:
            return length
        if code == Z_OK and length == len(dest):
            return len(source)
        raise _error("deflate", code)

    def close(self) -> None:
        self._libz.deflateEnd(self._stream)


class ZlibDecoder:
    """Inflates whole zlib streams."""

    def __init__(self, settings: CodecSettings) -> None:
        self.qat = QatWork()
        self._inflater = Inflater()

    def decompress(self, payload: memoryview, dest: memoryview) -> None:
        """Inflate one stream that holds exactly `len(dest)` bytes and ends with `payload`."""
        end = len(payload) - ADLER_BYTES
        if end < HEADER_BYTES or payload[0] & 0x0F != DEFLATE or (payload[0] << 8 | payload[1]) % 31:
            raise CodecError("no zlib stream begins the payload")
        if payload[1] & PRESET_DICTIONARY:
            raise CodecError("a zlib stream with a preset dictionary")
        self._inflater.inflate(payload[HEADER_BYTES:end], dest)
        if isal_zlib.adler32(dest) != int.from_bytes(payload[end:], "big"):
            raise CodecError("a zlib stream's Adler-32 does not match its bytes")

    def close(self) -> None:
        pass


METHOD = Method(
    name="zlib",
    code=2,
    levels=range(10),
    default_level=1,
    bound_bytes=lambda plain, settings: plain,
    open_encoder=ZlibEncoder,
    open_decoder=ZlibDecoder,
    load=_library,
)
