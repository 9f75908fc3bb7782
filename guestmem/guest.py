"""The guest process: it owns the source RAM, writes to it, and obeys its migration.

    migration                         guest
        <----------- ready ------------   RAM filled; descriptors of RAM and dirty log
        ------------ run ------------->   begins to write
        ------------ pause ----------->   finishes the batch in hand, marks it
        <----------- paused -----------   nothing is written from here on
        ------------ run ------------->   writes again
        ------------ ask ------------->
        <----------- running/paused ---   with the counters

Every answer carries `pages_written` and `written_seconds`. When the connection closes, the guest
ends: it lives for its migration.
"""

from __future__ import annotations

import select
import time
from dataclasses import dataclass

from guestmem.content import Content
from guestmem.control import Connection, PeerGone
from guestmem.dirtylog import SharedDirtyLog
from guestmem.prefault import populate
from guestmem.ram import GuestRam
from guestmem.workload import Workload, Writer


@dataclass(frozen=True)
class GuestSpec:
    """What guest to make: its size, what fills it, how it writes."""

    size_bytes: int
    content: Content
    workload: Workload


def run_guest(connection: Connection, spec: GuestSpec) -> None:
    """Make the guest and serve its migration until the connection closes.

    Raises NoMemoryBehind, OSError (content that cannot be read) before it is ready.
    """
    ram = GuestRam.create(spec.size_bytes, "source")
    populate(ram.mapping, write=True)
    log = SharedDirtyLog.create(ram.pages)
    spec.content.fill(ram)
    writer = Writer(ram, log, spec.content.pool(ram), spec.workload)
    try:
        connection.send({"kind": "ready"}, (ram.fd, log.fd))
        _serve(connection, writer)
    except PeerGone:
        return


def _serve(connection: Connection, writer: Writer) -> None:
    running = False
    started = 0.0
    written_seconds = 0.0
    while True:
        rest = writer.work() if running else None
        readable, _, _ = select.select([connection], [], [], rest)
        if not readable:
            continue
        kind = connection.receive()[0]["kind"]
        now = time.monotonic()
        if running:
            written_seconds += now - started
        started = now
        if kind == "run" and not running:
            writer.restart_clock()
            running = True
        elif kind == "pause":
            running = False
        connection.send(
            {
                "kind": "running" if running else "paused",
                "pages_written": writer.pages_written,
                "written_seconds": written_seconds,
            }
        )
