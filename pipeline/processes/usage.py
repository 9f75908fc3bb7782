"""CPU seconds, page faults and memory of one process, and of one side of a run."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from guestmem.ipc import Message


@dataclass(frozen=True)
class Usage:
    """What a process used, or a sum or difference of such figures (getrusage(2)).

    `cpu_seconds` is user and system time. `minor_faults` needed no I/O: first touches.
    """

    cpu_seconds: float = 0.0
    minor_faults: int = 0
    major_faults: int = 0
    involuntary_switches: int = 0

    @classmethod
    def now(cls) -> Usage:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return cls(used.ru_utime + used.ru_stime, used.ru_minflt, used.ru_majflt, used.ru_nivcsw)

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))


@dataclass
class SideFigures:
    """What one side used inside the clock, and the most private memory one of its processes has."""

    usage: Usage = field(default_factory=Usage)
    private_bytes_max: int = 0

    def add(self, usage: Usage, private: int) -> None:
        self.usage = self.usage + usage
        self.private_bytes_max = max(self.private_bytes_max, private)


def cpu_seconds_of(pid: int | str) -> float:
    """User and system time of a process so far, threads that have ended included (proc(5), stat 14 and 15),
    in the kernel's steps of 10 ms; of `PID/task/TID`, of that thread. Raises OSError."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def private_bytes() -> int:
    """This process's resident anonymous memory: what it holds beside files and shared memory.

    RssAnon of proc(5). After `fork` it still counts pages shared with the parent, so it is an
    upper bound of what is private.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def usage_message(before: Usage, fallback_reason: str) -> Message:
    """What a worker says at its end: what it used since `before`, and why software did QAT's work."""
    return {
        "kind": "usage",
        "private_bytes": private_bytes(),
        "fallback_reason": fallback_reason,
        **asdict(Usage.now() - before),
    }


def usage_of(message: Message) -> Usage:
    """The figures in a `usage_message`."""
    return Usage(**{item.name: message[item.name] for item in fields(Usage)})


def figures_of(messages: Iterable[Message]) -> tuple[SideFigures, set[str]]:
    """What workers used together, and their reasons for software."""
    figures, reasons = SideFigures(), set()
    for message in messages:
        figures.add(usage_of(message), int(message["private_bytes"]))
        reasons.add(str(message["fallback_reason"]))
    return figures, reasons - {""}
