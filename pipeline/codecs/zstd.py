"""`zstd`: one Zstandard frame a packet, between buffers of ours.

By libzstd itself: the zstandard package's classes either return `bytes` or stream, and a stream
goes through libzstd's window buffer (4 %). The system's libzstd goes before the one inside that
package, whose wheels leave out the Huffman decoder in assembly: 1360 against 1250 MB/s.
"""

from __future__ import annotations

import functools
from typing import Any

import zstandard
import zstandard._cffi

from pipeline.codecs._zstd import ffi
from pipeline.codecs.method import CodecSettings, Method, QatWork
from pipeline.errors import CodecError, CodecUnavailable

SONAME = "libzstd.so.1"
ZSTD_C_COMPRESSION_LEVEL = 100
ZSTD_ERROR_DSTSIZE_TOOSMALL = 70
MIN_LEVEL = -50


@functools.cache
def library() -> Any:
    """libzstd. Raises CodecUnavailable."""
    for name in (SONAME, zstandard._cffi.__file__):
        try:
            return ffi.dlopen(name)
        except OSError:
            continue
    raise CodecUnavailable(f"method zstd needs {SONAME}: apt-get install libzstd1")


def library_version() -> str:
    """The version of the libzstd in use. Raises CodecUnavailable."""
    number = int(library().ZSTD_versionNumber())
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def error(call: str, code: int) -> CodecError:
    """What a call of libzstd's that failed is told as."""
    return CodecError(f"{call}: {ffi.string(library().ZSTD_getErrorName(code)).decode()}")


class ZstdEncoder:
    """One compression context, used again for every packet."""

    def __init__(self, settings: CodecSettings) -> None:
        self.qat = QatWork()
        self._lib = lib = library()
        self._context = ffi.gc(lib.ZSTD_createCCtx(), lib.ZSTD_freeCCtx)
        if self._context == ffi.NULL:
            raise MemoryError("no memory for a zstd compression context")
        # No checksum: the packet header carries one of the plain bytes, whatever the method.
        code = lib.ZSTD_CCtx_setParameter(self._context, ZSTD_C_COMPRESSION_LEVEL, settings.level)
        if lib.ZSTD_isError(code):
            raise error("ZSTD_CCtx_setParameter", code)

    def compress(self, source: memoryview, dest: memoryview) -> int:
        """Compress into `dest`; where it does not fit, the result is no smaller."""
        lib = self._lib
        code = lib.ZSTD_compress2(
            self._context,
            ffi.from_buffer(dest, require_writable=True),
            len(dest),
            ffi.from_buffer(source),
            len(source),
        )
        if not lib.ZSTD_isError(code):
            return int(code)
        if lib.ZSTD_getErrorCode(code) == ZSTD_ERROR_DSTSIZE_TOOSMALL:
            return len(source)
        raise error("ZSTD_compress2", code)

    def close(self) -> None:
        pass


class ZstdDecoder:
    """One decompression context."""

    def __init__(self, settings: CodecSettings) -> None:
        self.qat = QatWork()
        self._lib = lib = library()
        self._context = ffi.gc(lib.ZSTD_createDCtx(), lib.ZSTD_freeDCtx)
        if self._context == ffi.NULL:
            raise MemoryError("no memory for a zstd decompression context")

    def decompress(self, payload: memoryview, dest: memoryview) -> None:
        """Decompress one frame that holds exactly `len(dest)` bytes and ends with `payload`."""
        lib = self._lib
        out_of = ffi.from_buffer(payload)
        size = int(lib.ZSTD_getFrameContentSize(out_of, len(payload)))
        if size != len(dest):
            raise CodecError(f"a zstd frame of {size} bytes for {len(dest)}")
        if lib.ZSTD_findFrameCompressedSize(out_of, len(payload)) != len(payload):
            raise CodecError(f"a zstd frame does not end with its {len(payload)} bytes")
        into = ffi.from_buffer(dest, require_writable=True)
        code = lib.ZSTD_decompressDCtx(self._context, into, len(dest), out_of, len(payload))
        if lib.ZSTD_isError(code):
            raise error("ZSTD_decompressDCtx", code)
        if code != len(dest):
            raise CodecError(f"a zstd frame ends after {code} of {len(dest)} bytes")

    def close(self) -> None:
        pass


METHOD = Method(
    name="zstd",
    code=3,
    levels=range(MIN_LEVEL, zstandard.MAX_COMPRESSION_LEVEL + 1),
    default_level=1,
    bound_bytes=lambda plain, settings: plain,
    open_encoder=ZstdEncoder,
    open_decoder=ZstdDecoder,
    load=library,
    zero_level=3,
)
