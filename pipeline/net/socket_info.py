"""What the kernel knows of a TCP connection: struct tcp_info of linux/tcp.h."""

from __future__ import annotations

import socket
import struct
from typing import Any

INFO_BYTES = 224
SND_MSS, RTT, CWND, TOTAL_RETRANS = 16, 68, 80, 100
BUSY_TIME, RWND_LIMITED, SNDBUF_LIMITED, BYTES_RETRANS = 168, 176, 184, 208
"""Offsets; the last four since Linux 4.10 and 4.19."""


def socket_record(sock: socket.socket) -> dict[str, Any]:
    """Retransmits, and what kept the sender from sending more: empty for a Unix socket.

    `receiver_limited_ms` and `send_buffer_limited_ms` are the parts of `busy_ms` (data was there to
    be sent or acknowledged) in which the receiver's window or this socket's buffer was the limit.
    """
    if sock.family == socket.AF_UNIX:
        return {}
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, INFO_BYTES)
    except OSError:
        return {}
    info = info.ljust(INFO_BYTES, b"\0")
    small, large = struct.Struct("=I"), struct.Struct("=Q")

    def u32(offset: int) -> int:
        return int(small.unpack_from(info, offset)[0])

    def u64(offset: int) -> int:
        return int(large.unpack_from(info, offset)[0])

    return {
        "retransmits": u32(TOTAL_RETRANS),
        "retransmitted_bytes": u64(BYTES_RETRANS),
        "round_trip_ms": u32(RTT) / 1e3,
        "congestion_window_bytes": u32(CWND) * u32(SND_MSS),
        "send_buffer_bytes": sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF),
        "busy_ms": u64(BUSY_TIME) / 1e3,
        "receiver_limited_ms": u64(RWND_LIMITED) / 1e3,
        "send_buffer_limited_ms": u64(SNDBUF_LIMITED) / 1e3,
    }


def sending_us(sock: socket.socket) -> int | None:
    """For how long, in all, the connection had data on its way and the other side took it; None for what is
    no TCP connection. The kernel counts in ticks of 1 to 10 ms. Raises OSError."""
    if sock.family == socket.AF_UNIX:
        return None
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, INFO_BYTES).ljust(INFO_BYTES, b"\0")
    busy, limited = struct.unpack_from("=QQ", info, BUSY_TIME)
    return int(busy - limited)


ADDED = ("retransmits", "retransmitted_bytes", "busy_ms", "receiver_limited_ms", "send_buffer_limited_ms")


def added_up(earlier: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """A channel's connections one after the other: counts add up, states are the last one's."""
    return {**earlier, **later, **{k: earlier.get(k, 0) + later[k] for k in ADDED if k in later}}
