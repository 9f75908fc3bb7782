"""Method auto's choice, on modelled hosts, wires and memory: no process, no clock."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.auto.candidates import CPU_CANDIDATES, NONE, QATZIP, Candidate
from pipeline.auto.chooser import RECEIVE_NS, SEND_NS, Choice, Chooser, HostCounts, Sample, lower_hull

LOOK_SECONDS = 0.05
RUNGS = (NONE, *CPU_CANDIDATES)
MB = 1e6


@dataclass
class Model:
    """A host and a memory that differ from what the candidates say: what really happens with a pair."""

    wire: float | None
    cpus: float = 2.0
    slower: float = 1.0
    shrinking: float = 1.0
    raw_share: float = 0.0
    candidates: tuple[Candidate, ...] = RUNGS
    noise: float = 0.0
    random: random.Random = field(default_factory=lambda: random.Random(1))

    def payload(self, candidate: Candidate) -> float:
        return float(self.raw_share + (1 - self.raw_share) * candidate.payload_share**self.shrinking)

    def seconds(self, candidate: Candidate) -> tuple[float, float]:
        """Wire and CPU seconds a byte."""
        codec = (candidate.compress_ns + candidate.decompress_ns) * self.slower * (1 - self.raw_share)
        wire = 0.0 if self.wire is None else self.payload(candidate) / self.wire
        return wire, (codec + SEND_NS + RECEIVE_NS) / 1e9 / self.cpus

    def mixture(self, faster: Candidate, stronger: Candidate) -> tuple[float, float]:
        """The share of the stronger candidate that channels come to by the wire's state, and the time."""
        (w0, c0), (w1, c1) = self.seconds(faster), self.seconds(stronger)
        share = 0.0
        if w0 > c0:
            share = 1.0 if w1 > c1 else (w0 - c0) / (w0 - c0 + c1 - w1)
        return share, max(w0 + share * (w1 - w0), c0 + share * (c1 - c0))

    def sample(self, choice: Choice) -> Sample:
        faster, stronger = self.candidates[choice.faster], self.candidates[choice.stronger]
        share, per_byte = self.mixture(faster, stronger)
        total = LOOK_SECONDS / per_byte
        plain = [0.0] * len(self.candidates)
        tried = total * (1 - self.raw_share)
        plain[choice.faster] += tried * (1 - share)
        plain[choice.stronger] += tried * share
        if choice.faster == 0:
            plain[0] = 0.0  # what is meant to go as it is, is not tried
        plain[0] += total * self.raw_share if choice.stronger else 0.0
        shaken = [1 + self.noise * self.random.uniform(-1, 1) for _ in self.candidates]
        (w0, _), (w1, _) = self.seconds(faster), self.seconds(stronger)
        codes = {candidate.method.code: candidate for candidate in self.candidates}
        decoded = dict.fromkeys(codes, 0)
        decode_ns = dict.fromkeys(codes, 0)
        for index, candidate in enumerate(self.candidates[1:], 1):
            decoded[candidate.method.code] += int(plain[index])
            decode_ns[candidate.method.code] += int(plain[index] * candidate.decompress_ns * self.slower)
        return Sample(
            seconds=LOOK_SECONDS,
            plain_bytes=tuple(int(p) for p in plain),
            payload_bytes=tuple(
                int(p * min(0.999, r.payload_share**self.shrinking * s))
                for p, r, s in zip(plain, self.candidates, shaken, strict=True)
            ),
            compress_ns=tuple(
                int(p * r.compress_ns * self.slower * s)
                for p, r, s in zip(plain, self.candidates, shaken, strict=True)
            ),
            waited_ns=(0,) * len(self.candidates),
            decompressed_bytes=decoded,
            decompress_ns=decode_ns,
            raw_packets=int(plain[0] / (512 << 10)),
            raw_runs=int(plain[0] / (512 << 10)),
            guest_bytes=int(total),
            wire_bytes_per_second=self.wire,
            wire_busy_share=min(1.0, (w0 + share * (w1 - w0)) / per_byte),
        )


def settle(model: Model, samples: int) -> tuple[Chooser, int]:
    chooser = Chooser(model.candidates, HostCounts(2, 2, 2))
    switches = 0
    for _ in range(samples):
        switches += chooser.decide(model.sample(chooser.choice)) is not None
    return chooser, switches


