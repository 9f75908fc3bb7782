"""The transports by name: one file each."""

from __future__ import annotations

from collections.abc import Callable

from guestmem.ram import GuestRam
from pipeline.options import Options
from pipeline.processes.supervisor import Supervisor
from pipeline.transports.base import Transport
from pipeline.transports.queue import QueueTransport
from pipeline.transports.tcp.client.transport import TcpTransport

TRANSPORTS: dict[str, Callable[[Options, Supervisor, GuestRam], Transport]] = {
    "queue": QueueTransport,
    "tcp": TcpTransport,
}
