"""A migration at the destination's relay: the other relay calls, QEMU's socket is called."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

from pipeline.errors import FerryError, one_line, one_line_of
from pipeline.relay.controller import DestinationController
from pipeline.relay.delivery import Arrived
from pipeline.relay.protocol import VERSION, FrameType, Kind
from pipeline.relay.session import COMPLETED, MAIN, Session, Shared, State
from pipeline.relay.stream import Stream
from pipeline.relay.wire import Wire

DIAL_SECONDS, DIAL_STEP_SECONDS = 5.0, 0.1
"""How long the destination's QEMU may take to listen."""

GONE_SECONDS = 1.0
OTHER_VERSION = "the relays speak different versions"
NOT_DELIVERED = "nothing is to be delivered"
CONT = 'give the destination\'s QEMU {"execute":"cont"}'

REST_SECONDS = 1.0
"""Within this time after multifd's ends a good migration says SHUT."""


class DestinationSession(Session):
    """Begins with the other relay's first connection."""

    def __init__(
        self,
        migration_id: bytes,
        shared: Shared,
        deliver: Callable[[str], str],
        report: Callable[[DestinationSession], dict[str, Any]],
        controller: DestinationController | None = None,
    ) -> None:
        """With a `controller` QEMU is told what to do. `deliver` gives the path of QEMU's socket by a name;
        it raises KeyError, and ValueError with why it cannot be used now.
        """
        super().__init__("", migration_id, shared)
        self._deliver_to = deliver
        self._report = report
        self.controller = controller
        self._path = ""
        self._ready = self._went_on = self._dead = False
        self._early: list[Arrived] = []
        self._dialing: set[int] = set()
        self._main_dialed = False
        self.committed = False
        """Whether the commit byte has been written to QEMU."""

    @property
    def is_begun(self) -> bool:
        """Whether the other relay has said what it brings."""
        return bool(self._path)

    # ---------------------------------------------------------------- the other relay

    def heard(self, kind: str, said: dict[str, Any]) -> None:
        if kind == "begin":
            self._begin(said)
        elif kind == "ended" and not (self.reverse.shut or self._ends_without_return_path()):
            self.give_up("the source's relay says that it is done, and the destination's QEMU never was")
        elif kind == "ended":
            self.state = State.DONE
            self.spawn(self._end_when_said())

    def _begin(self, said: dict[str, Any]) -> None:
        if said.get("version") != VERSION:
            self.give_up(
                f"{OTHER_VERSION}: the source's {said.get('version')}, the destination's {VERSION}; install "
                "the same ramferry on both hosts"
            )
            return
        name = one_line_of(str(said.get("name", "")))[:100]
        try:
            self._path = self._deliver_to(name)
        except KeyError:
            whose = (
                f"migration {name}: give the destination's --deliver {name}=unix:PATH"
                if name
                else ("a migration without a name: the destination's --deliver names another")
            )
            self.give_up(f"{NOT_DELIVERED} for {whose}")
            return
        except ValueError as error:
            self.give_up(str(error))
            return
        self.name = name
        if said.get("controlled") and self.controller is None:
            self.give_up(
                "the source's relay is to start the migration (--migrate), but this one has no --qmp"
            )
            return
        multifd = said.get("multifd")
        self.spawn(self._accept(multifd if isinstance(multifd, int) else None))

    async def _accept(self, multifd: int | None) -> None:
        if self.controller is not None:
            try:
                await self.controller.prepare(f"unix:{self._path}", multifd)
            except FerryError as error:
                self.give_up(one_line(error))
                return
        self.tell("accepted")
        self.state = State.MOVING
        self._ready = True
        early, self._early = self._early, []
        for arrived in early:
            self.deliver(arrived)
        self.release_main()  # perhaps nothing more comes before QEMU has answered: a recovery

    async def _end_when_said(self) -> None:
        if self.controller is not None:
            try:
                await self.controller.go_on()
                self._went_on = True
                self.tell("runs")
            except FerryError as error:
                self.shared.warn(f"{self.title}: {one_line(error)}; the source is done: {CONT}")
        else:
            self._went_on = True
        self.tell("report", report=self._report(self))
        until = time.monotonic() + self.shared.reconnect_seconds
        while not self.out.is_done() and time.monotonic() < until and not self.is_over:
            if self.gone_seconds > GONE_SECONDS:
                break  # it has all that it waited for
            await asyncio.sleep(0.01)
        self.end(COMPLETED)

    def connection_lost(self, wire: Wire, why: str) -> None:
        if self.state is State.DONE:
            return
        self.figures.reconnections += 1
        self.shared.warn(f"{self.title}: connection {wire.number} broke ({why})")

    def tick(self) -> None:
        if self.wires or self.state is State.DONE:
            return
        if not self.is_begun:
            self.end("the source's relay has gone before it said what it brings")
            return
        if self.gone_seconds < self.shared.reconnect_seconds:
            return
        if self.reverse.shut or self.committed:
            self._undecided()
        else:
            in_postcopy = self.state is State.POSTCOPY
            whose = "" if in_postcopy else "; the guest was not handed over, and is the source's"
            if self.controller is not None and not in_postcopy:
                whose += ": where its QEMU stands in pre-switchover, give it migrate_cancel"
            self.end(f"the other relay is gone for {self.shared.reconnect_seconds:g} s{whose}")

    def _undecided(self) -> None:
        if self.figures.undecided:
            return
        self.figures.undecided = True
        self.shared.warn(
            f"{self.title}: undecided: the destination's QEMU has all of the guest, and the source was not "
            "told, since the other relay is gone. Before the guest goes on here, give the source's QEMU "
            '{"execute":"quit"}, or see that its host is off'
            + (', and give this one {"execute":"cont"}' if self.controller is not None else "")
            + "; where the source's guest runs, give this one "
            '{"execute":"quit"}'
        )

    # ---------------------------------------------------------------- QEMU

    def deliver(self, arrived: Arrived) -> None:
        if not self._ready:
            self._early.append(arrived)
        elif arrived.type is FrameType.OPEN:
            self._open(arrived)
        else:
            super().deliver(arrived)

    def _open(self, arrived: Arrived) -> None:
        """Called is QEMU only with the first bytes in hand; a connection that may stay silent, after main."""
        if arrived.stream not in self.streams:
            self.stream(arrived.stream, Kind(arrived.kind))
        self.into.done(arrived)
        if arrived.kind == Kind.LATE and self._main_dialed:
            self._dial(self.streams[arrived.stream])

    def about_to_write(self, stream: Stream, arrived: Arrived) -> None:
        if stream.socket is None and stream.number not in self._dialing:
            self._dial(stream)
        if stream.number == MAIN and arrived.type is FrameType.DATA:
            self.forward.see(arrived.plain)
            if self.forward.postcopy:
                self.state = State.POSTCOPY
            elif self.forward.committed:
                self.state, self.committed = State.COMMITTING, True
            elif self.state is State.COMMITTING:
                self.state, self.committed = State.MOVING, False

    def _dial(self, stream: Stream) -> None:
        self._dialing.add(stream.number)
        self.spawn(self._connect(stream))

    async def _connect(self, stream: Stream) -> None:
        until = time.monotonic() + DIAL_SECONDS
        while not self.is_over:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.setblocking(False)
            try:
                sock.connect(self._path)
            except OSError as error:
                sock.close()
                if time.monotonic() > until:
                    why = error.strerror or str(error)
                    self.give_up(f"the destination's QEMU does not listen at {self._path}: {why}")
                    return
                await asyncio.sleep(DIAL_STEP_SECONDS)
                continue
            stream.attach(sock)
            if stream.number == MAIN:
                self._main_dialed = True
                for late in self.streams.values():
                    if late.kind is Kind.LATE and late.number not in self._dialing:
                        self._dial(late)
            self.read_on()
            return

    def on_read(self, stream: Stream, data: memoryview) -> None:
        if stream.number == MAIN:
            self.reverse.see(data)
        super().on_read(stream, data)

    def on_qemu_end(self, stream: Stream, why: str) -> None:
        """By the table of `pipeline.relay`."""
        if self.is_over:
            return
        self.out.add(FrameType.EOF, stream.number)
        if self.reverse.shut or self.state is State.DONE:
            stream.close()
        elif stream.number == MAIN:
            if self._ends_without_return_path():
                return
            self._dead = True
            self.give_up("the destination's QEMU has ended, or failed to load, before it was done")
        else:
            self.loop.call_later(REST_SECONDS, self._still_no_word, stream.number)

    def _ends_without_return_path(self) -> bool:
        return self.forward.has_return_path is False and self.committed

    def _still_no_word(self, number: int) -> None:
        if self.is_over or self.reverse.shut or self.committed or self.state is State.DONE:
            return
        self.give_up(f"connection {number} of the destination's QEMU broke")

    def last_facts(self) -> dict[str, Any]:
        return {"committed": self.committed, "dead": self._dead}

    def give_up(self, why: str, grace_seconds: float = 0.0) -> None:
        """Not of a migration that the source has ended well: its guest is this one's."""
        if self.state is State.DONE:
            self.end(
                COMPLETED
                if self._went_on
                else f"{why}; the source is done, and this QEMU was not told: {CONT}"
            )
        else:
            super().give_up(why, grace_seconds)

    def peer_gave_up(self, why: str, said: dict[str, Any]) -> None:
        if self.state is State.DONE:
            return
        if self.controller is not None and self.committed and said.get("source_runs"):
            self.spawn(self.controller.drop())  # it has the whole guest, paused, and never may run it
        super().peer_gave_up(why, said)

    def written(self, stream: Stream, arrived: Arrived) -> None:
        if arrived.type is FrameType.EOF and stream.ended:
            stream.close()
