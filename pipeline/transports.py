"""The transports by name: one file each."""

from __future__ import annotations

from collections.abc import Callable

from guestmem.ram import GuestRam
from pipeline.options import Options
from pipeline.queue_transport import QueueTransport
from pipeline.tcp.transport import TcpTransport
from pipeline.transport import Transport
from pipeline.workers import Crew

TRANSPORTS: dict[str, Callable[[Options, Crew, GuestRam], Transport]] = {
    "queue": QueueTransport,
    "tcp": TcpTransport,
}
