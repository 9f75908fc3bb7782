"""The link to another host, measured before a forecast where no limit says what it carries."""

from __future__ import annotations

from dataclasses import replace

from pipeline.forecast.situation import Plan
from pipeline.net.address import Address
from pipeline.net.tls import CLIENT, Tls
from pipeline.progress import Progress
from pipeline.transports.tcp.client.dial import Peer
from pipeline.transports.tcp.client.probe_client import LinkRate, probe_link

WELCOME_SECONDS = 5.0
MOST_CONNECTIONS = 8
"""Of one probe, however many channels there may be."""


def over_measured_link(
    plan: Plan, to: Address, tls: Tls | None, secret: bytes | None, progress: Progress
) -> Plan:
    """The same with what the link to a waiting receiver or relay carries. Raises FerryError."""
    context = None if tls is None else tls.context(CLIENT)
    peer = Peer(to, tls, 0.0, WELCOME_SECONDS, secret, context)
    return measured(plan, peer, plan.channels, progress, "--max-bandwidth")[0]


def measured(
    plan: Plan, peer: Peer, channels: int, progress: Progress, instead: str
) -> tuple[Plan, LinkRate]:
    """The same over the link to `peer`, and what that carries; `instead` is the option that makes a probe
    needless. Raises FerryError."""
    progress.say(f"measuring the link to {peer.address}")
    rate = probe_link(peer, min(channels, MOST_CONNECTIONS), instead)
    noise = max(rate.noise, plan.link_noise)
    return replace(plan, link_bytes_per_second=rate.bytes_per_second, link_noise=noise), rate
