"""kdump files of QEMU's dump-guest-memory, kdump-zlib, kdump-lzo and kdump-snappy: raw, or flattened.

Layout: makedumpfile's diskdump_mod.h and IMPLEMENTATION, QEMU include/system/dump.h, 64-bit form. Block 0 is
the main header, block 1 the sub header; then two bitmaps of page numbers (the second says what is stored),
then a descriptor of 24 bytes a stored page: u64 offset, u32 size, u32 flags, u64 page flags. All zero pages
share one. Flattened (for pipes) is 4096 bytes of head and then records of be64 offset, be64 size, bytes.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from guestmem.images.layout import Format, ImageError, Layout, OnShare, Range
from guestmem.images.source import Source, Truncated
from guestmem.page import PAGE_BYTES

NAME, FLATTENED_NAME = "kdump", "flattened kdump"
MAGIC, FLATTENED_MAGIC = b"KDUMP   ", b"makedumpfile\0\0\0\0"
HEAD = struct.Struct("<8sI")
BLOCK_SIZE_AT, BLOCK_SIZES = 428, struct.Struct("<III")
HEADER_BYTES, SUB_HEADER_BYTES, MAX_PFN_AT = 464, 104, 96
DESCRIPTOR = np.dtype([("offset", "<u8"), ("size", "<u4"), ("flags", "<u4"), ("page", "<u8")])
RAW, ZLIB, LZO, SNAPPY = 0, 1, 2, 4
MAX_PAGES, MAX_RECORDS = 1 << 32, 10_000_000
PAGES_AT_ONCE = 4096
FLATTENED_HEAD_BYTES, RECORD = 4096, struct.Struct(">qq")
NO_LIBRARY = "needs a package that is missing here: {}"

Decompress = Callable[[bytes, int], bytes]


class Bytes(Protocol):
    """What a kdump is read from."""

    size_bytes: int

    def exactly(self, offset: int, size_bytes: int) -> bytes:
        """Raises Truncated."""


class Flattened:
    """The file that a flattened one stands for: each record at its offset."""

    def __init__(self, source: Source) -> None:
        """Read the records' headers. Raises ImageError, Truncated."""
        self._source = source
        found = array("q")
        at = FLATTENED_HEAD_BYTES
        while True:
            offset, size = RECORD.unpack(source.exactly(at, RECORD.size))
            at += RECORD.size
            if (offset, size) == (-1, -1):
                break
            if offset < 0 or size <= 0 or at + size > source.size_bytes:
                raise ImageError(f"{FLATTENED_NAME}: truncated, or damaged, at byte {at - RECORD.size}")
            if len(found) == 3 * MAX_RECORDS:
                raise ImageError(f"{FLATTENED_NAME}: more than {MAX_RECORDS} records")
            found.extend((offset, size, at))
            at += size
        records = np.frombuffer(found, np.int64).reshape(-1, 3)
        records = records[np.argsort(records[:, 0], kind="stable")]
        self._begins, self._sizes, self._places = records[:, 0], records[:, 1], records[:, 2]
        ends = self._begins + self._sizes
        if (ends[:-1] > self._begins[1:]).any():
            raise ImageError(f"{FLATTENED_NAME}: records overlap")
        self.size_bytes = int(ends[-1]) if len(ends) else 0

    def exactly(self, offset: int, size_bytes: int) -> bytes:
        """What no record covers is zero."""
        if offset < 0 or offset + size_bytes > self.size_bytes:
            raise Truncated(f"ends at byte {self.size_bytes}, before {size_bytes} bytes at {offset}")
        data = bytearray(size_bytes)
        first = max(0, int(np.searchsorted(self._begins, offset, "right")) - 1)
        for index in range(first, len(self._begins)):
            begin, size = int(self._begins[index]), int(self._sizes[index])
            if begin >= offset + size_bytes:
                break
            low, high = max(begin, offset), min(begin + size, offset + size_bytes)
            if low < high:
                place = int(self._places[index]) + low - begin
                data[low - offset : high - offset] = self._source.exactly(place, high - low)
        return bytes(data)


