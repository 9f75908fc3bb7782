"""The guest page, one size everywhere."""

from __future__ import annotations

PAGE_BYTES = 4096
"""Bytes of a guest page: QEMU's target page size on x86."""

WORDS_PER_PAGE = PAGE_BYTES // 8
"""A page as numpy sees it: (512,) of uint64."""
