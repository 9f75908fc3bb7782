"""What takes packets to the destination: one file, or folder, a transport, and one entry here."""

from __future__ import annotations

import importlib

from guestmem.ram import GuestRam
from pipeline.options import Options
from pipeline.processes.supervisor import Supervisor
from pipeline.source.send_side import PacketLayout
from pipeline.transports.base import Transport

TRANSPORTS = {
    "queue": ("pipeline.transports.queue:QueueTransport", "through shared memory"),
    "tcp": (
        "pipeline.transports.tcp.client.transport:TcpTransport",
        "one TCP connection per channel, over loopback",
    ),
}
"""By name: the class, imported when it is used, and what it is in words."""


def open_transport(
    options: Options, layout: PacketLayout, supervisor: Supervisor, source: GuestRam
) -> Transport:
    """The transport that `options` name, its workers forked. Raises OSError, FerryError."""
    module, _, name = TRANSPORTS[options.transport][0].partition(":")
    transport: Transport = getattr(importlib.import_module(module), name)(options, layout, supervisor, source)
    return transport
