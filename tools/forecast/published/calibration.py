"""The figures of two published hosts, computed from four rows of the thread: of each host one of zstd and one
of qatzip. Each row gives four numbers: total time, throughput, and the CPU of both sides.

What is taken from elsewhere is in the constants below, each with its source. What is solved for:

- normal pages of a host: the wire bytes of its zstd row times zstd's ratio on Silesia; the rest is zero;
- zstd's CPU a byte from the time of its row, in which every channel's CPU is full; its decompression from the
  receiver's CPU; zlib's from zstd's, by what zstd's README says of both;
- CPU of a QATzip sender and receiver a byte, a line in the number of channels, through both hosts' qatzip
  rows: it is QEMU's and QATzip's same code on both;
- a device's rate and a packet's latency, together: a row with a device for each channel gives the latency, a
  row with many channels a device the rate. Both hosts are taken to have devices of one kind.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline.auto.chooser import RECEIVE_NS, SEND_NS
from pipeline.errors import UsageError
from pipeline.forecast.beside import SCAN_NS
from pipeline.forecast.host_profile import Calibration, CodecSpeed, HostProfile, HostRows
from pipeline.forecast.qat_device import PACKET_BYTES, QatDevice
from tools.compare.published import PublishedRow
from tools.forecast.published.rows import ns_per_byte, row_named, wire_bytes

RAM_BYTES = 64 << 30
"""Both hosts' VM, by the cover letter and by the review."""

ZSTD_RATIO, ZLIB_RATIO = 2.896, 2.743
ZLIB_OVER_ZSTD_COMPRESS, ZLIB_OVER_ZSTD_DECOMPRESS = 510 / 105, 1550 / 390
"""Level 1 of each on the Silesia corpus by lzbench, and how many times longer zlib takes: the table in the
README of github.com/facebook/zstd (zstd 1.5.7, zlib 1.3.1, Core i7-9700K). The review points to lzbench."""

COPY_NS = 0.1
"""A byte copied in memory: 10 GB/s, common to servers of this kind."""

COPY_SHARE = 80 / 125
"""Of a QATzip receiver's CPU, copies into the VM's RAM with their page faults: the review's analysis, 3.2
(of 125 % of CPU about 80)."""

SLOWEST, FASTEST = 1e8, 1e12
"""Bytes a second, between which a device's rate is looked for."""

STEPS = 60
"""Each halves the logarithm of what is left between them: 1e-17 of it."""


@dataclass(frozen=True)
class Calibrated:
    """A profile with its figures, and what its guest's RAM held. `wire_shares` by method, of normal bytes."""

    profile: HostProfile
    normal_bytes: float
    wire_shares: dict[str, float]


@dataclass(frozen=True)
class _HostRow:
    """A host's qatzip row with what is known of it."""

    row: PublishedRow
    devices: int
    normal_bytes: float

    @property
    def held_ns(self) -> float:
        """How long a channel has a byte."""
        return self.row.channels * self.row.total_ms * 1e6 / self.normal_bytes

    @property
    def send_ns(self) -> float:
        return ns_per_byte(self.row.send_cpu, self.row, self.normal_bytes)

    @property
    def recv_ns(self) -> float:
        return ns_per_byte(self.row.recv_cpu, self.row, self.normal_bytes)

    @property
    def crowd(self) -> float:
        """Channels a device."""
        return self.row.channels / self.devices


def calibrated(profile: HostProfile) -> Calibrated:
    """A profile whose speeds are computed. Raises UsageError for rows that do not tell what is needed."""
    assert profile.calibration is not None
    calibration = profile.calibration
    hosts = {name: _host_row(rows) for name, rows in calibration.hosts.items()}
    own, named = hosts[calibration.own], calibration.hosts[calibration.own]
    device = _device(list(hosts.values()))
    payload = wire_bytes(own.row) / own.normal_bytes
    zstd_row = row_named(named.codec)
    zstd = _zstd(zstd_row, own.normal_bytes, device.fault_ns)
    zlib = CodecSpeed(
        "zlib",
        1,
        zstd.compress_ns * ZLIB_OVER_ZSTD_COMPRESS,
        zstd.decompress_ns * ZLIB_OVER_ZSTD_DECOMPRESS,
    )
    qat = replace(device, devices=own.devices, payload_over_zlib=payload * ZLIB_RATIO)
    shares = {"none": 1.0, "zlib": 1 / ZLIB_RATIO, "zstd": 1 / ZSTD_RATIO, "qatzip": payload}
    return Calibrated(replace(profile, codecs=(zstd, zlib), qat=qat), own.normal_bytes, shares)


