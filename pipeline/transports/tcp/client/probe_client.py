"""A probe of the link, from the side that will send: over several connections at once, as channels are."""

from __future__ import annotations

import os
import secrets
import select
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median, quantiles

from pipeline.errors import BadFrame, ConnectionLost, HostError, PeerBusy, PeerRefused
from pipeline.transports.tcp.client.dial import Peer
from pipeline.transports.tcp.link import Link
from pipeline.transports.tcp.probe import Probed, ProbeOffer
from pipeline.transports.tcp.protocol import RUN_ID_BYTES, STALL_SECONDS, FrameLimits, FrameType, Hello, Role

CHUNK_BYTES, TLS_CHUNK_BYTES = 256 << 10, 16 << 10
ANSWER = FrameLimits(frozenset({FrameType.PROBED}))
RAMP_SECONDS, STRETCH_SECONDS, LONG_SECONDS = 1.0, 0.125, 0.9
"""TCP takes that long to find its rate, and to bring again what it lost meanwhile (over 5 Mbit/s that came in
one lump after 0.5 s: 6.6); what is compared with each other afterwards."""

QUARTILES_APART = 1.349
"""Standard deviations, of a normal distribution."""

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
NO_SUCH_ROLE = "hello role"
"""How a side of a version that knows no probe refuses it."""


@dataclass(frozen=True)
class LinkRate:
    """What a link carries: bytes a second by stretches of an eighth of a second, in order.

    Median and quartiles: what TCP brings again after a loss comes in one lump, and is no rate.
    """

    connections: int
    stretches: tuple[float, ...]

    @property
    def bytes_per_second(self) -> float:
        return median(self.stretches)

    @property
    def noise(self) -> float:
        """Standard deviation of the stretches by their quartiles, as a share of the median."""
        if len(self.stretches) < 2:
            return 0.0
        low, _, high = quantiles(self.stretches, n=4)
        return (high - low) / QUARTILES_APART / self.bytes_per_second


def probe_link(peer: Peer, connections: int, instead: str = "--bandwidth") -> LinkRate:
    """Some 2 s; `instead` is the option that makes it needless. Raises PeerRefused, and HostError where
    nobody answers as a probe is answered."""
    try:
        with ThreadPoolExecutor(connections) as pool:
            links = _opened(pool, peer, connections)
            probed = list(pool.map(_probe, links))
    except PeerBusy as error:
        nobody = isinstance(error.__cause__, OSError)
        raise (HostError if nobody else PeerRefused)(str(error)) from error
    except PeerRefused as error:
        if NO_SUCH_ROLE not in str(error):
            raise
        raise PeerRefused(
            f"{peer.address}: the other side is an older ramferry, which answers no probe: give {instead}"
        ) from error
    except (ConnectionLost, BadFrame) as error:
        raise HostError(f"{error}: the link cannot be measured so; give {instead}") from error
    return rate_of(probed)


def _opened(pool: ThreadPoolExecutor, peer: Peer, connections: int) -> list[tuple[Link, float]]:
    """Links that are welcomed, and for how long each reads. Raises what the first that fails does."""
    run_id = secrets.token_bytes(RUN_ID_BYTES)
    calls = [pool.submit(peer.call, Hello(Role.PROBE, number, 1, run_id)) for number in range(connections)]
    opened: list[tuple[Link, float]] = []
    failed: BaseException | None = None
    for call in calls:
        try:
            link, body = call.result()
            opened.append((link, ProbeOffer.of(body).seconds))
        except (PeerRefused, ConnectionLost, BadFrame) as error:
            failed = failed or error
    if failed is not None:
        for link, _ in opened:
            link.close()
        raise failed
    return opened


def _probe(opened: tuple[Link, float]) -> Probed:
    """Send until the other side answers. Raises ConnectionLost, BadFrame."""
    link, seconds = opened
    try:
        _send(link, time.monotonic() + seconds + STALL_SECONDS)
        header = link.header(ANSWER)
        return Probed.of(link.json(header))
    finally:
        # What waits to be sent is of no use any more.
        link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        link.close()


def _send(link: Link, until: float) -> None:
    """Bytes that nothing on the way compresses, as long as there is no answer."""
    sock = link.socket
    data = memoryview(os.urandom(CHUNK_BYTES))
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLOUT)
    while time.monotonic() < until:
        for _, event in poll.poll(100):
            if event & ~select.POLLOUT:
                return
            try:
                _send_some(sock, data)
            except (BlockingIOError, TimeoutError):
                continue
            except OSError as error:
                raise ConnectionLost(error.strerror or str(error)) from error
    raise ConnectionLost(f"no answer to a probe for {STALL_SECONDS:g} s")


def _send_some(sock: socket.socket, data: memoryview) -> None:
    if isinstance(sock, ssl.SSLSocket):
        sock.send(data[:TLS_CHUNK_BYTES])
    else:
        sock.send(data, socket.MSG_DONTWAIT)


def rate_of(probed: Sequence[Probed]) -> LinkRate:
    """All connections together, from when the last one had found its rate until the first one ended.

    Raises HostError where so little came that nothing can be said.
    """
    first = max(one.began_ns for one in probed)
    found = _rates(probed, first + round(RAMP_SECONDS * 1e9), STRETCH_SECONDS)
    if not found or not median(found):
        # A slow link that lost a packet brings all that lay behind it in one lump, later.
        found = _rates(probed, first, LONG_SECONDS)
    if not found or not median(found):
        raise HostError("the probe: too little came through to tell a rate; give --bandwidth")
    return LinkRate(len(probed), tuple(found))


def _rates(probed: Sequence[Probed], begin: int, seconds: float) -> list[float]:
    """Bytes a second of all connections in each stretch of so long, from `begin` to the end of the first
    one."""
    end = min(one.began_ns + one.slice_ns * len(one.slices) for one in probed)
    stretch = round(seconds * 1e9)
    return [
        sum(_between(one, at, at + stretch) for one in probed) / seconds
        for at in range(begin, end - stretch + 1, stretch)
    ]


def _between(one: Probed, begin: int, end: int) -> float:
    """Bytes between two times; of a slice that is cut, its part."""
    total = 0.0
    for index, came in enumerate(one.slices):
        first = one.began_ns + index * one.slice_ns
        shared = min(end, first + one.slice_ns) - max(begin, first)
        total += came * max(0, shared) / one.slice_ns
    return total
