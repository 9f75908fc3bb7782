"""Connections that are made again and again, and bring nothing over.

Where packets above a size vanish on the way, and nobody says so, every handshake succeeds and nothing that is
large ever arrives (RFC 2923, 2.1). A connection alone does not show that: it only stalls.
"""

from __future__ import annotations

import time

from pipeline.errors import PeerBusy, RunFailed
from pipeline.transports.tcp.client.dial import Peer
from pipeline.transports.tcp.protocol import STALL_SECONDS

LIVED_SECONDS = 3 * STALL_SECONDS
"""A connection of control that stood for longer did not break for its size."""


def path_hint(peer: Peer) -> str:
    """What to check where connections are made and large packets do not arrive."""
    if peer.address.path:
        return f"{peer.address} takes connections, and nothing comes through: does the receiver work?"
    return (
        f"{peer.address} takes connections, so packets above a size may vanish on the way: check the MTU "
        f"of each link (ping -M do -s 1472 {peer.address.host}), and that no firewall drops ICMP"
    )


def no_connection_again(peer: Peer, error: RunFailed) -> RunFailed:
    """`error` of calling again, with what to check where somebody took the call."""
    if isinstance(error.__cause__, PeerBusy) or path_hint(peer) in str(error):
        return error
    return RunFailed(f"{error}; {path_hint(peer)}")


def _line(peer: Peer, seconds: float, what: str) -> str:
    return f"{what} for {seconds:.0f} s; {path_hint(peer)}"


class NoProgress:
    """Of a connection that carries packets: what the receiver says that it applied, over all connections."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._packets = 0
        self._welcomed_at = time.monotonic()
        self._since: float | None = None

    def welcomed(self, packets: int, *, sent: bool) -> None:
        """A connection was made, `packets` of the run are applied; was something `sent` on the one before?

        Raises RunFailed when nothing was applied for as long as a connection is tried again.
        """
        now = time.monotonic()
        if packets != self._packets or not sent:
            self._packets, self._since = packets, None
        elif self._since is None:
            self._since = self._welcomed_at
        self._welcomed_at = now
        if self._since is not None and now - self._since >= self._peer.reconnect_seconds:
            raise RunFailed(_line(self._peer, now - self._since, "nothing of what was sent was applied"))


class Unanswered:
    """Of control: one question, asked over one connection after the other."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._connected_at = time.monotonic()
        self._since: float | None = None

    def answered(self) -> None:
        self._since = None

    def connected(self) -> None:
        self._connected_at = time.monotonic()

    def lost(self, *, asked: bool) -> None:
        """A connection broke; something is `asked`. Raises RunFailed when that went on for too long."""
        now = time.monotonic()
        if not asked or now - self._connected_at > LIVED_SECONDS:
            self._since = None
        elif self._since is None:
            self._since = self._connected_at
        elif now - self._since >= self._peer.reconnect_seconds:
            raise RunFailed(_line(self._peer, now - self._since, "no answer arrived"))
