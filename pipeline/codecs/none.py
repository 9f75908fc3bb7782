"""`none`: pages travel as they are. Also what a packet that does not shrink travels as."""

from __future__ import annotations

from pipeline.codecs.method import CodecSettings, Method, QatWork
from pipeline.errors import CodecError


class Store:
    """Copies, in both directions."""

    def __init__(self) -> None:
        self.qat = QatWork()

    def compress(self, source: memoryview, dest: memoryview) -> int:
        dest[: len(source)] = source
        return len(source)

    def decompress(self, payload: memoryview, dest: memoryview) -> None:
        """Copy; raises CodecError when the lengths differ."""
        if len(payload) != len(dest):
            raise CodecError(f"{len(payload)} raw bytes for {len(dest)}")
        dest[:] = payload

    def close(self) -> None:
        pass


def _open(settings: CodecSettings) -> Store:
    return Store()


def _nothing_to_load() -> None:
    """Every host can copy."""


METHOD = Method(
    name="none",
    code=1,
    levels=range(0),
    default_level=0,
    bound_bytes=lambda plain, settings: plain,
    open_encoder=_open,
    open_decoder=_open,
    load=_nothing_to_load,
)
