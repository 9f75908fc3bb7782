"""Readers of real memory: one file a format, and the table of them.

What a file is, its first bytes say. Its ranges of guest RAM are laid side by side in the order of the file.
"""

from __future__ import annotations

from guestmem.images.elf_core import ELF_CORE
from guestmem.images.kdump import FLATTENED_KDUMP, KDUMP
from guestmem.images.layout import Format, ImageError, Layout, OnShare, Range
from guestmem.images.libvirt_save import LIBVIRT_SAVE
from guestmem.images.lime import LIME
from guestmem.images.mapped_ram import MAPPED_RAM
from guestmem.images.raw import RAW
from guestmem.images.source import Source, open_source

FORMATS: tuple[Format, ...] = (MAPPED_RAM, LIBVIRT_SAVE, ELF_CORE, KDUMP, FLATTENED_KDUMP, LIME, RAW)
"""In the order in which they are asked; everything is raw memory that is nothing else."""

HEAD_BYTES = 4096


def read_layout(source: Source) -> Layout:
    """What an image holds, and where. Raises ImageError for one that is damaged or not supported; OSError."""
    head = source.some(0, HEAD_BYTES)
    format_ = next(format_ for format_ in FORMATS if format_.recognises(head))
    layout = format_.read(source)
    if not layout.size_bytes:
        raise ImageError(f"{format_.name}: holds no guest RAM")
    return layout


__all__ = ["FORMATS", "ImageError", "Layout", "OnShare", "Range", "Source", "open_source", "read_layout"]
