"""zstd for the blocks of a stream: each is compressed with the blocks before it at hand.

A block by itself begins without history: at 192 KiB zstd 5 makes 3.21 of memory that it makes 3.46 of as a
stream (48 MiB of Python's files; at level 1 there is no difference). The price is order: the blocks must be
decompressed one after another, as they were compressed, none left out and none twice.

A stream is one Zstandard frame (RFC 8878) that never ends, flushed behind every block.
"""

from __future__ import annotations

from pipeline.codecs._zstd import ffi
from pipeline.codecs.method import QatWork
from pipeline.codecs.zstd import ZSTD_C_COMPRESSION_LEVEL, error, library
from pipeline.errors import CodecError

ZSTD_C_WINDOW_LOG = 101
ZSTD_D_WINDOW_LOG_MAX = 100
ZSTD_FLUSH = 1

WINDOW_LOG = 20
"""1 MiB at either side, and some 8 MiB of tables at the side that compresses; 2 MiB would gain 1 to 2 %."""

LEAST_LEVEL = 3
"""Below, history gains nothing: those levels' tables forget it."""


class HistoryEncoder:
    """One compression context, for one stream."""

    def __init__(self, level: int) -> None:
        """Raises CodecUnavailable without libzstd."""
        self.qat = QatWork()
        self._lib = lib = library()
        self._context = ffi.gc(lib.ZSTD_createCCtx(), lib.ZSTD_freeCCtx)
        if self._context == ffi.NULL:
            raise MemoryError("no memory for a zstd compression context")
        for parameter, value in ((ZSTD_C_COMPRESSION_LEVEL, level), (ZSTD_C_WINDOW_LOG, WINDOW_LOG)):
            code = lib.ZSTD_CCtx_setParameter(self._context, parameter, value)
            if lib.ZSTD_isError(code):
                raise error("ZSTD_CCtx_setParameter", code)
        self._in, self._out = ffi.new("ZSTD_inBuffer *"), ffi.new("ZSTD_outBuffer *")

    def compress(self, source: memoryview, dest: memoryview) -> int:
        """Compress into `dest`, which must have room for a block that does not shrink: what was compressed
        is part of the history, and has to be sent. Raises CodecError."""
        lib, into, out = self._lib, self._in, self._out
        from_source, to_dest = ffi.from_buffer(source), ffi.from_buffer(dest, require_writable=True)
        into.src, into.size, into.pos = from_source, len(source), 0
        out.dst, out.size, out.pos = to_dest, len(dest), 0
        while True:
            left = lib.ZSTD_compressStream2(self._context, out, into, ZSTD_FLUSH)
            if lib.ZSTD_isError(left):
                raise error("ZSTD_compressStream2", left)
            if not left and into.pos == into.size:
                return int(out.pos)
            if out.pos == out.size:
                raise CodecError(f"{len(source)} bytes do not fit {len(dest)} when compressed")

    def close(self) -> None:
        pass


class HistoryDecoder:
    """One decompression context, for one stream."""

    def __init__(self) -> None:
        """Raises CodecUnavailable without libzstd."""
        self._lib = lib = library()
        self._context = ffi.gc(lib.ZSTD_createDCtx(), lib.ZSTD_freeDCtx)
        if self._context == ffi.NULL:
            raise MemoryError("no memory for a zstd decompression context")
        code = lib.ZSTD_DCtx_setParameter(self._context, ZSTD_D_WINDOW_LOG_MAX, WINDOW_LOG)
        if lib.ZSTD_isError(code):
            raise error("ZSTD_DCtx_setParameter", code)
        self._in, self._out = ffi.new("ZSTD_inBuffer *"), ffi.new("ZSTD_outBuffer *")
        self._spare = ffi.new("char[1]")

    def decompress(self, payload: memoryview, dest: memoryview) -> None:
        """Decompress the next block, which holds exactly `len(dest)` bytes. Raises CodecError."""
        into, out = self._in, self._out
        from_payload, to_dest = ffi.from_buffer(payload), ffi.from_buffer(dest, require_writable=True)
        into.src, into.size, into.pos = from_payload, len(payload), 0
        out.dst, out.size, out.pos = to_dest, len(dest), 0
        while into.pos < into.size or out.pos < out.size:
            before = into.pos, out.pos
            self._go_on()
            if before == (into.pos, out.pos):
                break
        if into.pos != into.size or out.pos != out.size:
            raise CodecError(
                f"a block of {len(payload)} bytes gives {out.pos} of {len(dest)}, {into.pos} bytes read"
            )
        out.dst, out.size, out.pos = self._spare, len(self._spare), 0
        self._go_on()
        if out.pos:
            raise CodecError(f"a block of {len(payload)} bytes gives more than {len(dest)}")

    def _go_on(self) -> None:
        code = self._lib.ZSTD_decompressStream(self._context, self._out, self._in)
        if self._lib.ZSTD_isError(code):
            raise error("ZSTD_decompressStream", code)
