"""`zlib`: one zlib stream (RFC 1950) a packet, by the C library between buffers of ours.

Python's own `zlib` returns `bytes`; see `pipeline.codecs.method` for what that costs.
"""

from __future__ import annotations

from typing import Any

from pipeline._libz import ffi
from pipeline.codecs.method import CodecError, CodecSettings, CodecUnavailable, Method, QatWork

SONAME = "libz.so.1"
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


class _Stream:
    """A z_stream and the two buffers of one call."""

    def __init__(self) -> None:
        self.qat = QatWork()
        self._libz = _library()
        self._version = self._libz.zlibVersion()
        self._stream = ffi.new("z_stream *")
        self._size = ffi.sizeof("z_stream")

    def _point(self, source: memoryview, dest: memoryview) -> tuple[Any, Any]:
        """Aim the stream at two buffers; keep what is returned until the call is done."""
        into = ffi.from_buffer("unsigned char[]", dest, require_writable=True)
        out_of = ffi.from_buffer("unsigned char[]", source)
        self._stream.next_in, self._stream.avail_in = out_of, len(source)
        self._stream.next_out, self._stream.avail_out = into, len(dest)
        return out_of, into


class ZlibEncoder(_Stream):
    """One deflate stream, reset for every packet."""

    def __init__(self, settings: CodecSettings) -> None:
        super().__init__()
        code = self._libz.deflateInit_(self._stream, settings.level, self._version, self._size)
        if code != Z_OK:
            raise _error("deflateInit", code)

    def compress(self, source: memoryview, dest: memoryview) -> int:
        """Compress into `dest`; stops at its end, which is where the result is no smaller."""
        held = self._point(source, dest)
        code = self._libz.deflate(self._stream, Z_FINISH)
        length = len(dest) - int(self._stream.avail_out)
        self._libz.deflateReset(self._stream)
        del held
        if code == Z_STREAM_END:
            return length
        if code == Z_OK and length == len(dest):
            return len(source)
        raise _error("deflate", code)

    def close(self) -> None:
        """Free the stream."""
        self._libz.deflateEnd(self._stream)


class ZlibDecoder(_Stream):
    """One inflate stream, reset for every packet."""

    def __init__(self, settings: CodecSettings) -> None:
        super().__init__()
        code = self._libz.inflateInit_(self._stream, self._version, self._size)
        if code != Z_OK:
            raise _error("inflateInit", code)

    def decompress(self, payload: memoryview, dest: memoryview) -> None:
        """Inflate one stream that holds exactly `len(dest)` bytes and ends with `payload`."""
        held = self._point(payload, dest)
        code = self._libz.inflate(self._stream, Z_FINISH)
        left_in, left_out = self._stream.avail_in, self._stream.avail_out
        self._libz.inflateReset(self._stream)
        del held
        if code != Z_STREAM_END:
            raise _error("inflate", code)
        if left_in or left_out:
            raise CodecError(f"a zlib stream leaves {left_in} bytes unread, {left_out} unfilled")

    def close(self) -> None:
        """Free the stream."""
        self._libz.inflateEnd(self._stream)


METHOD = Method(
    name="zlib",
    code=2,
    levels=range(10),
    default_level=1,
    bound_bytes=lambda plain, settings: plain,
    open_encoder=ZlibEncoder,
    open_decoder=ZlibDecoder,
)