@dataclass(frozen=True)
class Kdump:
    """The stored pages of a dump, in the order of their numbers."""

    format: str
    source: Bytes
    ranges: tuple[Range, ...]
    page_bytes: int
    descriptors_at: int
    pages: int

    @property
    def size_bytes(self) -> int:
        return self.pages * self.page_bytes

    def fill(self, into: memoryview, on_share: OnShare | None = None) -> None:
        """Page by page. Raises ImageError."""
        zero_at = -1
        try:
            for first in range(0, self.pages, PAGES_AT_ONCE):
                count = min(PAGES_AT_ONCE, self.pages - first)
                place = self.descriptors_at + first * DESCRIPTOR.itemsize
                found = np.frombuffer(self.source.exactly(place, count * DESCRIPTOR.itemsize), DESCRIPTOR)
                for index, (offset, size, flags, _) in enumerate(found.tolist()):
                    if offset == zero_at:
                        continue
                    page = self._page(first + index, offset, size, flags)
                    if page.count(0) == len(page):
                        zero_at = offset
                        continue
                    begin = (first + index) * self.page_bytes
                    into[begin : begin + self.page_bytes] = page
                if on_share is not None:
                    on_share((first + count) / self.pages)
        except Truncated as error:
            raise ImageError(f"{self.format}: truncated: {error}") from error

    def _page(self, number: int, offset: int, size: int, flags: int) -> bytes:
        if not 0 < size <= self.page_bytes:
            raise ImageError(f"{self.format}: page {number} has {size} bytes in the file")
        data = self.source.exactly(offset, size)
        compression = flags & (ZLIB | LZO | SNAPPY)
        if compression not in DECOMPRESS:
            raise ImageError(
                f"{self.format}: page {number} is compressed in a way {flags} that is not known here"
            )
        try:
            page = DECOMPRESS[compression](data, self.page_bytes)
        except (ImportError, ImageError):
            raise
        except Exception as error:  # each library has its own
            raise ImageError(f"{self.format}: page {number} cannot be decompressed: {error}") from error
        if len(page) != self.page_bytes:
            raise ImageError(f"{self.format}: page {number} decompresses to {len(page)} bytes")
        return page


def _zlib(data: bytes, page_bytes: int) -> bytes:
    return zlib.decompressobj().decompress(data, page_bytes + 1)


def _snappy(data: bytes, page_bytes: int) -> bytes:
    try:
        import cramjam
    except ImportError as error:
        raise ImageError(NO_LIBRARY.format("pip install 'ramferry[images]' (cramjam, for snappy)")) from error
    page = bytearray(page_bytes)
    length = cramjam.snappy.decompress_raw_into(data, page)
    return bytes(page[:length])


def _lzo(data: bytes, page_bytes: int) -> bytes:
    try:
        import lzo
    except ImportError as error:
        raise ImageError(NO_LIBRARY.format("pip install python-lzo (with liblzo2-dev)")) from error
    page: bytes = lzo.decompress(data, False, page_bytes)
    return page


DECOMPRESS: dict[int, Decompress] = {RAW: lambda data, page: data, ZLIB: _zlib, LZO: _lzo, SNAPPY: _snappy}


def read(source: Source) -> Layout:
    """A raw kdump. Raises ImageError."""
    return _read(source, NAME)


def read_flattened(source: Source) -> Layout:
    """A flattened one. Raises ImageError."""
    try:
        whole = Flattened(source)
    except Truncated as error:
        raise ImageError(f"{FLATTENED_NAME}: truncated: {error}") from error
    return _read(whole, FLATTENED_NAME)


def _read(source: Bytes, name: str) -> Layout:
    try:
        return _layout(source, name)
    except Truncated as error:
        raise ImageError(f"{name}: truncated: {error}") from error


def _layout(source: Bytes, name: str) -> Kdump:
    header = source.exactly(0, HEADER_BYTES)
    magic, version = HEAD.unpack_from(header)
    page_bytes, sub_blocks, bitmap_blocks = BLOCK_SIZES.unpack_from(header, BLOCK_SIZE_AT)
    if magic != MAGIC or not 1 <= version <= 6:
        raise ImageError(f"{name}: version {version} of another byte order, or not known here")
    if page_bytes % PAGE_BYTES or not PAGE_BYTES <= page_bytes <= 65536 or bitmap_blocks % 2:
        raise ImageError(f"{name}: blocks of {page_bytes} bytes, bitmaps of {bitmap_blocks} blocks")
    sub_header = source.exactly(page_bytes, SUB_HEADER_BYTES)
    numbers = int.from_bytes(sub_header[MAX_PFN_AT : MAX_PFN_AT + 8], "little")
    half = bitmap_blocks // 2 * page_bytes
    if not 0 < numbers <= min(MAX_PAGES, half * 8):
        raise ImageError(f"{name}: {numbers} page numbers in bitmaps of {half} bytes")
    bitmap = source.exactly((1 + sub_blocks) * page_bytes + half, half)
    stored = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little")[:numbers].astype(np.bool_)
    pages = int(stored.sum())
    descriptors = (1 + sub_blocks + bitmap_blocks) * page_bytes
    if descriptors + pages * DESCRIPTOR.itemsize > source.size_bytes:
        raise ImageError(f"{name}: truncated: {pages} pages, and no room for their descriptors")
    return Kdump(name, source, _ranges(stored, page_bytes), page_bytes, descriptors, pages)


def _ranges(stored: npt.NDArray[np.bool_], page_bytes: int) -> tuple[Range, ...]:
    edges = np.flatnonzero(np.diff(np.concatenate(([False], stored, [False])))).reshape(-1, 2).tolist()
    return tuple(Range("", first * page_bytes, (last - first) * page_bytes) for first, last in edges)


KDUMP = Format(NAME, lambda head: head.startswith(MAGIC), read)
FLATTENED_KDUMP = Format(FLATTENED_NAME, lambda head: head.startswith(FLATTENED_MAGIC), read_flattened)
