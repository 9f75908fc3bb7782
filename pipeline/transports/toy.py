"""The toy transport: the queue, under another name."""

from __future__ import annotations

from pipeline.transports.queue import QueueTransport


class ToyTransport(QueueTransport):
    """See `pipeline.transports.queue`."""
