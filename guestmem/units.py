"""Sizes and rates as users write them, on command lines and in TOML files."""

from __future__ import annotations

import re

_FACTORS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(-?\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?", re.IGNORECASE)


def parse_size(text: str) -> int:
    """`512K`, `1.5G`, `4096` as bytes (K, M, G, T are powers of 1024). Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a size; write a number with K, M or G, such as 512K")
    return int(float(match[1]) * _FACTORS[match[2].upper()])


def show_size(size_bytes: float) -> str:
    """Bytes for a reader: `512K`, `1.5G`."""
    for unit in ("T", "G", "M", "K"):
        if abs(size_bytes) >= _FACTORS[unit]:
            return f"{size_bytes / _FACTORS[unit]:.4g}{unit}"
    return f"{size_bytes:.4g}"
