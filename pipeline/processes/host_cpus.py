"""How busy all CPUs of this host are: proc(5), /proc/stat."""

from __future__ import annotations

from pathlib import Path

STAT = Path("/proc/stat")
IDLE, IOWAIT = 3, 4
LEAST_TICKS = 8
"""Of all CPUs together: less is no measurement."""


class HostCpus:
    """Idle time between two questions."""

    def __init__(self) -> None:
        self._idle, self._all = _ticks()
        self._share = 1.0

    def idle_share(self) -> float:
        """Of the CPUs' time since the last question that is long enough ago; 1.0 where nobody can tell."""
        idle, whole = _ticks()
        if whole - self._all >= LEAST_TICKS:
            self._share = (idle - self._idle) / (whole - self._all)
            self._idle, self._all = idle, whole
        return self._share


def _ticks() -> tuple[int, int]:
    """Idle, and all but what is a guest's, which counts as user time as well."""
    try:
        with STAT.open(encoding="ascii") as file:
            fields = [int(field) for field in file.readline().split()[1:9]]
        return fields[IDLE] + fields[IOWAIT], sum(fields)
    except (OSError, ValueError, IndexError):
        return 0, 0
