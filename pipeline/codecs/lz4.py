"""`lz4`: one LZ4 block a packet, by the system's liblz4, between buffers of ours.

Levels as the frame format's (lz4frame.h): 0 to 2 are the fast compressor, below 0 it skips ahead
further with each step (acceleration 1 - level), 3 to 12 are the HC compressor.
"""

from __future__ import annotations

import functools
from typing import Any

from pipeline.codecs._lz4 import ffi
from pipeline.codecs.method import CodecSettings, Method, QatWork
from pipeline.errors import CodecError, CodecUnavailable

SONAME = "liblz4.so.1"
MIN_HC_LEVEL, MAX_HC_LEVEL = 3, 12
MIN_LEVEL = -64


@functools.cache
def _library() -> Any:
    """Kept: cffi unloads a library that nobody holds, its functions or not."""
    try:
        return ffi.dlopen(SONAME)
    except OSError as error:
        raise CodecUnavailable(
            f"method lz4 needs {SONAME}: apt-get install liblz4-1 (Debian, Ubuntu) or dnf install lz4-libs"
        ) from error


class Lz4Encoder:
    """One compressor's state, used again for every packet."""

    def __init__(self, settings: CodecSettings) -> None:
        self.qat = QatWork()
        library = _library()
        if settings.level < MIN_HC_LEVEL:
            self._state = ffi.new("char[]", library.LZ4_sizeofState())
            self._call, self._parameter = library.LZ4_compress_fast_extState, max(1, 1 - settings.level)
        else:
            self._state = ffi.new("char[]", library.LZ4_sizeofStateHC())
            self._call, self._parameter = library.LZ4_compress_HC_extStateHC, settings.level

    def compress(self, source: memoryview, dest: memoryview) -> int:
        """Compress into `dest`; where it does not fit, the result is no smaller."""
        out_of = ffi.from_buffer("char[]", source)
        into = ffi.from_buffer("char[]", dest, require_writable=True)
        length = int(self._call(self._state, out_of, into, len(source), len(dest), self._parameter))
        return length if length > 0 else len(source)

    def close(self) -> None:
        pass


class Lz4Decoder:
    """Decompresses blocks."""

    def __init__(self, settings: CodecSettings) -> None:
        self.qat = QatWork()
        self._decompress = _library().LZ4_decompress_safe

    def decompress(self, payload: memoryview, dest: memoryview) -> None:
        """Decompress one block that holds exactly `len(dest)` bytes."""
        out_of = ffi.from_buffer("char[]", payload)
        into = ffi.from_buffer("char[]", dest, require_writable=True)
        length = int(self._decompress(out_of, into, len(payload), len(dest)))
        if length != len(dest):
            raise CodecError(f"LZ4_decompress_safe returned {length} for {len(dest)} bytes")

    def close(self) -> None:
        pass


METHOD = Method(
    name="lz4",
    code=6,
    levels=range(MIN_LEVEL, MAX_HC_LEVEL + 1),
    default_level=1,
    bound_bytes=lambda plain, settings: plain,
    open_encoder=Lz4Encoder,
    open_decoder=Lz4Decoder,
    zero_level=1,
    load=_library,
)