def best_fixed(model: Model) -> float:
    return min(max(model.seconds(candidate)) for candidate in model.candidates)


def reached(model: Model, chooser: Chooser) -> float:
    return model.mixture(model.candidates[chooser.choice.faster], model.candidates[chooser.choice.stronger])[
        1
    ]


@pytest.mark.parametrize("wire", [10, 25, 50, 100, 200, 400, 800, 1600, 3000])
@pytest.mark.parametrize("slower", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("shrinking", [0.3, 1.0, 1.8])
def test_a_second_is_enough_to_be_as_good_as_the_best_fixed_candidate(
    wire: int, slower: float, shrinking: float
) -> None:
    model = Model(wire * MB, slower=slower, shrinking=shrinking, noise=0.05)
    chooser, _ = settle(model, 20)
    assert reached(model, chooser) <= 1.05 * best_fixed(model)


@pytest.mark.parametrize("wire", [25, 100, 400, 800])
@pytest.mark.parametrize("raw_share", [0.0, 0.3, 0.9])
def test_it_does_not_flap(wire: int, raw_share: float) -> None:
    model = Model(wire * MB, raw_share=raw_share, noise=0.1)
    chooser, _ = settle(model, 20)
    more = sum(chooser.decide(model.sample(chooser.choice)) is not None for _ in range(400))
    assert more <= 4  # in twenty seconds


def test_without_a_limit_pages_go_as_they_are() -> None:
    chooser, switches = settle(Model(None), 100)
    assert (chooser.choice.faster, chooser.choice.stronger, switches) == (0, 0, 0)


def test_a_switch_says_why() -> None:
    model = Model(50 * MB)
    chooser = Chooser(model.candidates, HostCounts(2, 2, 2))
    choice = chooser.decide(model.sample(chooser.choice))
    assert choice is not None
    assert "wire carries 50 MB/s" in choice.reason
    assert model.candidates[choice.stronger].name in choice.reason


def test_a_device_that_costs_no_cpu_is_used_first() -> None:
    candidates = (NONE, QATZIP, *CPU_CANDIDATES)
    for wire in (25, 50, 100, 200, 400, 800):
        model = Model(wire * MB, candidates=candidates)
        chooser, _ = settle(model, 20)
        assert 1 in (chooser.choice.faster, chooser.choice.stronger)
        assert reached(model, chooser) <= 1.15 * best_fixed(model)


def test_a_device_that_is_slower_than_the_cpu_is_left_alone() -> None:
    slow = replace(QATZIP, waited_ns=40.0)
    candidates = (NONE, QATZIP, *CPU_CANDIDATES)
    model = Model(100 * MB, candidates=candidates)
    chooser = Chooser(candidates, HostCounts(2, 2, 2))
    for _ in range(40):
        sample = model.sample(replace(chooser.choice, stronger=chooser.choice.faster))
        waited = int(sample.plain_bytes[1] * slow.waited_ns)
        chooser.decide(replace(sample, waited_ns=(0, waited, *[0] * len(CPU_CANDIDATES))))
    assert 1 not in (chooser.choice.faster, chooser.choice.stronger)


def test_cpus_that_others_use_are_not_counted_on() -> None:
    model = Model(100 * MB, cpus=0.5)
    chooser, _ = settle(model, 40)
    assert reached(model, chooser) <= 1.10 * best_fixed(model)


@given(
    st.lists(st.tuples(st.floats(0.1, 1e3), st.floats(0.01, 1.0)), min_size=1, max_size=12),
)
def test_no_point_lies_below_the_hull(points: list[tuple[float, float]]) -> None:
    hull = lower_hull(points)
    assert min(points)[0] == points[hull[0]][0]
    assert min(y for _, y in points) == points[hull[-1]][1]
    for left, right in pairwise(hull):
        (x0, y0), (x1, y1) = points[left], points[right]
        assert x0 < x1
        assert y0 > y1
        for x, y in points:
            if x0 <= x <= x1:
                assert y >= y0 + (y1 - y0) * (x - x0) / (x1 - x0) - 1e-9
