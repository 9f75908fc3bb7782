"""Sizes and rates as users write them, on command lines and in TOML files."""

from __future__ import annotations

import math
import re
from fractions import Fraction

_FACTORS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(-?\d+(?:\.\d+)?)([KMGTkmgt]?)(?:[iI][bB]|B)?", re.ASCII)
_BITS_OR_BYTES = re.compile(r".*\d[KMGT]b", re.IGNORECASE)

_BIT_FACTORS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BITS = re.compile(r"(-?\d+(?:\.\d+)?)([KMGT]?)bit", re.IGNORECASE | re.ASCII)

VALID_RATES = "bytes per second with K, M or G, such as 512K, or bits per second, such as 100Mbit or 1Gbit"


def parse_size(text: str) -> int:
    """`512K`, `1.5G`, `4096` in bytes; K, M, G, T are powers of 1024. Raises ValueError."""
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


def parse_bytes_per_second(text: str) -> int:
    """A rate in bytes per second: a size, or bits with a decimal unit as tc(8) has them.

    `64M` is 64 x 1024 x 1024 bytes per second, `100Mbit` 12,500,000. Case does not matter. Raises
    ValueError, also for a rate above zero that is less than a byte per second: zero has a meaning
    of its own wherever rates are taken.
    """
    match = _BITS.fullmatch(text.strip())
    if match is not None:
        exact = Fraction(match[1]) * _BIT_FACTORS[match[2].upper()] / 8
    else:
        match = _SIZE.fullmatch(text.strip())
        if match is None:
            if _BITS_OR_BYTES.fullmatch(text.strip()):
                raise ValueError("bits or bytes? write 1Gbit for bits per second, 1G for bytes")
            raise ValueError(f"not a rate; write {VALID_RATES}")
        exact = Fraction(match[1]) * _FACTORS[match[2].upper()]
    if 0 < exact < 1:
        raise ValueError("less than a byte per second; write 0, or more")
    return math.floor(exact)


def show_rate(text: str) -> str:
    """A rate as it was written, for a reader: `50M` is `50 MiB/s`, `1Gbit` is `1 Gbit/s`, and plain
    bytes per second are in powers of ten, `12.5 MB/s`. Raises ValueError.
    """
    bytes_per_second = parse_bytes_per_second(text)
    match = _BITS.fullmatch(text.strip())
    if match is not None:
        return f"{match[1]} {_decimal(match[2])}bit/s"
    match = _SIZE.fullmatch(text.strip())
    if match is not None and match[2]:
        return f"{match[1]} {match[2].upper()}iB/s"
    return f"{bytes_per_second / 1e6:g} MB/s"


def _decimal(prefix: str) -> str:
    """An SI prefix in its case: kbit, but Mbit and Gbit."""
    return "k" if prefix in ("k", "K") else prefix.upper()