def with_rows(profile: HostProfile, hosts: dict[str, HostRows]) -> HostProfile:
    """The same host by other rows."""
    assert profile.calibration is not None
    return replace(profile, calibration=replace(profile.calibration, hosts=hosts))


def rows_used(calibration: Calibration) -> list[str]:
    """The four, by name."""
    return [name for rows in calibration.hosts.values() for name in (rows.codec, rows.device)]


def _host_row(rows: HostRows) -> _HostRow:
    codec, device = row_named(rows.codec), row_named(rows.device)
    if codec.method != "zstd" or device.method != "qatzip":
        raise UsageError("calibration: codec must name a row of zstd, device one of qatzip")
    return _HostRow(device, rows.devices, min(RAM_BYTES, wire_bytes(codec) * ZSTD_RATIO))


def _zstd(row: PublishedRow, normal_bytes: float, fault_ns: float) -> CodecSpeed:
    scan = SCAN_NS * RAM_BYTES / normal_bytes
    held = row.channels * row.total_ms * 1e6 / normal_bytes
    recv = ns_per_byte(row.recv_cpu, row, normal_bytes)
    found = CodecSpeed("zstd", 1, held - SEND_NS - scan, recv - RECEIVE_NS - fault_ns)
    if min(found.compress_ns, found.decompress_ns) <= 0:
        raise UsageError(f"calibration: the row of {row.channels} channels tells no speed of zstd")
    return found


def _device(hosts: list[_HostRow]) -> QatDevice:
    """Everything but how many there are."""
    lone, crowded = sorted(hosts, key=lambda host: host.crowd)
    few, many = sorted(hosts, key=lambda host: host.row.channels)
    if lone.crowd > 1 or crowded.crowd <= 1 or few.row.channels == many.row.channels:
        raise UsageError(
            "calibration: needs a qatzip row with no more channels than devices, and one with more"
        )
    more = many.row.channels - few.row.channels
    send_slope, recv_slope = ((many.send_ns - few.send_ns) / more, (many.recv_ns - few.recv_ns) / more)
    recv_base = few.recv_ns - recv_slope * few.row.channels
    fault = min(max(0.0, few.recv_ns * COPY_SHARE - COPY_NS), max(0.0, recv_base - COPY_NS))
    draft = QatDevice(
        devices=1,
        device_bytes_per_second=FASTEST,
        latency_us=0.0,
        send_cpu_ns=few.send_ns - send_slope * few.row.channels,
        send_cpu_ns_per_channel=send_slope,
        recv_cpu_ns=recv_base - fault,
        fault_ns=fault,
        fault_ns_per_channel=recv_slope,
    )
    return _solved(draft, lone, crowded)


def _solved(draft: QatDevice, lone: _HostRow, crowded: _HostRow) -> QatDevice:
    """Rate and latency with which both rows take as long as they took."""
    slow, fast = SLOWEST, FASTEST
    for _ in range(STEPS):
        middle = (slow * fast) ** 0.5
        if _held_ns(_with_rate(draft, middle, lone), crowded) > crowded.held_ns:
            slow = middle
        else:
            fast = middle
    if fast >= FASTEST * 0.99 or slow <= SLOWEST * 1.01:
        raise UsageError("calibration: no device explains both qatzip rows")
    return _with_rate(draft, fast, lone)


def _with_rate(draft: QatDevice, rate: float, lone: _HostRow) -> QatDevice:
    """The latency follows from the row in which nobody queues."""
    device = replace(draft, device_bytes_per_second=rate)
    missing_ns = lone.held_ns - _held_ns(device, lone)
    return replace(device, latency_us=max(0.0, missing_ns * PACKET_BYTES / 1e3))


def _held_ns(device: QatDevice, host: _HostRow) -> float:
    """How long the slower side has a byte a channel, by the model."""
    channels = host.row.channels
    load = replace(device, devices=host.devices).load(channels, channels, prealloc=False)
    return max(load.send_ns + load.send_wait_ns, load.recv_ns + load.recv_wait_ns)
