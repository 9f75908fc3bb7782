"""QEMU's own limit, which it exceeds by packets under way."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.forecast.by_qemu import OF_QEMU, plan_of_vm
from pipeline.forecast.packet_size import PACKET_BYTES
from pipeline.forecast.qemu_limit import WINDOW_SECONDS, passed_bytes_per_second
from pipeline.forecast.rounds import walk
from pipeline.forecast.situation import Plan
from pipeline.policy import PolicySettings
from tests.pipeline.forecast.test_forecast import case

MB = 1e6


def test_what_qemu_was_seen_to_send() -> None:
    """Two channels, QEMU 10.0.2, plain pages: 23.6 MB/s at a limit of 12.5, and 51.3 at 40."""
    assert passed_bytes_per_second(12.5 * MB, 2, PACKET_BYTES) == pytest.approx(23.6 * MB, rel=0.01)
    assert passed_bytes_per_second(40 * MB, 2, PACKET_BYTES) == pytest.approx(51.3 * MB, rel=0.05)


@given(st.floats(1e5, 1e10), st.integers(1, 16), st.floats(1e3, PACKET_BYTES))
def test_never_less_than_the_limit_nor_more_than_the_packets_under_way(
    limit: float, channels: int, packet: float
) -> None:
    found = passed_bytes_per_second(limit, channels, packet)
    assert limit <= found <= limit + (channels + 1) * packet / WINDOW_SECONDS


def test_packets_of_nothing_pass_as_they_may() -> None:
    assert passed_bytes_per_second(1 * MB, 2, 0.0) == 1 * MB


def test_the_link_decides_where_it_is_slower_than_what_passes() -> None:
    slow = case(link=5 * MB)
    limited = replace(slow, resources=replace(slow.resources, qemu_limit_bytes_per_second=12.5 * MB))
    assert walk(limited).total_ms == walk(slow).total_ms
    unlimited = replace(limited, resources=replace(limited.resources, link_bytes_per_second=0.0))
    assert walk(unlimited).total_ms < walk(case(link=12.5 * MB)).total_ms


def test_the_relay_keeps_to_a_limit_that_qemu_exceeds() -> None:
    plan = Plan(2, 2, 100 * MB, PolicySettings(), qemu_limit_bytes_per_second=10 * MB)
    for method in OF_QEMU:
        assert plan_of_vm(plan, method).qemu_limit_bytes_per_second == 10 * MB
        assert plan_of_vm(plan, method).policy.policy == "qemu"
    by_relay = plan_of_vm(plan, "lz4")
    assert (by_relay.link_bytes_per_second, by_relay.qemu_limit_bytes_per_second) == (10 * MB, 0.0)
