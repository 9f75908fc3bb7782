"""Points of a dirty curve from files of others: checked, and as samples by time.

A point is (seconds since all was clean, distinct pages that were dirty then, one sample or several).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

from guestmem.page import PAGE_BYTES
from guestmem.units import show_size
from pipeline.forecast.situation import CurveSamples

MOST_POINTS = MOST_SAMPLES = 1000
LONGEST_SECONDS = 86400.0
NOISE = 0.1
"""A mean may be so much below the one before: points were not measured at one time."""

SAME_TIME = 1.25
"""Rounds whose times differ by less make one point."""

Points = list[tuple[float, tuple[int, ...]]]


class CurveError(Exception):
    """What is wrong with a dirty curve, in a line."""


def text_of(path: Path, what: str, most_bytes: int) -> str:
    """What a file of these points holds; `what` it should be. Raises CurveError, OSError, UnicodeError."""
    if not path.is_file():
        raise CurveError("is no regular file" if path.exists() else "no such file")
    if path.stat().st_size > most_bytes:
        raise CurveError(f"is larger than {most_bytes >> 20} MiB: no {what}")
    return path.read_text(encoding="utf-8")


def number(value: Any, what: str, low: float, high: float) -> float:
    """A finite number within limits. Raises CurveError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CurveError(f"{what}: {_shown(value)} is not a finite number")
    if not low <= value <= high:
        raise CurveError(f"{what}: {_shown(value)} must be {low:.15g} to {high:.15g}")
    return float(value)


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def samples(value: Any, what: str) -> tuple[int, ...]:
    """One number of pages, or a list of them. Raises CurveError."""
    found = value if isinstance(value, list | tuple) else [value]
    if not 1 <= len(found) <= MOST_SAMPLES:
        raise CurveError(f"{what}: {len(found)} samples, must be 1 to {MOST_SAMPLES}")
    return tuple(round(number(one, what, 0, 2**52)) for one in found)


def curve_of(points: Points, ram_pages: int) -> CurveSamples:
    """Raises CurveError for times that do not rise, pages that fall, or more of them than there are."""
    if not 1 <= len(points) <= MOST_POINTS:
        raise CurveError(f"{len(points)} points, must be 1 to {MOST_POINTS}")
    before_at, before = 0.0, 0.0
    for at, pages in points:
        if not before_at < number(at, "seconds", 0, LONGEST_SECONDS):
            raise CurveError(f"seconds: {at:g} after {before_at:g}; times must be above 0 and rise")
        if max(pages) > ram_pages:
            size = show_size(ram_pages * PAGE_BYTES)
            raise CurveError(
                f"pages: {max(pages)} at {at:g} s are more than the {ram_pages} of {size} of RAM"
            )
        mean = fmean(pages)
        if mean < before * (1 - NOISE):
            raise CurveError(f"pages: {mean:.0f} at {at:g} s after {before:.0f}; a dirty curve does not fall")
        before_at, before = at, max(before, mean)
    return CurveSamples(tuple(at for at, _ in points), tuple(pages for _, pages in points))


def merged(found: Iterable[tuple[float, int]]) -> Points:
    """Single samples at any times, in any order: those of nearly one time make one point."""
    groups: list[list[tuple[float, int]]] = []
    for at, pages in sorted(found):
        if groups and at < groups[-1][0][0] * SAME_TIME:
            groups[-1].append((at, pages))
        else:
            groups.append([(at, pages)])
    return [(fmean(at for at, _ in group), tuple(pages for _, pages in group)) for group in groups]


def rounds_seen(rounds: list[dict[str, Any]]) -> list[tuple[float, int]]:
    """What a run saw: how many pages were dirty when a round was over. A throttled guest had so much less
    time. Raises KeyError, TypeError, CurveError for what is no result of a run."""
    found = []
    for one in rounds:
        if one["paused"] or one["dirty_pages"] is None:
            continue
        seconds = number(one["duration_ms"], "duration_ms", 0, LONGEST_SECONDS * 1e3) / 1e3
        ran = 1 - number(one["throttle_percent"], "throttle_percent", 0, 99) / 100
        if seconds * ran > 0:
            found.append((seconds * ran, samples(one["dirty_pages"], "dirty_pages")[0]))
    return found
