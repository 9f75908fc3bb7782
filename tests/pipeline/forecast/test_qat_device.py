"""The device model: channels that queue before engines."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.forecast.qat_device import PACKET_BYTES, QatDevice

DEVICE = QatDevice(devices=1, device_bytes_per_second=4e9, latency_us=50.0, send_cpu_ns=0.2, recv_cpu_ns=0.3)


def rate(device: QatDevice, channels: int, think_ns: float = 0.2) -> float:
    """Bytes a second through all channels."""
    return channels / (think_ns + device.wait_ns(channels, think_ns)) * 1e9


def test_a_lone_channel_waits_for_its_own_packet_only() -> None:
    alone = 50e-6 + PACKET_BYTES / 4e9
    assert DEVICE.wait_ns(1, 0.2) == pytest.approx(alone / PACKET_BYTES * 1e9)


def test_many_channels_get_what_the_device_carries() -> None:
    assert rate(DEVICE, 64) == pytest.approx(4e9, rel=0.02)
    assert rate(replace(DEVICE, devices=4), 256) == pytest.approx(16e9, rel=0.02)


@given(st.integers(1, 40), st.integers(1, 6), st.floats(0, 3), st.floats(1e8, 1e11), st.floats(0, 1000))
@settings(max_examples=100, deadline=None)
def test_more_channels_or_devices_never_carry_less_and_never_more_than_there_is(
    channels: int, devices: int, think_ns: float, speed: float, latency_us: float
) -> None:
    device = replace(DEVICE, devices=devices, device_bytes_per_second=speed, latency_us=latency_us)
    found = rate(device, channels, think_ns)
    assert found <= devices * speed * (1 + 1e-9)
    assert found <= rate(device, channels + 1, think_ns) * (1 + 1e-9)
    assert found <= rate(replace(device, devices=devices + 1), channels, think_ns) * (1 + 1e-9)


def test_a_packet_as_one_request_has_one_engine() -> None:
    """Alone it takes as many times longer as there are engines; many of them fill the device all the same."""
    whole = replace(DEVICE, latency_us=0.0, request_bytes=PACKET_BYTES)
    cut = replace(DEVICE, latency_us=0.0)
    assert whole.wait_ns(1, 0.0) == pytest.approx(8 * cut.wait_ns(1, 0.0))
    assert rate(whole, 128) == pytest.approx(4e9, rel=0.1)


def test_small_requests_cost_their_set_up() -> None:
    pages = replace(DEVICE, latency_us=0.0, request_bytes=4096, request_us=2.0)
    assert pages.packet_seconds == pytest.approx(PACKET_BYTES / 4e9 + 128 * 2e-6 / 8)


def test_a_short_queue_leaves_engines_idle() -> None:
    assert replace(DEVICE, queue_requests=2).wait_ns(1, 0.2) > DEVICE.wait_ns(1, 0.2)
    assert replace(DEVICE, queue_requests=32).wait_ns(1, 0.2) == DEVICE.wait_ns(1, 0.2)


def test_channels_without_an_instance_bring_nothing() -> None:
    few = replace(DEVICE, instances=2, latency_us=500.0)
    assert rate(few, 8) == pytest.approx(rate(few, 2))


def test_a_destination_without_prealloc_pays_for_first_touches() -> None:
    device = replace(DEVICE, fault_ns=0.2, fault_ns_per_channel=0.1)
    with_pages, without = (device.load(4, 4, prealloc=prealloc) for prealloc in (True, False))
    assert without.recv_ns - with_pages.recv_ns == pytest.approx(0.2 + 4 * 0.1)
    assert without.send_ns == with_pages.send_ns
