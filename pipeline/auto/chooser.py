"""Method auto: which two candidates the channels choose between, from what has been measured.

The time that a guest byte takes is the greatest of what the wire takes for it, what the CPUs of
this host take for both sides, and what the channels or the receivers take for their side:

    max(payload / wire rate, (compress + decompress) / CPUs, compress / channels, decompress / receivers)

Sending a share of the packets by one candidate and the rest by another makes each term a line in that
share, so the best mixture of two candidates lies where two lines meet. Only candidates on the lower hull
of payload against CPU can be part of it, and only neighbours on it need be tried. The channels then find
the share by themselves: they take the stronger candidate while the wire is busy (`pipeline.auto.picker`),
so a wrong figure here costs a poor pair, never an idle wire or an idle CPU.

An adaptive compressor that only climbs and descends one level at a time was the slowest of all in
XenServer's measurements (xapi pull request 4797); this one jumps to where the figures point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import combinations, pairwise

from pipeline.auto.candidates import QATZIP, Candidate

SEND_NS, RECEIVE_NS = 0.21, 0.18
"""CPU nanoseconds a byte beside the codec: copy, checksum, queue (method none, 2 GiB)."""

MEMORY_SECONDS = 1.0
"""What was measured loses half of its weight in this time."""

BIAS_STEP = 0.2
"""How fast a candidate's own deviation is learnt from samples in which it was used beside others."""

WORTH_SWITCHING = 0.03
"""A pair must promise to be faster by this share, or the choice stays."""

DEVICE_FIRST, DEVICE_ALONE = 1.1, 2.0
"""A QAT device gets as much to do as costs no more time than the first factor, unless the device by
itself is slower than the second: one that is there saves CPU, which these times do not show."""

BESIDE_PACKETS = 2.0
"""Packets of a channel that cross the wire while it compresses the next (`pipeline.source.channel`): a run of
raw packets up to this length is smoothed out."""

ENOUGH_BYTES = 1 << 20
"""Less than this in a sample is no measurement."""

SATURATED_SHARE, SLACK_SHARE = 0.97, 0.93
"""Of the time since the last sample that the wire was busy: it is the limit above, not below."""


@dataclass(frozen=True)
class Sample:
    """What happened since the last sample: by candidate, bytes and CPU; the wire's use.

    `waited_ns` is how long channels waited for a device without using their CPU.
    `wire_bytes_per_second` is what the wire carries while it is busy, None when nothing limits it.
    """

    seconds: float
    plain_bytes: tuple[int, ...]
    payload_bytes: tuple[int, ...]
    compress_ns: tuple[int, ...]
    waited_ns: tuple[int, ...]
    decompressed_bytes: dict[int, int]
    decompress_ns: dict[int, int]
    raw_packets: int
    raw_runs: int
    guest_bytes: int
    wire_bytes_per_second: float | None
    wire_busy_share: float


@dataclass(frozen=True)
class HostCounts:
    """What may work at once."""

    cpus: float
    channels: int
    receivers: int


@dataclass(frozen=True)
class Choice:
    """Indexes of the two candidates, and why. `seconds_per_byte` is what they promise."""

    faster: int
    stronger: int
    reason: str
    seconds_per_byte: float


@dataclass
class _Faded:
    """A weighted mean whose older values count less and less."""

    weight: float = 0.0
    total: float = 0.0

    def fade(self, factor: float) -> None:
        self.weight *= factor
        self.total *= factor

    def add(self, value: float, weight: float) -> None:
        self.weight += weight
        self.total += value * weight

    def mean(self, otherwise: float) -> float:
        return self.total / self.weight if self.weight else otherwise


@dataclass(frozen=True)
class Estimate:
    """What a candidate is believed to cost (CPU ns a byte, both sides) and to yield (payload a byte)."""

    send_ns: float
    receive_ns: float
    payload: float
    waited_ns: float = 0.0

    @property
    def cpu_ns(self) -> float:
        return self.send_ns + self.receive_ns


