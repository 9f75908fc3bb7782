"""Workers that stand still while their coordinator runs: stopped by somebody, or held by the kernel."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

STUCK_SECONDS = 5.0
LOOK_SECONDS = 1.0

STATES = {
    "T": "has been stopped (SIGSTOP) for 5 s, and would hold the run up for ever",
    "t": "has been held by a tracer for 5 s, and would hold the run up for ever",
    "D": "has been waiting in the kernel for 5 s (state D): dmesg may name a device or file system",
}
"""States of proc(5), stat, in which a process does nothing."""


class Standstill:
    """Looks once a second. A job that is stopped as a whole (Ctrl-Z) just goes on later: then its coordinator
    did not look for a while, and everybody's time begins anew."""

    def __init__(self) -> None:
        self._looked_at = time.monotonic()
        self._since: dict[int, tuple[str, float]] = {}

    def look(self, pids: Iterable[int]) -> tuple[int, str] | None:
        """A process that has stood still for too long, and how; None when there is none."""
        now = time.monotonic()
        passed = now - self._looked_at
        if passed < LOOK_SECONDS:
            return None
        self._looked_at = now
        if passed > 2 * LOOK_SECONDS + 1:
            self._since = {}
        found: dict[int, tuple[str, float]] = {}
        for pid in pids:
            state = _state(pid)
            if state in STATES:
                before = self._since.get(pid)
                found[pid] = before if before is not None and before[0] == state else (state, now)
        self._since = found
        for pid, (state, since) in found.items():
            if now - since >= STUCK_SECONDS:
                return pid, STATES[state]
        return None


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
