"""Sizes as a command line takes them."""

from __future__ import annotations


def size_argument(size_bytes: int) -> str:
    """The shortest option value: `1G`, `384M`, `4096`."""
    for shift, suffix in ((30, "G"), (20, "M"), (10, "K")):
        if size_bytes and size_bytes % (1 << shift) == 0:
            return f"{size_bytes >> shift}{suffix}"
    return str(size_bytes)
