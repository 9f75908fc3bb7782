"""How many of the host's CPUs a VM keeps busy: the time of its virtual CPUs' threads."""

from __future__ import annotations

import time

from pipeline.processes.usage import cpu_seconds_of
from pipeline.qemu.commands import Commands
from pipeline.qemu.monitor import MonitorError


class Vcpus:
    """From its making on. Without QEMU's process id, or where that is another host's, nothing is known."""

    def __init__(self, monitor: Commands, pid: int | None) -> None:
        self._tasks: list[str] = []
        if pid is not None:
            try:
                found = monitor.run("query-cpus-fast")
                self._tasks = [f"{pid}/task/{one['thread-id']}" for one in found]
            except MonitorError:
                pass
        self._began, self._before = time.monotonic(), self._seconds()

    def busy(self) -> float:
        """CPUs on the average; 0 where it is not known."""
        seconds = time.monotonic() - self._began
        return max(0.0, self._seconds() - self._before) / seconds if seconds else 0.0

    def _seconds(self) -> float:
        try:
            return sum(map(cpu_seconds_of, self._tasks))
        except OSError:
            self._tasks = []
            return 0.0
