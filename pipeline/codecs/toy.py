"""`toy`: a run of one byte is stored as that byte; anything else does not shrink."""

from __future__ import annotations

from pipeline.codecs.method import CodecSettings, Method, QatWork
from pipeline.errors import CodecError


class Toy:
    """Both directions."""

    def __init__(self, settings: CodecSettings) -> None:
        self.qat = QatWork()

    def compress(self, source: memoryview, dest: memoryview) -> int:
        if bytes(source) != bytes(source[:1]) * len(source):
            return len(source)
        dest[0] = source[0]
        return 1

    def decompress(self, payload: memoryview, dest: memoryview) -> None:
        if len(payload) != 1:
            raise CodecError(f"{len(payload)} bytes, not 1")
        dest[:] = bytes(payload) * len(dest)

    def close(self) -> None:
        pass


METHOD = Method("toy", 7, range(0), 0, lambda plain, settings: plain, Toy, Toy, lambda: None)
