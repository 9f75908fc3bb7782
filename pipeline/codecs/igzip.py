"""Deflate and inflate by ISA-L's igzip, between buffers of ours.

The library is the one inside the python-isal package, whose own calls return `bytes`: a copy of
each packet (8 % of the CPU of decompressing) and, without care, its page faults. Its symbols are
visible, so cffi finds them. ISA-L inflates other makers' streams as well: in packets of 512 KiB
of Silesia zlib's at 2.9 times zlib's own speed (820 against 286 MB/s, one core of a Xeon of
2023); libdeflate 1.14 does 848, which does not earn a library more.
"""

from __future__ import annotations

import functools
from typing import Any

from isal import igzip_lib

from pipeline.codecs._igzip import ffi
from pipeline.errors import CodecError, CodecUnavailable

COMP_OK, STATELESS_OVERFLOW = 0, -1
DECOMP_OK = 0
_NAMES = {
    1: "ISAL_END_INPUT",
    2: "ISAL_OUT_OVERFLOW",
    -1: "ISAL_INVALID_BLOCK",
    -2: "ISAL_INVALID_SYMBOL",
    -3: "ISAL_INVALID_LOOKBACK",
}
"""igzip_lib.h, what inflating returns."""

LEVELS = range(4)
LEVEL_BUFFER_BYTES = (0, 282_624, 331_776, 348_160)
"""ISAL_DEF_LVLn_DEFAULT of igzip_lib.h: tables, and 64 Ki tokens of 4 bytes."""


@functools.cache
def load() -> Any:
    """The library, opened once. Raises CodecUnavailable."""
    try:
        library = ffi.dlopen(igzip_lib.__file__)
        library.isal_deflate_stateless  # noqa: B018  # looked up, so that its absence is found here
        return library
    except (OSError, AttributeError, ffi.error) as error:
        raise CodecUnavailable(
            f"the isal package's library cannot be used ({error}): pip install --force-reinstall isal"
        ) from error


class Deflater:
    """One compressor's state, used again for every stream. Levels 0 to 3."""

    def __init__(self, level: int) -> None:
        """Raises CodecUnavailable."""
        self._library = load()
        self._stream = ffi.new("isal_zstream *")
        self._level = level
        self._level_buffer = ffi.new("unsigned char[]", max(1, LEVEL_BUFFER_BYTES[level]))

    def deflate(self, source: memoryview, dest: memoryview) -> int | None:
        """Write one raw deflate stream (RFC 1951) and return its length; None when it does not fit."""
        stream = self._stream
        self._library.isal_deflate_stateless_init(stream)
        stream.level = self._level
        stream.level_buf, stream.level_buf_size = self._level_buffer, LEVEL_BUFFER_BYTES[self._level]
        stream.end_of_stream = 1
        stream.next_in, stream.avail_in = ffi.from_buffer("unsigned char[]", source), len(source)
        stream.next_out = ffi.from_buffer("unsigned char[]", dest, require_writable=True)
        stream.avail_out = len(dest)
        code = self._library.isal_deflate_stateless(stream)
        if code == STATELESS_OVERFLOW:
            return None
        if code != COMP_OK:
            raise CodecError(f"isal_deflate_stateless returned {code}")
        return int(stream.total_out)


class Inflater:
    """One decompressor's state, used again for every stream."""

    def __init__(self) -> None:
        """Raises CodecUnavailable."""
        self._library = load()
        self._state = ffi.new("inflate_state *")

    def inflate(self, stream: memoryview, dest: memoryview) -> None:
        """Fill exactly `dest` from a raw deflate stream that ends with `stream`. Raises CodecError."""
        state = self._state
        self._library.isal_inflate_init(state)
        state.next_in, state.avail_in = ffi.from_buffer("unsigned char[]", stream), len(stream)
        state.next_out = ffi.from_buffer("unsigned char[]", dest, require_writable=True)
        state.avail_out = len(dest)
        code = self._library.isal_inflate_stateless(state)
        if code != DECOMP_OK:
            raise CodecError(f"a deflate stream cannot be inflated: {_NAMES.get(code, 'status')} ({code})")
        left = int(state.avail_in) + (int(state.read_in_length) >> 3)
        if int(state.total_out) != len(dest) or left:
            raise CodecError(
                f"a deflate stream holds {state.total_out} of {len(dest)} bytes, "
                f"or does not end with them ({left} bytes left)"
            )
