"""Which pages a guest writes: uniform, sequential, hotspot, zipf.

A pattern is a stream of page numbers. It depends only on its seed, not on how it is cut into
batches: the same seed gives the same pages on a fast host and on a slow one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pages = npt.NDArray[np.intp]
Generator = Callable[[int], Pages]
"""Returns the next n page numbers of a stream."""

DEFAULT_HOTSPOT = (0.9, 0.1)
"""The share of the writes, and the fraction of RAM that they go to."""

DEFAULT_ZIPF = 0.99
"""YCSB's default skew (Cooper et al., SoCC 2010)."""


@dataclass(frozen=True)
class Pattern:
    """A pattern by name, with its parameters: (share of the writes, fraction of RAM) for `hotspot`,
    (exponent,) for `zipf`, none for `uniform` and `sequential`.
    """

    name: str
    parameters: tuple[float, ...] = ()

    def __str__(self) -> str:
        """As `parse_pattern` reads it."""
        numbers = ",".join(f"{number:g}" for number in self.parameters)
        return f"{self.name}:{numbers}" if numbers else self.name

    def stream(self, pages: int, seed: int) -> Generator:
        """A new stream of page numbers from 0 to `pages` - 1."""
        random = np.random.default_rng(seed)
        if self.name == "sequential":
            return _sequential(pages)
        if self.name == "hotspot":
            return _hotspot(pages, random, *self.parameters)
        if self.name == "zipf":
            return _zipf(pages, random, *self.parameters)
        return lambda count: random.integers(0, pages, count)


UNIFORM = Pattern("uniform")
SEQUENTIAL = Pattern("sequential")
NAMES = "uniform, sequential, hotspot[:SHARE,FRACTION], zipf[:EXPONENT]"


def parse_pattern(text: str) -> Pattern:
    """Read `hotspot:0.9,0.1`, `zipf:1.1`, `uniform`. Raises ValueError, which says what is valid."""
    name, _, rest = text.partition(":")
    try:
        numbers = tuple(float(part) for part in rest.split(",")) if rest else ()
    except ValueError:
        raise ValueError(f"parameters must be numbers; valid is {NAMES}") from None
    if name in ("uniform", "sequential") and not numbers:
        return Pattern(name)
    if name == "hotspot":
        numbers = numbers or DEFAULT_HOTSPOT
        if len(numbers) == 2 and 0 <= numbers[0] <= 1 and 0 < numbers[1] <= 1:
            return Pattern(name, numbers)
        raise ValueError("hotspot takes SHARE,FRACTION, a share of 0 to 1 and a fraction above 0 to 1")
    if name == "zipf":
        numbers = numbers or (DEFAULT_ZIPF,)
        if len(numbers) == 1 and 0 < numbers[0] <= 10:
            return Pattern(name, numbers)
        raise ValueError("zipf takes one EXPONENT, above 0 to 10")
    raise ValueError(f"must be one of {NAMES}")


def _sequential(pages: int) -> Generator:
    at = 0

    def generate(count: int) -> Pages:
        nonlocal at
        found = (at + np.arange(count)) % pages
        at = (at + count) % pages
        return found

    return generate


def _hotspot(pages: int, random: np.random.Generator, share: float, fraction: float) -> Generator:
    """`share` of the writes go to the first `fraction` of RAM, the others to the rest."""
    hot = max(1, int(pages * fraction))

    def generate(count: int) -> Pages:
        is_hot = random.random(count) < share
        where = random.random(count)
        if hot == pages:
            return (where * pages).astype(np.intp)
        cold = hot + (where * (pages - hot)).astype(np.intp)
        return np.where(is_hot, (where * hot).astype(np.intp), cold)

    return generate


def _zipf(pages: int, random: np.random.Generator, exponent: float) -> Generator:
    """The page of rank k is written in proportion to 1 / k ** exponent; ranks are scattered over RAM.

    Ranks are drawn by inverting the continuous distribution over [1, pages + 1), which needs no table
    of all ranks. A multiplication that permutes the page numbers scatters them.
    """
    step = _coprime_near(pages, int(pages * 0.6180339887))
    top = pages + 1.0

    def generate(count: int) -> Pages:
        u = random.random(count)
        if abs(exponent - 1) < 1e-9:
            rank = top**u
        else:
            power = 1 - exponent
            rank = ((top**power - 1) * u + 1) ** (1 / power)
        ranks = np.minimum(rank.astype(np.int64) - 1, pages - 1)
        return (ranks * step % pages).astype(np.intp)

    return generate


def _coprime_near(pages: int, step: int) -> int:
    step = max(step, 1)
    while math.gcd(step, pages) != 1:
        step += 1
    return step
