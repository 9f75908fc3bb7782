"""Workers that stand still while their coordinator runs: stopped by somebody, or held by the kernel."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

LOOK_SECONDS = 1.0

STATES = {
    "T": (5.0, "has been stopped (SIGSTOP) for 5 s, and would hold the run up for ever"),
    "t": (5.0, "has been held by a tracer for 5 s, and would hold the run up for ever"),
    "D": (30.0, "has been waiting in the kernel for 30 s (state D): dmesg may name a device or file system"),
}
"""States of proc(5), stat, in which a process does nothing; after how many seconds that is too long."""

WORK = (7, 9, 11, 12)
"""minflt, majflt, utime and stime, counted from the state: where memory or a disk is slow a process is seen
in D again and again, and goes on all the same."""


class Standstill:
    """Looks once a second. A job that is stopped as a whole (Ctrl-Z) just goes on later: then its coordinator
    did not look for a while, and everybody's time begins anew."""

    def __init__(self) -> None:
        self._looked_at = time.monotonic()
        self._since: dict[int, tuple[list[str], float]] = {}

    def look(self, pids: Iterable[int]) -> tuple[int, str] | None:
        """A process that has stood still for too long, and how; None when there is none."""
        now = time.monotonic()
        passed = now - self._looked_at
        if passed < LOOK_SECONDS:
            return None
        self._looked_at = now
        if passed > 2 * LOOK_SECONDS + 1:
            self._since = {}
        found: dict[int, tuple[list[str], float]] = {}
        for pid in pids:
            state = _state(pid)
            if state and state[0] in STATES:
                before = self._since.get(pid)
                found[pid] = before if before is not None and before[0] == state else (state, now)
        self._since = found
        for pid, (state, since) in found.items():
            seconds, words = STATES[state[0]]
            if now - since >= seconds:
                return pid, words
        return None


def _state(pid: int) -> list[str]:
    """The state, and what changes while a process does something; nothing when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return [fields[0], *(fields[at] for at in WORK)]
    except (OSError, IndexError):
        return []
