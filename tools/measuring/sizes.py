"""Sizes and rates, as a command line takes them and as a reader does."""

from __future__ import annotations

from guestmem.workload import parse_rate


def size_argument(size_bytes: int) -> str:
    """The shortest option value: `1G`, `384M`, `4096`."""
    for shift, suffix in ((30, "G"), (20, "M"), (10, "K")):
        if size_bytes and size_bytes % (1 << shift) == 0:
            return f"{size_bytes >> shift}{suffix}"
    return str(size_bytes)


def rate_words(rate: str) -> str:
    """`50M` as it is meant: `50 MiB/s`; plain bytes per second in powers of ten."""
    if rate[-1:].isalpha():
        return f"{rate[:-1]} {rate[-1].upper()}iB/s"
    return f"{parse_rate(rate) / 1e6:g} MB/s"
