"""Probes at the side that waits: each connection has a process of its own, or a thread."""

from __future__ import annotations

import select
import socket
import ssl
import time

from guestmem.ipc import Connection
from pipeline.errors import BadFrame, ConnectionLost
from pipeline.transports.tcp.link import Link
from pipeline.transports.tcp.probe import PROBE_SECONDS, SLICE_SECONDS, Probed, ProbeOffer
from pipeline.transports.tcp.protocol import FrameType

BUFFER_BYTES = 1 << 20
FIRST_BYTE_SECONDS, HANG_UP_SECONDS = 2.0, 2.0
"""How long the prober may take to begin, and to hang up when it has its answer."""

WOULD_BLOCK = (BlockingIOError, InterruptedError, ssl.SSLWantReadError)


SLOW_BYTES, SLOW_SECONDS = 2 << 20, 6.0
"""A connection that carried fewer in the time of a probe is read for longer: what was lost on a slow link
comes in lumps (over 5 Mbit/s with two connections the rate of 2 s was off by up to 18 %)."""


def run_probe_server(connection: Connection, link: Link) -> None:
    """As a process of its own."""
    serve_probe(link)


def serve_probe(link: Link) -> None:
    """Welcome the prober, read for a while, answer, hang up: whatever it does, some seconds."""
    try:
        link.send(FrameType.WELCOME, ProbeOffer(SLOW_SECONDS).body())
        link.socket.setblocking(False)
        probed = _read(link.socket)
        link.socket.settimeout(HANG_UP_SECONDS)
        link.send(FrameType.PROBED, probed.body())
        _drain(link.socket)
    except (ConnectionLost, BadFrame, OSError):
        pass  # a prober that is gone has nobody to be told
    finally:
        link.close()


def _read(sock: socket.socket) -> Probed:
    """Raises ConnectionLost for a prober that hangs up, or never begins."""
    buffer = memoryview(bytearray(BUFFER_BYTES))
    slices = [0] * round(SLOW_SECONDS / SLICE_SECONDS)
    got = _some(sock, buffer, time.monotonic() + FIRST_BYTE_SECONDS)
    began_ns = time.monotonic_ns()
    began = began_ns / 1e9
    seconds = PROBE_SECONDS
    slices[0] += got
    while time.monotonic() < began + seconds:
        got = _some(sock, buffer, began + seconds)
        index = int((time.monotonic() - began) / SLICE_SECONDS)
        slices[min(index, len(slices) - 1)] += got
        if time.monotonic() >= began + PROBE_SECONDS and sum(slices) < SLOW_BYTES:
            seconds = SLOW_SECONDS
    if not any(slices):
        raise ConnectionLost("nothing came")
    return Probed(began_ns, round(SLICE_SECONDS * 1e9), slices[: round(seconds / SLICE_SECONDS)])


def _some(sock: socket.socket, buffer: memoryview, until: float) -> int:
    """Bytes that come until a time. Raises ConnectionLost at the end of the stream."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    while True:
        try:
            got = sock.recv_into(buffer)
        except WOULD_BLOCK:
            left = until - time.monotonic()
            if left <= 0:
                return 0
            poll.poll(min(left, SLICE_SECONDS) * 1000)
            continue
        if not got:
            raise ConnectionLost("closed by the peer")
        return got


def _drain(sock: socket.socket) -> None:
    """What is still under way would answer a close with a reset, which can overtake PROBED."""
    sock.setblocking(False)
    buffer = memoryview(bytearray(BUFFER_BYTES))
    until = time.monotonic() + HANG_UP_SECONDS
    while time.monotonic() < until:
        _some(sock, buffer, until)
