"""Method auto in a run: looks at what the workers measured, asks the chooser, publishes, reports."""

from __future__ import annotations

import dataclasses
import os
import time
from dataclasses import dataclass
from typing import Any

from guestmem.segment import PAGE_BYTES
from pipeline.chooser import Choice, Chooser, Host, Look
from pipeline.counters import Count, Counters
from pipeline.ladder import QATZIP, Rung
from pipeline.pacing import Wire, WireUse
from pipeline.tally import Cells, Received, Sent, Tally

FIRST_LOOKS_SECONDS = 0.02
LOOK_SECONDS = 0.05
SETTLING_SECONDS = 0.5
"""Looks are closer together at first: the choice settles within a second."""


@dataclass(frozen=True)
class Switch:
    """One change of the choice."""

    at_ms: float
    lighter: str
    harder: str
    reason: str


@dataclass(frozen=True)
class _Snapshot:
    """All counts at one moment."""

    sent: Cells
    received: Cells
    guest_bytes: int
    use: WireUse


class Auto:
    """The coordinator's part of method auto."""

    def __init__(
        self, rungs: tuple[Rung, ...], channels: int, receivers: int, sent: Counters, wire: Wire
    ) -> None:
        """Create what is shared. Raises OSError."""
        self.rungs = rungs
        self.tally = Tally(channels, receivers, len(rungs))
        self.switches: list[Switch] = []
        self._sent = sent
        self._wire = wire
        host = Host(len(os.sched_getaffinity(0)), channels, receivers)
        self._chooser = Chooser(rungs, host)
        cpu_only = [index for index, rung in enumerate(rungs) if rung is not QATZIP]
        self._on_cpu = cpu_only
        self._chooser_on_cpu = Chooser(tuple(rungs[index] for index in cpu_only), host)
        self._began = 0.0
        self._looked_at = 0.0

    def begin(self) -> None:
        """The clock starts. A limit that the user set is believed before the first packet."""
        self._began = self._looked_at = time.monotonic()
        self._before = self._snapshot()
        limit = self._wire.limit_bytes_per_second
        nothing = self._difference(self._before, self._before, FIRST_LOOKS_SECONDS)
        self._choose(dataclasses.replace(nothing, wire_bytes_per_second=limit or None))

    @property
    def step_seconds(self) -> float:
        """How long to wait until the next look."""
        settling = time.monotonic() - self._began < SETTLING_SECONDS
        return FIRST_LOOKS_SECONDS if settling else LOOK_SECONDS

    def look(self) -> None:
        """Publish a new choice if what was measured since the last look asks for one."""
        now = time.monotonic()
        if now - self._looked_at < FIRST_LOOKS_SECONDS / 2:
            return
        after = self._snapshot()
        look = self._difference(self._before, after, now - self._looked_at)
        self._before, self._looked_at = after, now
        self._choose(look)

    def _choose(self, look: Look) -> None:
        choice = self._chooser.decide(look)
        on_cpu = self._decide_on_cpu(look) if QATZIP in self.rungs else self._chooser.choice
        if choice is not None:
            names = self.rungs[choice.lighter].name, self.rungs[choice.harder].name
            at_ms = (self._looked_at - self._began) * 1e3
            self.switches.append(Switch(at_ms, *names, choice.reason))
        current = self._chooser.choice
        self.tally.choice[:] = bytes((current.lighter, current.harder, on_cpu.lighter, on_cpu.harder))

    def _decide_on_cpu(self, look: Look) -> Choice:
        """What a channel without a device of its own should do: the same, without that rung."""
        pick = self._on_cpu
        self._chooser_on_cpu.decide(
            dataclasses.replace(
                look,
                plain_bytes=tuple(look.plain_bytes[index] for index in pick),
                payload_bytes=tuple(look.payload_bytes[index] for index in pick),
                compress_ns=tuple(look.compress_ns[index] for index in pick),
                waited_ns=tuple(look.waited_ns[index] for index in pick),
            )
        )
        choice = self._chooser_on_cpu.choice
        return Choice(pick[choice.lighter], pick[choice.harder], choice.reason, choice.seconds_per_byte)

    def _snapshot(self) -> _Snapshot:
        normal = int(self._sent.totals()[Count.NORMAL_PAGES])
        return _Snapshot(
            self.tally.sent_totals(), self.tally.received_totals(), normal * PAGE_BYTES, self._wire.use()
        )

    def _difference(self, before: _Snapshot, after: _Snapshot, seconds: float) -> Look:
        sent, received = after.sent - before.sent, after.received - before.received
        use, earlier = after.use, before.use
        busy, idle = use.busy_ns - earlier.busy_ns, use.idle_ns - earlier.idle_ns
        # Only a device is waited for: what a CPU codec's wall time has above its CPU is others' work.
        waited = [
            max(0, int(sent[index, Sent.WALL_NS] - sent[index, Sent.CPU_NS])) if rung is QATZIP else 0
            for index, rung in enumerate(self.rungs)
        ]
        codes = {rung.method.code for rung in self.rungs}
        return Look(
            seconds=seconds,
            plain_bytes=tuple(int(value) for value in sent[:, Sent.PLAIN_BYTES]),
            payload_bytes=tuple(int(value) for value in sent[:, Sent.PAYLOAD_BYTES]),
            compress_ns=tuple(int(value) for value in sent[:, Sent.CPU_NS]),
            waited_ns=tuple(waited),
            decompressed_bytes={code: int(received[code, Received.PLAIN_BYTES]) for code in codes},
            decompress_ns={code: int(received[code, Received.CPU_NS]) for code in codes},
            raw_packets=int(sent[0, Sent.PACKETS]),
            raw_runs=int(sent[0, Sent.RUNS]),
            guest_bytes=after.guest_bytes - before.guest_bytes,
            wire_bytes_per_second=use.bytes_per_second,
            wire_busy_share=busy / (busy + idle) if busy + idle else 0.0,
        )

    def record(self) -> dict[str, Any]:
        """For the result: every switch with its reason, and what each rung did.

        `guest_bytes` and `payload_bytes` of a rung are those of the packets it compressed; of
        `none`, those that were tried and did not shrink.
        """
        totals = self.tally.sent_totals()
        return {
            "switches": [
                {"at_ms": s.at_ms, "lighter": s.lighter, "harder": s.harder, "reason": s.reason}
                for s in self.switches
            ],
            "rungs": [
                {
                    "method": rung.method_name,
                    "level": rung.level if rung.method.levels else None,
                    "packets": int(totals[index, Sent.PACKETS]),
                    "guest_bytes": int(totals[index, Sent.PLAIN_BYTES]),
                    "payload_bytes": int(totals[index, Sent.PAYLOAD_BYTES]),
                    "compress_cpu_seconds": totals[index, Sent.CPU_NS] / 1e9,
                }
                for index, rung in enumerate(self.rungs)
                if totals[index, Sent.PACKETS]
            ],
        }
