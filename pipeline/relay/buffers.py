"""Room for blocks, used again and again: a fresh one costs its page faults each time."""

from __future__ import annotations

BLOCK_BYTES = 256 << 10
"""Of a stream, at most, in one frame: a Unix socket of QEMU's hands over 219 KB at once."""

ROOM_BYTES = BLOCK_BYTES + (64 << 10)
SMALL_BYTES = 4 << 10
MAX_KEPT = 512


class Buffers:
    """Room of one size, for a process."""

    def __init__(self) -> None:
        self._free: list[bytearray] = []

    def take(self, size_bytes: int) -> memoryview:
        """Room for so many bytes."""
        if not SMALL_BYTES < size_bytes <= ROOM_BYTES:
            return memoryview(bytearray(size_bytes))
        return memoryview(self._free.pop() if self._free else bytearray(ROOM_BYTES))[:size_bytes]

    def give(self, view: memoryview) -> None:
        """Nobody uses it any more."""
        room = view.obj
        if isinstance(room, bytearray) and len(room) == ROOM_BYTES and len(self._free) < MAX_KEPT:
            self._free.append(room)
