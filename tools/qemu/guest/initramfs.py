"""The guest's root file system: a cpio archive (Linux Documentation/driver-api/early-userspace)."""

from __future__ import annotations

import stat
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import IO

INIT = Path(__file__).with_name("init.sh")
PAGES_BYTES = 16 << 20
"""What the writer's pages are taken from."""

FILES_BYTES = 64 << 20
"""How much of this Python's own library the guest has to work on."""

FOLDER, PROGRAM, TEXT = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755, stat.S_IFREG | 0o644


def write_initramfs(out: IO[bytes], busybox: Path, writer: Path, *, with_files: bool) -> None:
    """`with_files` puts files under /files, for the work of a busy guest. Raises OSError."""
    for number, (name, mode, content) in enumerate(_entries(busybox, writer, with_files), 1):
        out.write(_entry(number, name, mode, content))
    out.write(_entry(0, "TRAILER!!!", 0, b""))


def _entries(busybox: Path, writer: Path, with_files: bool) -> Iterator[tuple[str, int, bytes]]:
    yield "bin", FOLDER, b""
    yield "bin/busybox", PROGRAM, busybox.read_bytes()
    yield "writer", PROGRAM, writer.read_bytes()
    yield "init", PROGRAM, INIT.read_bytes()
    yield "pages", TEXT, b"".join(content for _, content in _files(PAGES_BYTES))
    if with_files:
        yield "files", FOLDER, b""
        for name, content in _files(FILES_BYTES):
            yield f"files/{name}", TEXT, content


def _files(most_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Of this Python's library: sources, compiled modules, shared objects, tests."""
    left = most_bytes
    for number, path in enumerate(sorted(Path(sysconfig.get_path("stdlib")).rglob("*.*"))):
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= left:
            content = path.read_bytes()
            left -= len(content)
            yield f"{number}{path.suffix}", content


def _entry(number: int, name: str, mode: int, content: bytes) -> bytes:
    """One member in the format `newc`: names and contents end at multiples of four bytes."""
    named = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(named), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + named
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)
