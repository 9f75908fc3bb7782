"""libvirt's header in front of a file that QEMU wrote (`virsh save`): src/qemu/qemu_saveimage.h.

16 bytes of magic, then u32 in the host's order: version, length of the XML (with its cookie), whether the VM
ran, how the rest is compressed, offset of the cookie, 14 more. The XML follows, then QEMU's stream.
"""

from __future__ import annotations

import struct

from guestmem.images import mapped_ram
from guestmem.images.layout import Format, ImageError, Layout
from guestmem.images.source import Source, Truncated

NAME = "libvirt save of QEMU mapped-ram"
MAGIC, PARTIAL = b"LibvirtQemudSave", b"LibvirtQemudPart"
HEADER = struct.Struct("=16s19I")
VERSION = 2
COMPRESSED = {1: "gzip", 2: "bzip2", 3: "xz", 4: "lzop", 5: "zstd"}


def read(source: Source) -> Layout:
    """Raises ImageError."""
    try:
        magic, version, xml_bytes, _, format_, *_ = HEADER.unpack(source.exactly(0, HEADER.size))
    except Truncated as error:
        raise ImageError(f"{NAME}: truncated: {error}") from error
    if magic == PARTIAL:
        raise ImageError(f"{NAME}: the save was never finished")
    if version != VERSION:
        raise ImageError(
            f"{NAME}: version {version}, not {VERSION}, or written by a host of another byte order"
        )
    if format_ in COMPRESSED:
        raise ImageError(
            f"{NAME}: compressed by {COMPRESSED[format_]}: save it with save_image_format sparse in qemu.conf"
        )
    return mapped_ram.read(source, HEADER.size + xml_bytes, NAME)


LIBVIRT_SAVE = Format(NAME, lambda head: head.startswith((MAGIC, PARTIAL)), read)
