"""Method auto in a run: samples at what the workers measured, asks the chooser, publishes, reports."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

from guestmem.page import PAGE_BYTES
from pipeline.auto.candidates import QATZIP, Candidate
from pipeline.auto.chooser import Choice, Chooser, HostCounts, Sample
from pipeline.auto.statistics import Cells, Received, Sent, Statistics
from pipeline.packets.counters import Count, Counters
from pipeline.packets.pacing import Wire, WireUse
from pipeline.processes.cgroup import usable_cpus

FIRST_SAMPLES_SECONDS = 0.02
SAMPLE_SECONDS = 0.05
START = "zstd 1"
"""What is taken for packets of a wire whose speed is not known yet: two thirds are saved for 2 ns a byte."""

SETTLING_SECONDS = 0.5
"""Samples are closer together at first: the choice settles within a second."""


@dataclass(frozen=True)
class Switch:
    """One change of the choice."""

    at_ms: float
    faster: str
    stronger: str
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
        self, candidates: tuple[Candidate, ...], channels: int, receivers: int, sent: Counters, wire: Wire
    ) -> None:
        """Create what is shared. Raises OSError."""
        self.candidates = candidates
        self.statistics = Statistics(channels, receivers, len(candidates))
        self.switches: list[Switch] = []
        self._sent = sent
        self._wire = wire
        host = HostCounts(usable_cpus(), channels, receivers)
        self._chooser = Chooser(candidates, host)
        cpu_only = [index for index, candidate in enumerate(candidates) if candidate is not QATZIP]
        self._on_cpu = cpu_only
        self._chooser_on_cpu = Chooser(tuple(candidates[index] for index in cpu_only), host)
        self._start = next(
            (index for index, candidate in enumerate(candidates) if candidate.name == START),
            len(candidates) - 1,
        )
        self._began = 0.0
        self._sampled_at = 0.0

    def begin(self) -> None:
        """The clock starts. A limit that the user set is believed before the first packet."""
        self._began = self._sampled_at = time.monotonic()
        self._before = self._snapshot()
        limit = self._wire.limit_bytes_per_second
        nothing = self._difference(self._before, self._before, FIRST_SAMPLES_SECONDS)
        self._choose(dataclasses.replace(nothing, wire_bytes_per_second=limit or None))

    @property
    def step_seconds(self) -> float:
        """How long to wait until the next sample."""
        settling = time.monotonic() - self._began < SETTLING_SECONDS
        return FIRST_SAMPLES_SECONDS if settling else SAMPLE_SECONDS

    def see_cpus(self, cpus: float) -> None:
        """As the chooser has it."""
        self._chooser.see_cpus(cpus)
        self._chooser_on_cpu.see_cpus(cpus)

    def sample(self) -> None:
        """Publish a new choice if what was measured since the last sample asks for one."""
        now = time.monotonic()
        if now - self._sampled_at < FIRST_SAMPLES_SECONDS / 2:
            return
        after = self._snapshot()
        sample = self._difference(self._before, after, now - self._sampled_at)
        self._before, self._sampled_at = after, now
        self._choose(sample)

    def _choose(self, sample: Sample) -> None:
        choice = self._chooser.decide(sample)
        on_cpu = self._decide_on_cpu(sample) if QATZIP in self.candidates else self._chooser.choice
        if choice is not None:
            names = self.candidates[choice.faster].name, self.candidates[choice.stronger].name
            at_ms = (self._sampled_at - self._began) * 1e3
            self.switches.append(Switch(at_ms, *names, choice.reason))
        pairs = self._cautious(self._chooser.choice), self._cautious(on_cpu)
        self.statistics.choice[:] = bytes(index for pair in pairs for index in pair)

    def _cautious(self, choice: Choice) -> tuple[int, int]:
        """The pair to publish. While nobody knows the wire's speed, a packet for which it has no time is
        compressed: raw, the first megabytes alone would hold a slow link for half a minute."""
        if self._wire.is_unknown() and choice.stronger == 0:
            return choice.faster, self._start
        return choice.faster, choice.stronger

    def _decide_on_cpu(self, sample: Sample) -> Choice:
        """What a channel without a device of its own should do: the same, without that candidate."""
        pick = self._on_cpu
        self._chooser_on_cpu.decide(
            dataclasses.replace(
                sample,
                plain_bytes=tuple(sample.plain_bytes[index] for index in pick),
                payload_bytes=tuple(sample.payload_bytes[index] for index in pick),
                compress_ns=tuple(sample.compress_ns[index] for index in pick),
                waited_ns=tuple(sample.waited_ns[index] for index in pick),
            )
        )
        choice = self._chooser_on_cpu.choice
        return Choice(pick[choice.faster], pick[choice.stronger], choice.reason, choice.seconds_per_byte)

    def _snapshot(self) -> _Snapshot:
        normal = int(self._sent.totals()[Count.NORMAL_PAGES])
        return _Snapshot(
            self.statistics.sent_totals(),
            self.statistics.received_totals(),
            normal * PAGE_BYTES,
            self._wire.use(),
        )

    def _difference(self, before: _Snapshot, after: _Snapshot, seconds: float) -> Sample:
        sent, received = after.sent - before.sent, after.received - before.received
        use, earlier = after.use, before.use
        busy, idle = use.busy_ns - earlier.busy_ns, use.idle_ns - earlier.idle_ns
        # Only a device is waited for: what a CPU codec's wall time has above its CPU is others' work.
        waited = [
            max(0, int(sent[index, Sent.WALL_NS] - sent[index, Sent.CPU_NS])) if candidate is QATZIP else 0
            for index, candidate in enumerate(self.candidates)
        ]
        codes = {candidate.method.code for candidate in self.candidates}
        return Sample(
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
        """For the result: every switch with its reason, and what each candidate did.

        `guest_bytes` and `payload_bytes` of a candidate are those of the packets it compressed; of
        `none`, those that were tried and did not shrink.
        """
        totals = self.statistics.sent_totals()
        return {
            "switches": [
                {"at_ms": s.at_ms, "faster": s.faster, "stronger": s.stronger, "reason": s.reason}
                for s in self.switches
            ],
            "candidates": [
                {
                    "method": candidate.method_name,
                    "level": candidate.level if candidate.method.levels else None,
                    "packets": int(totals[index, Sent.PACKETS]),
                    "guest_bytes": int(totals[index, Sent.PLAIN_BYTES]),
                    "payload_bytes": int(totals[index, Sent.PAYLOAD_BYTES]),
                    "compress_cpu_seconds": totals[index, Sent.CPU_NS] / 1e9,
                }
                for index, candidate in enumerate(self.candidates)
                if totals[index, Sent.PACKETS]
            ],
        }
