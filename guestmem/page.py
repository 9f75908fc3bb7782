"""The page: the unit in which guest RAM is sent, marked and counted."""

from __future__ import annotations

PAGE_BYTES = 4096
"""Bytes of a guest page: QEMU's target page size on x86 (TARGET_PAGE_BITS 12)."""

WORDS_PER_PAGE = PAGE_BYTES // 8
"""64-bit words of a page; arrays of pages are (pages, WORDS_PER_PAGE) uint64."""