@dataclass
class Chooser:
    """Learns from samples; `decide` names the pair."""

    candidates: tuple[Candidate, ...]
    host: HostCounts
    choice: Choice = Choice(0, 0, "nothing limits yet: pages go as they are", 0.0)
    _shrinking: _Faded = field(default_factory=_Faded)
    _slowness: _Faded = field(default_factory=_Faded)
    _decode_slowness: _Faded = field(default_factory=_Faded)
    _raw: _Faded = field(default_factory=_Faded)
    _raw_run: _Faded = field(default_factory=_Faded)
    _waited: dict[int, _Faded] = field(default_factory=dict)
    _bias: list[list[float]] = field(default_factory=list)
    _cpus: float = 0.0

    def __post_init__(self) -> None:
        """Nothing is known yet."""
        self._bias = [[0.0, 0.0] for _ in self.candidates]
        self._cpus = self._most_cpus

    @property
    def _most_cpus(self) -> float:
        return float(min(self.host.cpus, self.host.channels + self.host.receivers))

    def decide(self, sample: Sample) -> Choice | None:
        """Learn from a sample; the new choice, or None when it stays."""
        self._learn(sample)
        if sample.wire_bytes_per_second is None:
            return None
        wire = sample.wire_bytes_per_second
        estimates = self.estimates()
        found = self._best(estimates, wire)
        current, _ = self._pair(estimates, self.choice.faster, self.choice.stronger, wire)
        same = (found.faster, found.stronger) == (self.choice.faster, self.choice.stronger)
        gained_enough = found.seconds_per_byte <= current * (1 - WORTH_SWITCHING)
        if same or not (gained_enough or self._has_device(self.choice) != self._has_device(found)):
            return None
        self.choice = found
        return found

    # ------------------------------------------------------------ learning

    def _learn(self, sample: Sample) -> None:
        fade = 0.5 ** (sample.seconds / MEMORY_SECONDS)
        for mean in (self._shrinking, self._slowness, self._decode_slowness, self._raw, self._raw_run):
            mean.fade(fade)
        self._learn_candidates(sample)
        for candidate in {candidate.method.code: candidate for candidate in self.candidates}.values():
            count = sample.decompressed_bytes.get(candidate.method.code, 0)
            if count >= ENOUGH_BYTES and candidate.decompress_ns:
                took = max(1, sample.decompress_ns[candidate.method.code]) / count
                slow = math.log(took / candidate.decompress_ns)
                self._decode_slowness.add(slow, count)
        tried = sum(sample.plain_bytes)
        if tried >= ENOUGH_BYTES:
            self._raw.add(sample.plain_bytes[0] / tried, tried)
            if sample.raw_packets:
                self._raw_run.add(sample.raw_packets / max(1, sample.raw_runs), sample.raw_packets)
        self._learn_cpus(sample)

    def _learn_candidates(self, sample: Sample) -> None:
        """How this memory differs from the one the candidates were measured on, and each from the rest.

        Shares are scaled in the exponent: memory that lz4 halves twice as well, zstd will too. What
        is in RAM changes faster than candidates are tried, so a candidate is only ever compared with those
        that were used within the same sample.
        """
        used = []
        for index, candidate in enumerate(self.candidates):
            plain = sample.plain_bytes[index]
            if index == 0 or plain < ENOUGH_BYTES:
                continue
            share = min(0.999, sample.payload_bytes[index] / plain)
            shrinking = math.log(share) / math.log(candidate.payload_share)
            slowness = math.log(max(1, sample.compress_ns[index]) / plain / candidate.compress_ns)
            used.append((index, plain, shrinking, slowness))
            self._waited.setdefault(index, _Faded()).add(sample.waited_ns[index] / plain, plain)
        if not used:
            return
        whole = sum(plain for _, plain, _, _ in used)
        shrinking = sum(p * (x - self._bias[i][0]) for i, p, x, _ in used) / whole
        slowness = sum(p * (y - self._bias[i][1]) for i, p, _, y in used) / whole
        self._shrinking.add(shrinking, whole)
        self._slowness.add(slowness, whole)
        if len(used) > 1:
            for index, _, x, y in used:
                bias = self._bias[index]
                bias[0] += BIAS_STEP * (x - shrinking - bias[0])
                bias[1] += BIAS_STEP * (y - slowness - bias[1])

    def _learn_cpus(self, sample: Sample) -> None:
        """The CPUs that we really get: fewer than there are where others run."""
        most = self._most_cpus
        faster, stronger = self.choice.faster, self.choice.stronger
        if faster == stronger or sample.guest_bytes < ENOUGH_BYTES:
            return
        used_stronger = sample.plain_bytes[stronger] / max(1, sum(sample.plain_bytes[1:]))
        if sample.wire_busy_share < SLACK_SHARE and used_stronger < 0.1:
            codec = sum(sample.compress_ns) + sum(sample.decompress_ns.values())
            busy = codec + (SEND_NS + RECEIVE_NS) * sample.guest_bytes
            self._cpus += (min(most, max(0.2, busy / sample.seconds / 1e9)) - self._cpus) / 2
        elif sample.wire_busy_share > SATURATED_SHARE and used_stronger > 0.9:
            self._cpus = min(most, self._cpus * 1.1)

    def see_cpus(self, cpus: float) -> None:
        """So many the codecs really got, while they had more to do than that and the wire had nothing."""
        self._cpus += (min(self._most_cpus, max(0.2, cpus)) - self._cpus) / 4

    def estimates(self) -> list[Estimate]:
        """What every candidate is believed to cost and yield on this memory."""
        shrinking, slowness = self._shrinking.mean(1.0), self._slowness.mean(0.0)
        decode = math.exp(self._decode_slowness.mean(0.0))
        found = [Estimate(SEND_NS, RECEIVE_NS, 1.0)]
        for index, candidate in enumerate(self.candidates[1:], 1):
            bias = self._bias[index]
            compress = candidate.compress_ns * math.exp(slowness + bias[1])
            payload = candidate.payload_share ** max(0.0, shrinking + bias[0])
            waited = self._waited[index].mean(0.0) if index in self._waited else candidate.waited_ns
            found.append(
                Estimate(SEND_NS + compress, RECEIVE_NS + candidate.decompress_ns * decode, payload, waited)
            )
        return found

    # ------------------------------------------------------------ choosing

    def _best(self, estimates: list[Estimate], wire: float) -> Choice:
        hull = lower_hull([(estimate.cpu_ns, estimate.payload) for estimate in estimates])
        pairs = list(pairwise(hull)) or [(0, 0)]
        best = min((self._pair(estimates, one, other, wire)[0], one, other) for one, other in pairs)
        if QATZIP in self.candidates:
            best = self._device_first(estimates, self.candidates.index(QATZIP), wire, best)
        seconds, faster, stronger = best
        return Choice(faster, stronger, self._reason(estimates, faster, stronger, wire), seconds)

    def _has_device(self, choice: Choice) -> bool:
        return QATZIP in (self.candidates[choice.faster], self.candidates[choice.stronger])

    def _device_first(
        self, estimates: list[Estimate], device: int, wire: float, best: tuple[float, int, int]
    ) -> tuple[float, int, int]:
        """The pair that gives the device the most to do and is hardly slower than the best of all."""
        if max(self._times(estimates[device], wire)) > best[0] * DEVICE_ALONE:
            return best
        found = []
        for other, estimate in enumerate(estimates):
            if other == device:
                continue
            device_is_stronger = estimate.payload > estimates[device].payload
            faster, stronger = (other, device) if device_is_stronger else (device, other)
            if estimates[faster].cpu_ns > estimates[stronger].cpu_ns:
                continue  # the channels would take it for what saves CPU
            seconds, share = self._pair(estimates, faster, stronger, wire)
            if seconds <= best[0] * DEVICE_FIRST:
                given = share if device_is_stronger else 1 - share
                found.append((given, -estimates[stronger].cpu_ns, (seconds, faster, stronger)))
        return max(found)[2] if found else best

    def _pair(
        self, estimates: list[Estimate], faster: int, stronger: int, wire: float
    ) -> tuple[float, float]:
        """Seconds a byte of the best mixture of two candidates, and the stronger one's share in it."""
        ends = self._times(estimates[faster], wire), self._times(estimates[stronger], wire)
        lines = [(a, b - a) for a, b in zip(*ends, strict=True)]
        shares = {0.0, 1.0}
        for (a, slope), (b, other) in combinations(lines, 2):
            if slope != other and 0 < (share := (b - a) / (slope - other)) < 1:
                shares.add(share)
        return min((max(start + slope * share for start, slope in lines), share) for share in shares)

    def _times(self, estimate: Estimate, wire: float) -> tuple[float, float, float, float]:
        """Seconds a byte of wire, CPUs, channels and receivers.

        Packets that travel raw count as far as they stand between others. A long run of them does
        not: the wire cannot carry it ahead of time, so while others are sent they do not help it.
        """
        raw_share = self._raw.mean(0.0) * min(1.0, BESIDE_PACKETS / self._raw_run.mean(BESIDE_PACKETS))
        tried = 1 - raw_share
        send = (tried * estimate.send_ns + raw_share * SEND_NS) / 1e9
        receive = (tried * estimate.receive_ns + raw_share * RECEIVE_NS) / 1e9
        payload = tried * estimate.payload + raw_share
        held = send + tried * estimate.waited_ns / 1e9
        host = self.host
        return payload / wire, (send + receive) / self._cpus, held / host.channels, receive / host.receivers

    def _reason(self, estimates: list[Estimate], faster: int, stronger: int, wire: float) -> str:
        parts = self._times(estimates[faster], wire)
        limit = ("the wire", "the CPUs", "the channels", "the receivers")[parts.index(max(parts))]
        strong = estimates[stronger]
        return (
            f"the wire carries {wire / 1e6:.0f} MB/s; with {self.candidates[faster].name} {limit} would be "
            f"the limit ({1e-6 / max(parts):.0f} guest MB/s), {self.candidates[stronger].name} would take "
            f"{strong.payload:.2f} wire bytes a byte for {strong.cpu_ns:.1f} ns of CPU"
        )


def lower_hull(points: list[tuple[float, float]]) -> list[int]:
    """Indexes of the points on the lower left hull, by growing x: more x must mean less y."""
    hull: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: points[i]):
        if hull and points[index][1] >= points[hull[-1]][1]:
            continue
        while len(hull) >= 2 and not _turns(points[hull[-2]], points[hull[-1]], points[index]):
            hull.pop()
        hull.append(index)
    return hull


def _turns(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """Whether b lies below the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) < (c[1] - a[1]) * (b[0] - a[0])
