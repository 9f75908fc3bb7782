"""Inflate a complete deflate stream, by ISA-L, whatever made it.

python-isal returns `bytes`, which workers keep their heap for (`pipeline.workers`), so they cost a
copy and no page faults; and it inflates zlib's own streams 2.5 times as fast as zlib 1.2.13 does
(741 against 286 MB/s in packets of 512 KiB of Silesia, one core of a Xeon of 2023).
"""

from __future__ import annotations

from isal import igzip_lib

from pipeline.codecs.method import CodecError

RAW = igzip_lib.DECOMP_DEFLATE
ZLIB = igzip_lib.DECOMP_ZLIB


def inflate_exactly(stream: memoryview, form: int, expected_bytes: int) -> bytes:
    """The bytes of a stream that holds exactly `expected_bytes` and ends with `stream`.

    `form` is RAW (RFC 1951) or ZLIB (RFC 1950, its Adler-32 checked). Raises CodecError.
    """
    inflater = igzip_lib.IgzipDecompressor(form)
    try:
        plain = inflater.decompress(stream, expected_bytes)
    except igzip_lib.error as error:  # type: ignore[misc]  # a class, whatever the stub says
        raise CodecError(f"a deflate stream cannot be inflated: {error}") from error
    if len(plain) != expected_bytes or not inflater.eof or inflater.unused_data:
        raise CodecError(
            f"a deflate stream holds {len(plain)} of {expected_bytes} bytes, or does not end with them"
        )
    return plain
