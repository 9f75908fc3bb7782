"""`zstd`: one Zstandard frame a packet, between buffers of ours.

By the libzstd inside the zstandard package, through that package's own cffi module: its Python
classes either return `bytes` or stream, and a stream goes through libzstd's window buffer (4 %).
"""

from __future__ import annotations

import zstandard
from zstandard._cffi import ffi, lib

from pipeline.codecs.method import CodecError, CodecSettings, Method, QatWork


def _error(call: str, code: int) -> CodecError:
    return CodecError(f"{call}: {ffi.string(lib.ZSTD_getErrorName(code)).decode()}")


class ZstdEncoder:
    """One compression context, used again for every packet."""

    def __init__(self, settings: CodecSettings) -> None:
        self.qat = QatWork()
        self._context = ffi.gc(lib.ZSTD_createCCtx(), lib.ZSTD_freeCCtx)
        if self._context == ffi.NULL:
            raise MemoryError("no memory for a zstd compression context")
        # No checksum: the packet header carries one of the plain bytes, whatever the method.
        code = lib.ZSTD_CCtx_setParameter(self._context, lib.ZSTD_c_compressionLevel, settings.level)
        if lib.ZSTD_isError(code):
            raise _error("ZSTD_CCtx_setParameter", code)

    def compress(self, source: memoryview, dest: memoryview) -> int:
        """Compress into `dest`; where it does not fit, the result is no smaller."""
        code = lib.ZSTD_compress2(
            self._context,
            ffi.from_buffer(dest, require_writable=True),
            len(dest),
            ffi.from_buffer(source),
            len(source),
        )
        if not lib.ZSTD_isError(code):
            return int(code)
        if lib.ZSTD_getErrorCode(code) == lib.ZSTD_error_dstSize_tooSmall:
            return len(source)
        raise _error("ZSTD_compress2", code)

    def close(self) -> None:
        """The context goes with its object."""


class ZstdDecoder:
    """One decompression context."""

    def __init__(self, settings: CodecSettings) -> None:
        self.qat = QatWork()
        self._context = ffi.gc(lib.ZSTD_createDCtx(), lib.ZSTD_freeDCtx)
        if self._context == ffi.NULL:
            raise MemoryError("no memory for a zstd decompression context")

    def decompress(self, payload: memoryview, dest: memoryview) -> None:
        """Decompress one frame that holds exactly `len(dest)` bytes and ends with `payload`."""
        out_of = ffi.from_buffer(payload)
        size = int(lib.ZSTD_getFrameContentSize(out_of, len(payload)))
        if size != len(dest):
            raise CodecError(f"a zstd frame of {size} bytes for {len(dest)}")
        if lib.ZSTD_findFrameCompressedSize(out_of, len(payload)) != len(payload):
            raise CodecError(f"a zstd frame does not end with its {len(payload)} bytes")
        into = ffi.from_buffer(dest, require_writable=True)
        code = lib.ZSTD_decompressDCtx(self._context, into, len(dest), out_of, len(payload))
        if lib.ZSTD_isError(code):
            raise _error("ZSTD_decompressDCtx", code)
        if code != len(dest):
            raise CodecError(f"a zstd frame ends after {code} of {len(dest)} bytes")

    def close(self) -> None:
        """The context goes with its object."""


METHOD = Method(
    name="zstd",
    code=3,
    levels=range(-50, zstandard.MAX_COMPRESSION_LEVEL + 1),
    default_level=1,
    bound_bytes=lambda plain, settings: plain,
    open_encoder=ZstdEncoder,
    open_decoder=ZstdDecoder,
)
