"""What compression on Intel QAT takes: a closed queue of channels before engines. Pure arithmetic.

A channel works on a packet with its CPU (copy the pages, send), hands it to the device as requests, and waits
for all of them: QATzip's calls return when the data is there. So each channel has one packet under way, and
between its packets it thinks. How many packets a second come through, mean value analysis says: an arriving
packet finds the queue that there would be without its own channel (Reiser and Lavenberg, JACM 1980); several
servers are taken as one that is as fast and a delay (Seidmann, Schweitzer and Shalev-Oren, 1987).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

PACKET_BYTES = 128 * 4096
"""QEMU's packet and ours: 128 pages."""


@dataclass(frozen=True)
class Load:
    """Of a byte of normal pages: CPU nanoseconds of a side, and how long a channel of it waits besides."""

    send_ns: float
    send_wait_ns: float
    recv_ns: float
    recv_wait_ns: float


@dataclass(frozen=True)
class QatDevice:
    """The devices of a host. Both ends have such; compression and decompression are taken to be alike.

    Requests: `device_bytes_per_second` of guest memory is what all `engines` of one device compress together;
    `request_us` an engine needs for each request besides; `latency_us` a packet needs beside the engines
    (submission, DMA, polling). `request_bytes` is QATzip's hardware buffer, 64 KiB by default: a packet as
    one request uses one engine. At most `queue_requests` of a packet are with the device at once, and at
    most `instances` channels a device; 0 is no limit.

    CPU, nanoseconds a byte of normal pages, of all that a sender and a receiver do: `cpu_ns` of the copies
    and the rest, and so much more for each channel that works beside. `fault_ns`, and its share a channel,
    is what the destination's first touch of pages costs without prealloc.
    """

    devices: int
    device_bytes_per_second: float
    latency_us: float
    send_cpu_ns: float
    recv_cpu_ns: float
    send_cpu_ns_per_channel: float = 0.0
    recv_cpu_ns_per_channel: float = 0.0
    fault_ns: float = 0.0
    fault_ns_per_channel: float = 0.0
    engines: int = 8
    request_bytes: int = 65536
    request_us: float = 0.0
    queue_requests: int = 0
    instances: int = 0
    payload_over_zlib: float = 1.0

    def load(self, channels: int, receivers: int, *, prealloc: bool) -> Load:
        """With so many channels and receivers."""
        send = self.send_cpu_ns + self.send_cpu_ns_per_channel * channels
        recv = self.recv_cpu_ns + self.recv_cpu_ns_per_channel * receivers
        if not prealloc:
            recv += self.fault_ns + self.fault_ns_per_channel * receivers
        return Load(send, self.wait_ns(channels, send), recv, self.wait_ns(receivers, recv))

    def wait_ns(self, channels: int, think_ns: float) -> float:
        """How long a channel waits a byte, beside `think_ns` of its own CPU."""
        working = min(channels, self.devices * self.instances) if self.instances else channels
        whole, more = divmod(working, self.devices)
        rate = more * self._rate(whole + 1, think_ns) + (self.devices - more) * self._rate(whole, think_ns)
        return channels / rate * 1e9 - think_ns

    def _rate(self, channels: int, think_ns: float) -> float:
        """Bytes a second through one device from so many channels."""
        service = self.packet_seconds
        together = self._servers()
        think = think_ns * PACKET_BYTES / 1e9 + self.latency_us / 1e6 + service * (together - 1)
        packets_a_second, waiting = 0.0, 0.0
        for number in range(1, channels + 1):
            held = service * (1 + waiting)
            packets_a_second = number / (think + held)
            waiting = packets_a_second * held
        return packets_a_second * PACKET_BYTES

    @property
    def packet_seconds(self) -> float:
        """What a packet takes of a device that works for nobody else, with all engines busy."""
        return (
            PACKET_BYTES / self.device_bytes_per_second
            + self._requests() * self.request_us / 1e6 / self.engines
        )

    def _requests(self) -> int:
        return math.ceil(PACKET_BYTES / self.request_bytes)

    def _servers(self) -> float:
        """Packets that a device works on side by side, since one of them does not fill the engines."""
        return self.engines / min(self.engines, self._requests(), self.queue_requests or self.engines)
