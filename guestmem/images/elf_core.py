"""ELF cores of QEMU's dump-guest-memory, which is what `virsh dump --memory-only` calls.

Each program header PT_LOAD is a range of guest-physical memory at `p_paddr`; what `p_memsz` has beyond
`p_filesz` is zero (System V ABI, chapter 5). Read by pyelftools.
"""

from __future__ import annotations

import os
from typing import Literal

from guestmem.images.layout import Format, ImageError, Layout, PlainLayout, Range, Stored, check_pages
from guestmem.images.source import Source

NAME = "ELF core"
MAGIC = b"\x7fELF"
BIG_ENDIAN, TYPE_AT, ET_CORE = b"\x02", 16, 4
NO_PACKAGE = f"{NAME}: the package pyelftools is missing: pip install 'ramferry[images]'"
MAX_RANGES = 70_000


def read(source: Source) -> Layout:
    """Every PT_LOAD. Raises ImageError."""
    try:
        from elftools.common.exceptions import ELFError
        from elftools.construct.core import ConstructError
        from elftools.elf.elffile import ELFFile
    except ImportError as error:
        raise ImageError(NO_PACKAGE) from error
    damaged = (ELFError, ConstructError, ValueError, LookupError, OverflowError, TypeError, AttributeError)
    try:
        with os.fdopen(os.dup(source.fd), "rb") as file:
            elf = ELFFile(file)
            if elf.num_segments() > MAX_RANGES:
                raise ImageError(f"{NAME}: {elf.num_segments()} program headers")
            headers = [
                segment.header for segment in elf.iter_segments() if segment.header["p_type"] == "PT_LOAD"
            ]
    except damaged as error:
        raise ImageError(f"{NAME}: damaged: {str(error) or type(error).__name__}") from error
    return PlainLayout(NAME, source, tuple(_stored(source, header) for header in headers))


def _stored(source: Source, header: object) -> Stored:
    def field(name: str) -> int:
        return int(header[name])  # type: ignore[index]

    address, size, stored = field("p_paddr"), field("p_memsz"), field("p_filesz")
    check_pages(NAME, size, f"the range at address {address:#x}")
    if stored > size:
        raise ImageError(
            f"{NAME}: the range at address {address:#x} has more bytes in the file than in memory"
        )
    if field("p_offset") + stored > source.size_bytes:
        raise ImageError(f"{NAME}: truncated in the range at address {address:#x}")
    return Stored(Range("", address, size), field("p_offset"), stored)


def _is_core(head: bytes) -> bool:
    """Raw memory may begin with a program."""
    order: Literal["little", "big"] = "big" if head[5:6] == BIG_ENDIAN else "little"
    return head.startswith(MAGIC) and int.from_bytes(head[TYPE_AT : TYPE_AT + 2], order) == ET_CORE


ELF_CORE = Format(NAME, _is_core, read)
