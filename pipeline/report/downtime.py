"""How long the guest stood still, in its parts."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Downtime:
    """How long the guest stood still, in the parts that pass one after the other; their sum is the downtime.

    last_sync: the guest is asked to pause, has paused, and the log is fetched. last_send: the last
    pages are claimed, compressed and queued. last_apply: what is queued is decompressed into
    place. hand_over: the guest may run, and says so: at the destination, or, visited, here.
    """

    last_sync_ms: float
    last_send_ms: float
    last_apply_ms: float
    hand_over_ms: float

    @property
    def total_ms(self) -> float:
        return self.last_sync_ms + self.last_send_ms + self.last_apply_ms + self.hand_over_ms


class StandingStill:
    """How long the guest has been standing still, part by part (`Downtime`), and how long it may.

    Times are of the monotonic clock; `limit_ms` is the downtime limit of this moment.
    """

    def __init__(self, limit_ms: float) -> None:
        self.limit_ms = limit_ms
        self._began = self._since = time.monotonic()
        self._part = "last_sync"
        self._taken_ms = dict.fromkeys(("last_sync", "last_send", "last_apply", "hand_over"), 0.0)
        self._has_ended = False

    def reached(self, part: str, at: float | None = None) -> None:
        """The part before has ended, now or `at` an earlier time, and `part` begins; nothing after `end`."""
        if self._has_ended:
            return
        now = max(self._since, at if at is not None else time.monotonic())
        self._taken_ms[self._part] += (now - self._since) * 1e3
        self._part, self._since = part, now

    def end(self, at: float | None = None) -> None:
        """The guest runs again, since now or `at` an earlier time."""
        self.reached(self._part, at)
        self._has_ended = True

    def total_ms(self) -> float:
        """All of it so far."""
        self.reached(self._part)
        return sum(self._taken_ms.values())

    def is_over(self) -> bool:
        """Whether the limit has passed."""
        return (time.monotonic() - self._began) * 1e3 > self.limit_ms

    def downtime(self) -> Downtime:
        """The parts so far."""
        self.reached(self._part)
        return Downtime(**{f"{part}_ms": taken for part, taken in self._taken_ms.items()})

    def longest(self) -> tuple[str, float]:
        """The part that took longest, in words, and its milliseconds."""
        self.reached(self._part)
        part = max(self._taken_ms, key=lambda name: self._taken_ms[name])
        return part.replace("_", " "), self._taken_ms[part]
