"""What a relay reads out of QEMU's streams, and no more: where a migration stands.

Sources: QEMU `migration/savevm.c` (QEMU_VM_*), `multifd.c` (MultiFDInit_t), `migration.c` (MIG_RP_MSG_*).
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass, field

MAIN_MAGIC = b"QEVM"
MULTIFD_MAGIC = bytes.fromhex("11223344")
MAIN_FIRST_BYTES, MULTIFD_FIRST_BYTES = 4, 64

RETURN_PATH = bytes.fromhex("0800010000")
"""QEMU_VM_COMMAND, MIG_CMD_OPEN_RETURN_PATH, no data."""

RECOVERY = bytes.fromhex("08000a")
"""QEMU_VM_COMMAND, MIG_CMD_RECV_BITMAP: how main begins that resumes a postcopy that was cut."""

_libc = ctypes.CDLL(None)
_libc.memmem.restype = ctypes.c_void_p
_libc.memmem.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)

PACKAGED = bytes.fromhex("0800070004")
POSTCOPY = re.compile(rb"\x08\x00\x07\x00\x04....\x08\x00\x04\x00\x00", re.DOTALL)
"""MIG_CMD_PACKAGED with the devices' state, which begins with MIG_CMD_POSTCOPY_LISTEN."""

CONFIGURATION = b'{"configuration"'
COMMIT = re.compile(rb'\x00\x06(....)\{"configuration"', re.DOTALL)
"""QEMU_VM_EOF, the commit byte; then QEMU_VM_VMDESCRIPTION, its length, and what it begins with. Guest RAM
may hold the same, but not at the end of the stream."""

COMMIT_BYTES = 6 + len(CONFIGURATION)

RECV_BITMAP = 5
"""MIG_RP_MSG_RECV_BITMAP; migration/ram.c, ramblock_recv_bitmap_send."""

LOOK_FOR_RETURN_PATH_BYTES = 4096
SECTION_START = 0x01


def starts_main(data: bytes) -> bool:
    """Whether a migration, or the recovery of one, begins so."""
    return data.startswith((MAIN_MAGIC, RECOVERY))


def _holds(data: bytes, wanted: bytes) -> bool:
    """Main carries all of RAM where there is no multifd: a block of 219 KB takes 45 us so, by `re` 430."""
    return bool(_libc.memmem(data, len(data), wanted, len(wanted)))


@dataclass
class ForwardMarks:
    """Main from the source to the destination, as it is read."""

    has_return_path: bool | None = None
    committed: bool = False
    postcopy: bool = False
    total_bytes: int = 0
    _head: bytearray = field(default_factory=bytearray)
    _tail: bytes = b""
    _ends_at: int = 0

    def see(self, data: memoryview) -> None:
        """Note what these next bytes say."""
        if self.total_bytes < LOOK_FOR_RETURN_PATH_BYTES:
            self._see_head(data)
        window = self._tail + bytes(data)
        began = self.total_bytes - len(self._tail)
        self.total_bytes += len(data)
        if not self.postcopy and _holds(window, PACKAGED) and POSTCOPY.search(window):
            self.postcopy = True
        for found in COMMIT.finditer(window) if _holds(window, CONFIGURATION) else ():
            self._ends_at = began + found.start() + 6 + int.from_bytes(found[1], "big")
        self.committed = self._ends_at >= self.total_bytes
        self._tail = window[-(COMMIT_BYTES - 1) :]

    def _see_head(self, data: memoryview) -> None:
        self._head += data[:LOOK_FOR_RETURN_PATH_BYTES]
        if self._head.startswith(RECOVERY) or RETURN_PATH in self._head:
            self.has_return_path = True
        elif len(self._head) >= LOOK_FOR_RETURN_PATH_BYTES or self._starts_with_a_section():
            self.has_return_path = False

    def _starts_with_a_section(self) -> bool:
        """Behind the name of the machine, where a return path would be opened, RAM begins."""
        head = self._head
        if len(head) < 13 or head[8] != 0x07:
            return False
        after = 13 + int.from_bytes(head[9:13], "big")
        return len(head) > after and head[after] == SECTION_START

    def may_end_in_commit(self, data: memoryview) -> bool:
        """Whether the last bytes may be the commit byte, with what proves it still to come."""
        end = (self._tail + bytes(data[-32:]))[-(COMMIT_BYTES - 1) :]
        return any(
            tail[0] == 0 and tail[1:2] in (b"", b"\x06") and CONFIGURATION.startswith(tail[6:])
            for tail in (end[-length:] for length in range(1, len(end) + 1))
        )


@dataclass
class ReverseMarks:
    """Main from the destination to the source: messages of a return path. One that brings a block's bitmap
    (in a recovery) goes on behind its length: be64 bytes, so many, and an end mark of 8."""

    shut: bool = False
    shut_value: int | None = None
    _data: bytearray = field(default_factory=bytearray)
    _skip: int = 0

    def see(self, data: memoryview) -> None:
        """Read on: be16 type, be16 length, and so many bytes."""
        self._data += data
        while True:
            drop = min(self._skip, len(self._data))
            del self._data[:drop]
            self._skip -= drop
            if self._skip or len(self._data) < 4:
                return
            kind, length = int.from_bytes(self._data[:2], "big"), int.from_bytes(self._data[2:4], "big")
            if kind == RECV_BITMAP:
                begin = 4 + length
                if len(self._data) < begin + 8:
                    return
                length += 8 + int.from_bytes(self._data[begin : begin + 8], "big") + 8
            if kind == 1:
                if len(self._data) < 8:
                    return
                self.shut, self.shut_value = True, int.from_bytes(self._data[4:8], "big")
            del self._data[:4]
            self._skip = length
