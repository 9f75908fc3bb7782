"""`zstd`: one Zstandard frame a packet.

python-zstandard's `stream_reader(...).readinto(view)` compresses and decompresses between two
buffers of ours with no copy, as fast as the C call.
"""

from __future__ import annotations

import zstandard

from pipeline.codecs.method import CodecError, CodecSettings, Method, QatWork

MAX_WINDOW_BYTES = 8 << 20
"""The largest window a decoder accepts: twice the largest packet."""


class ZstdEncoder:
    """One compression context, used again for every packet."""

    def __init__(self, settings: CodecSettings) -> None:
        self.qat = QatWork()
        # No checksum: the packet header carries one of the plain bytes, whatever the method.
        self._context = zstandard.ZstdCompressor(
            level=settings.level, write_checksum=False, write_content_size=True
        )

    def compress(self, source: memoryview, dest: memoryview) -> int:
        """Compress into `dest`; stops at its end, which is where the result is no smaller."""
        try:
            reader = self._context.stream_reader(source, size=len(source))
            return reader.readinto(dest)
        except zstandard.ZstdError as error:
            raise CodecError(f"zstd compress: {error}") from error

    def close(self) -> None:
        """The context goes with its object."""


class ZstdDecoder:
    """One decompression context."""

    def __init__(self, settings: CodecSettings) -> None:
        self.qat = QatWork()
        self._context = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)

    def decompress(self, payload: memoryview, dest: memoryview) -> None:
        """Decompress one frame that holds exactly `len(dest)` bytes."""
        try:
            size = zstandard.frame_content_size(payload)
            if size != len(dest):
                raise CodecError(f"a zstd frame of {size} bytes for {len(dest)}")
            reader = self._context.stream_reader(payload)
            length = reader.readinto(dest)
        except zstandard.ZstdError as error:
            raise CodecError(f"zstd decompress: {error}") from error
        if length != len(dest):
            raise CodecError(f"a zstd frame ends after {length} of {len(dest)} bytes")

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
