"""Several runs in turn, so that what changes on the host meanwhile meets all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tools.measuring.progress import say

Results = dict[str, list[dict[str, Any]]]
"""The result documents of each run, in the order in which they were made."""


def in_turn(repeat: int, runs: Mapping[str, Callable[[], dict[str, Any]]]) -> Results:
    """Make every run, then all of them again, `repeat` times. Raises what a run raises."""
    results: Results = {name: [] for name in runs}
    for turn in range(1, repeat + 1):
        say(f"turn {turn} of {repeat}")
        for name, run in runs.items():
            result = run()
            results[name].append(result)
            say(f"  {name:24} {result['time']['total_ms'] or 0:8.0f} ms {result['status']}")
    return results
