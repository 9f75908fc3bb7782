"""Small images of every format, made by hand."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

PAGE = 4096


def pages(count: int, seed: int = 1) -> bytes:
    """Zero pages, text, noise."""
    chance = random.Random(seed)
    kinds: tuple[Callable[[int], bytes], ...] = (
        lambda n: bytes(PAGE),
        lambda n: (b"page %d of text. " % n * 400)[:PAGE],
        lambda n: chance.randbytes(PAGE),
    )
    return b"".join(kinds[chance.randrange(3)](number) for number in range(count))


def lime(ranges: list[tuple[int, bytes]]) -> bytes:
    return b"".join(
        struct.pack("<IIQQQ", 0x4C694D45, 1, first, first + len(data) - 1, 0) + data for first, data in ranges
    )


def elf(ranges: list[tuple[int, bytes, int]]) -> bytes:
    """(address, bytes in the file, bytes in memory)"""
    offset = 64 + 56 * len(ranges)
    headers, data = b"", b""
    for address, stored, size in ranges:
        headers += struct.pack(
            "<IIQQQQQQ", 1, 0, offset + len(data), address, address, len(stored), size, PAGE
        )
        data += stored
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, len(ranges), 0, 0, 0)
    return head + headers + data


def mapped_ram(blocks: list[tuple[str, bytes]], *, named: bool = True, base: int = 0) -> bytes:
    """A stream that begins `base` bytes into its file; zero pages are not written."""
    name = b"pc-q35-10.0"
    out = b"QEVM" + struct.pack(">I", 3) + b"\x07" + struct.pack(">I", len(name)) + name
    if named:
        capability = b"mapped-ram"
        out += b"\x05\x1aconfiguration/capabilities" + struct.pack(">II", 1, 1)
        out += bytes([len(capability)]) + capability
    out += b"\x01" + struct.pack(">I", 2) + b"\x03ram" + struct.pack(">II", 0, 4)
    out += struct.pack(">Q", sum(len(data) for _, data in blocks) | 4)
    for block, data in blocks:
        out += bytes([len(block)]) + block.encode() + struct.pack(">Q", len(data))
        count = len(data) // PAGE
        bitmap_at = base + len(out) + 28
        size = (count + 63) // 64 * 8
        pages_at = (bitmap_at + size + (1 << 20) - 1) // (1 << 20) * (1 << 20)
        out += struct.pack(">IQQQ", 1, PAGE, bitmap_at, pages_at)
        bitmap = bytearray(size)
        for number in range(count):
            if any(data[number * PAGE : (number + 1) * PAGE]):
                bitmap[number // 8] |= 1 << number % 8
        out += bytes(bitmap)
        out += bytes(pages_at - base - len(out)) + data
    return out + struct.pack(">Q", 0x10)


def libvirt(xml: bytes, blocks: list[tuple[str, bytes]], format_: int = 0, magic: bytes = b"") -> bytes:
    head = (magic or b"LibvirtQemudSave") + struct.pack("=19I", 2, len(xml), 1, format_, 0, *[0] * 14) + xml
    return head + mapped_ram(blocks, base=len(head))


def kdump(
    data: bytes, numbers: list[int], compress: Callable[[bytes], bytes] = zlib.compress, flag: int = 1
) -> bytes:
    """Pages of `data`, at these page numbers in ascending order."""
    half = (max(numbers) // 8) // PAGE + 1
    head = b"KDUMP   " + struct.pack("<I", 6)
    head = head.ljust(424, b"\0") + struct.pack("<IIII", flag, PAGE, 1, 2 * half)
    sub = bytes(96) + struct.pack("<Q", max(numbers) + 1)
    bitmap = bytearray(half * PAGE)
    for number in numbers:
        bitmap[number // 8] |= 1 << number % 8
    out = bytearray(head.ljust(PAGE, b"\0") + sub.ljust(PAGE, b"\0") + bitmap + bitmap)
    data_at = len(out) + 24 * len(numbers)
    descriptors, stored = b"", bytes(PAGE)
    for index in range(len(numbers)):
        page = data[index * PAGE : (index + 1) * PAGE]
        if not any(page):
            descriptors += struct.pack("<QIIQ", data_at, PAGE, 0, 0)
            continue
        packed = compress(page)
        kind = flag if len(packed) < PAGE else 0
        packed = packed if kind else page
        descriptors += struct.pack("<QIIQ", data_at + len(stored), len(packed), kind, 0)
        stored += packed
    return bytes(out) + descriptors + stored


def flattened(raw: bytes, seed: int = 1) -> bytes:
    """The same in records, in any order."""
    chance = random.Random(seed)
    pieces, at = [], 0
    while at < len(raw):
        size = chance.randrange(1, 3 * PAGE)
        pieces.append((at, raw[at : at + size]))
        at += size
    chance.shuffle(pieces)
    head = (b"makedumpfile\0\0\0\0" + struct.pack(">qq", 1, 1)).ljust(PAGE, b"\0")
    return (
        head + b"".join(struct.pack(">qq", at, len(p)) + p for at, p in pieces) + struct.pack(">qq", -1, -1)
    )
