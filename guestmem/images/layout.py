"""What a reader of an image gives: ranges of guest RAM, and a way to fill memory with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from guestmem.images.source import Source
from guestmem.page import PAGE_BYTES

OnShare = Callable[[float], None]
"""Told what share of the work, 0 to 1, is done."""


class ImageError(Exception):
    """An image that is damaged, foreign or not supported; the message says what and what to do."""


@dataclass(frozen=True)
class Range:
    """A piece of guest RAM: QEMU's name of it or none, its guest-physical address (bytes) where known."""

    name: str
    address: int | None
    size_bytes: int


class Layout(Protocol):
    """An image that has been looked at."""

    @property
    def format(self) -> str:
        """Its name."""

    @property
    def ranges(self) -> tuple[Range, ...]:
        """In the order in which they are laid side by side."""

    @property
    def size_bytes(self) -> int:
        """Of all ranges."""

    def fill(self, into: memoryview, on_share: OnShare | None = None) -> None:
        """Fill memory of `size_bytes` that is all zero; holes and zero pages are not touched.

        Raises ImageError for content that is damaged; OSError.
        """


@dataclass(frozen=True)
class Format:
    """A kind of file: whether its first bytes say so, and its reader."""

    name: str
    recognises: Callable[[bytes], bool]
    read: Callable[[Source], Layout]


@dataclass(frozen=True)
class Stored:
    """A range whose bytes lie in the file as they are; behind `stored_bytes` it is zero."""

    range: Range
    offset: int
    stored_bytes: int


@dataclass(frozen=True)
class PlainLayout:
    """Ranges that lie in the file as they are."""

    format: str
    source: Source
    stored: tuple[Stored, ...]

    @property
    def ranges(self) -> tuple[Range, ...]:
        return tuple(one.range for one in self.stored)

    @property
    def size_bytes(self) -> int:
        return sum(one.range.size_bytes for one in self.stored)

    def fill(self, into: memoryview, on_share: OnShare | None = None) -> None:
        done = 0
        for one in self.stored:
            place = into[done : done + one.stored_bytes]
            self.source.read_into(one.offset, place, shares(on_share, done, len(into)))
            done += one.range.size_bytes


def shares(on_share: OnShare | None, before: int, whole: int) -> Callable[[int], None]:
    """For a part of the work that begins at `before` bytes: told how many bytes of it are done."""
    return lambda done: on_share((before + done) / whole) if on_share is not None else None


def check_pages(format_: str, size_bytes: int, what: str) -> None:
    """Raises ImageError for a range that is not a number of pages."""
    if size_bytes % PAGE_BYTES or not size_bytes:
        raise ImageError(f"{format_}: {what} has {size_bytes} bytes, not a number of pages")
