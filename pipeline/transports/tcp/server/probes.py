"""Probes of the link, while a session waits for its sender: a process a connection."""

from __future__ import annotations

import functools

from pipeline.processes.supervisor import Supervisor
from pipeline.transports.tcp.probe import MAX_PROBE_CONNECTIONS, REFUSED_BUSY, REFUSED_MANY
from pipeline.transports.tcp.server.acceptor import Caller
from pipeline.transports.tcp.server.connections import PeerConnection, close, mark_private, start
from pipeline.transports.tcp.server.probe_server import run_probe_server


class Probes:
    """Those that go on."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._running: list[PeerConnection] = []

    def welcome(self, caller: Caller, *, waiting: bool) -> str:
        """Let one in while the session is `waiting`: why not, or nothing."""
        if not waiting:
            return REFUSED_BUSY
        if len(self._running) >= MAX_PROBE_CONNECTIONS:
            return REFUSED_MANY
        mark_private(self._supervisor, caller)
        main = functools.partial(run_probe_server, link=caller.link())
        self._running.append(start(self._supervisor, caller, "probe", main))
        return ""

    def tick(self, *, waiting: bool) -> None:
        """Let go of those that have ended; a run that begins ends them all."""
        for probe in list(self._running):
            if not waiting:
                probe.shut()
            if probe.has_ended():
                close(self._supervisor, probe)
                self._running.remove(probe)
