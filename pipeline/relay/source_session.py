"""A migration at the source's relay: QEMU's connections come in, the other relay is called."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

from pipeline.errors import ConnectionLost, FerryError, PeerRefused, one_line
from pipeline.relay.controller import SourceController
from pipeline.relay.delivery import Arrived
from pipeline.relay.marks import (
    MAIN_FIRST_BYTES,
    MULTIFD_FIRST_BYTES,
    MULTIFD_MAGIC,
    RECOVERY,
    starts_main,
)
from pipeline.relay.protocol import MAX_STREAMS, VERSION, FrameType, Kind
from pipeline.relay.session import COMPLETED, MAIN, Session, Shared, State
from pipeline.relay.stream import Stream
from pipeline.relay.wire import Wire
from pipeline.transports.tcp.client.dial import Peer
from pipeline.transports.tcp.protocol import Hello, Role

RETRY_SECONDS = 0.2
LATE_SECONDS = 0.1
"""A connection that comes late and is postcopy's says nothing; another migration's says so at once."""

GRACE_SECONDS = 3.0
"""How long a QEMU that has ended its migration may take to close its other connections by itself."""

PACE_SECONDS = 0.002

GATHER_BYTES, GATHER_SECONDS = 160 << 10, 0.004
"""A Unix socket of QEMU's holds 219 KB."""

REST_SECONDS = 0.5
"""How long the other connections of a migration that ends may take to end, too."""

MAIN_BYTES = 256 << 10
"""Of main that may be under way beside multifd's connections, which carry the pages."""

COMMIT_PAUSE_SECONDS = 0.003
"""What proves the commit byte follows it at once; so long a block that may end with it waits for that."""

UNKNOWN_THERE = "no such migration"
REFUSES = " refuses: "
STARTED_ANEW = f"the destination's relay refuses: {UNKNOWN_THERE}: it was started anew"

HOW_TO_DECIDE = (
    'Ask the destination\'s QEMU {"execute":"query-status"}: where it runs, or is paused after a completed '
    'migration, let it go on and give the source {"execute":"quit"}; where it is gone, end this relay '
    "(SIGTERM twice), and the source's guest runs on"
)


class SourceSession(Session):
    """Begins with main's connection."""

    def __init__(
        self,
        name: str,
        migration_id: bytes,
        shared: Shared,
        peer: Callable[[], Peer],
        *,
        without_return_path: bool,
        controller: SourceController | None = None,
        multifd: int | None = None,
    ) -> None:
        """With a `controller` the destination is told to let QEMU wait, with so many `multifd` channels,
        before anything comes; `accepted` says when it does."""
        super().__init__(name, migration_id, shared)
        self._peer = peer
        self._without_return_path = without_return_path
        self._first: dict[int, bytearray] = {}
        self._held_main: list[memoryview] = []
        self._release: asyncio.TimerHandle | None = None
        self._accepted = self._seen_fresh = self._told_end = False
        self._why_gone = "it was never reached"
        self.accept_more: Callable[[], None] = lambda: None
        """Set by whoever listens: take what waits to be accepted, before main is read."""
        self._late: set[int] = set()
        self._is_recovery: bool | None = None
        """Of a postcopy that was cut; None before main has begun."""
        self._gathering: dict[int, float] = {}
        self._pacer: asyncio.TimerHandle | None = None
        self._before_main: dict[int, int] = {}
        self._main_is_next = False
        for number in range(shared.connections):
            self.spawn(self._dial(number, 1))
        self.out.on_room = self._acknowledged
        self.accepted: asyncio.Future[None] = self.loop.create_future()
        self.controller = controller
        self._is_controlled = multifd is not None
        self.runs_there_at = 0.0
        if controller is not None:
            controller.may_switch_over = self._why_not_switch_over
            controller.on_status = lambda status: self._end_if_all_is_said()
        self.tell("begin", version=VERSION, name=name, controlled=multifd is not None, multifd=multifd)

    # ---------------------------------------------------------------- the other relay

    async def _dial(self, number: int, generation: int) -> None:
        """Call until there is a connection, or nobody waits for one."""
        while not self.finished.done():
            hello = Hello(Role.RELAY, number, generation, self.id)
            try:
                link, said = await self.loop.run_in_executor(None, self._peer().call, hello)
            except ConnectionLost as error:
                self._why_gone = one_line(error)
                if self.is_over and self.had_wires:
                    return
            except FerryError as error:
                if not self._goes_on_calling(one_line(error), refused=isinstance(error, PeerRefused)):
                    return
            else:
                if self.finished.done():
                    link.close()
                    return
                fresh = bool(said.get("fresh"))
                if not (fresh and (self._seen_fresh or self._accepted)):
                    self._seen_fresh = self._seen_fresh or fresh
                    handlers = self.on_frame, self.on_room, self.on_lost
                    self.attach(Wire(number, generation, link.socket, *handlers, self.shared.buffers.take))
                    return
                link.close()
                if not self._goes_on_calling(STARTED_ANEW, refused=True):
                    return
            generation += 1
            await asyncio.sleep(RETRY_SECONDS)

    def _goes_on_calling(self, why: str, *, refused: bool) -> bool:
        """After an answer that is not the other relay's welcome: it does not know this migration, does not
        want it, or something else answers in its place. While nobody knows which guest runs, nothing is
        decided."""
        self._why_gone = why
        if self.state is State.COMMITTING:
            self._undecided(why)
            return True
        if self.had_wires and not (refused and REFUSES in why):
            return True
        if self.state is State.DONE:
            self._end_done(COMPLETED if why.endswith(COMPLETED) else why)
        elif refused:
            self.end(why)
        else:
            self.give_up(why)
        return False

    def _end_done(self, why: str) -> None:
        """The source's QEMU is done, and the other relay's last word is missing."""
        if why == COMPLETED or self.controller is None or not self._is_controlled or self.runs_there_at:
            self.end(COMPLETED)
            return
        self.end(
            f"the source has completed, and whether the destination's guest runs is not known ({why}): ask "
            'its QEMU {"execute":"query-status"}, and where it is paused give it {"execute":"cont"}'
        )

    def give_up(self, why: str, grace_seconds: float = 0.0) -> None:
        """Not of a migration that the source has ended well: its guest is the destination's."""
        if self._is_the_destinations():
            self._end_done(why)
        else:
            super().give_up(why, grace_seconds)

    def _is_the_destinations(self) -> bool:
        """Whether the source's QEMU has let its guest go for good."""
        controlled = self.controller is not None and self.controller.status == COMPLETED
        return self.state is State.DONE or controlled

    def ends_by_itself(self) -> bool:
        return bool(self.wires) and self._is_the_destinations()

    def _has_gone_well(self) -> bool:
        """Whether the source's connections may end now."""
        return self.state is State.DONE or (self._without_return_path and self.forward.committed)

    def last_facts(self) -> dict[str, Any]:
        return {"source_runs": True}

    def connection_lost(self, wire: Wire, why: str) -> None:
        self.figures.reconnections += 1
        self.shared.warn(f"{self.title}: connection {wire.number} broke ({why}); calling again")
        self.spawn(self._dial(wire.number, wire.generation + 1))

    def tick(self) -> None:
        gone = self.gone_seconds if self.figures.breaks else time.monotonic() - self.figures.began_at
        if self.wires or gone < self.shared.reconnect_seconds:
            return
        if self.state is State.COMMITTING:
            self._undecided(self._why_gone)
        elif self._is_the_destinations():
            self._end_done(f"the other relay is gone: {self._why_gone}")
        else:
            whose = "" if self.state is State.POSTCOPY else "; the source's guest runs on"
            self.end(
                f"the other relay is gone for {self.shared.reconnect_seconds:g} s ({self._why_gone}){whose}"
            )

    def _undecided(self, why: str) -> None:
        """Nobody knows here whether the destination's guest runs."""
        if self.figures.undecided:
            return
        self.figures.undecided = True
        self.shared.warn(
            f"{self.title}: undecided: the destination may have all of the guest, and the other relay is "
            f"gone ({why}). The source's guest stands still and is kept so. {HOW_TO_DECIDE}"
        )

    # ---------------------------------------------------------------- QEMU's connections

    def add_connection(self, sock: socket.socket) -> None:
        """One more of the source's QEMU: main is the first."""
        number = len(self.streams)
        if number >= MAX_STREAMS:
            sock.close()
            return
        main_speaks = self.forward.total_bytes > 0
        kind = Kind.MAIN if number == MAIN else Kind.LATE if main_speaks else Kind.MULTIFD
        stream = self.stream(number, kind)
        stream.attach(sock)
        if kind is Kind.LATE:
            if self._is_recovery:
                self._open_in_recovery(stream)
            elif not self._has_multifd():
                self.loop.call_later(LATE_SECONDS, self._open_late, stream)
        else:
            self._first[number] = bytearray()
        self.read_on()

    def _recovers(self) -> bool | None:
        """Whether main is the recovery of a postcopy, whose other connection begins with whatever page comes
        first; None before main has begun."""
        if self._is_recovery is None:
            begins = self.streams[MAIN].peek(MAIN_FIRST_BYTES)
            if len(begins) == MAIN_FIRST_BYTES:
                self._is_recovery = begins.startswith(RECOVERY)
        return self._is_recovery

    def _open_in_recovery(self, stream: Stream) -> None:
        """There is one, and it does not wait for anything."""
        if self._late:
            self._turn_away(stream, b"")
        else:
            self._open_late(stream)

    def _has_multifd(self) -> bool:
        """Then no connection comes late: QEMU has no postcopy beside multifd."""
        return any(stream.kind is Kind.MULTIFD for stream in self.streams.values())

    def _open_late(self, stream: Stream) -> None:
        """It has not said that it is another migration, which the destination must not see."""
        if not stream.closed and not self.is_over:
            self._late.add(stream.number)
            self.out.add(FrameType.OPEN, stream.number, kind=stream.kind)
            self.read_on()

    def allowance(self, stream: Stream) -> int:
        """By the window; main only when it overtakes nothing, the others only after main's first bytes."""
        if self.is_over:
            return 0
        if stream.number in self._first and stream.number != MAIN:
            is_multifd = self._recovers() is False
            return MULTIFD_FIRST_BYTES - len(self._first[stream.number]) if is_multifd else 0
        bulk = len(self.streams) - 1
        if stream.number != MAIN:
            if not self.forward.total_bytes:
                return 0
            room = self._paced(self.out.window.room(self.out.under_way[stream.number], bulk))
            room = self._gathered(stream, room)
            return max(room, self._before_main.get(stream.number, 0) - stream.read_bytes)
        if not self._may_read_main():
            return 0
        if bulk:
            return MAIN_BYTES - self.out.under_way[MAIN]
        return self._gathered(stream, self._paced(self.out.window.room(self.out.under_way[MAIN], 1)))

    def _paced(self, room: int) -> int:
        """As fast as the link takes what is hard; in postcopy, where nothing is to be judged, as it comes."""
        if self.state is State.POSTCOPY or not room:
            return room
        allowed = self.out.pace.room(self.shared.link.measured_bytes_per_second)
        if not allowed and self._pacer is None:
            self._pacer = self.loop.call_later(PACE_SECONDS, self._pace_over)
        return min(room, allowed)

    def _gathered(self, stream: Stream, room: int) -> int:
        """While the link has enough to do, a block waits to become larger: it compresses better."""
        if not room or not self.shared.link.is_full() or self.state is State.POSTCOPY:
            return room
        have, now = stream.readable_bytes(), time.monotonic()
        since = self._gathering.setdefault(stream.number, now)
        if not have or have >= min(GATHER_BYTES, room) or now - since >= GATHER_SECONDS:
            del self._gathering[stream.number]
            return room
        self.loop.call_later(GATHER_SECONDS, self.read_on)
        return 0

    def _pace_over(self) -> None:
        self._pacer = None
        self.read_on()

    def _may_read_main(self) -> bool:
        """Main's words must not be read before what multifd's connections carried when they were written:
        what these hold, as main has something to say, is read first."""
        if not self._main_is_next and not self._before_main:
            if not self.forward.total_bytes:
                self.accept_more()
            if not self.streams[MAIN].readable_bytes():
                return True
            self._before_main = self._bytes_before_main()
            if self._before_main:
                self.loop.call_soon(self.read_on)
        if all(self._has_read(number, count) for number, count in self._before_main.items()):
            self._before_main, self._main_is_next = {}, True
        return self._main_is_next

    def _bytes_before_main(self) -> dict[int, int]:
        """Up to where multifd's connections are to be read: their windows do not count for that, since what
        the destination waits for may be the very word on main. In front of main's first bytes come theirs."""
        multifd = [
            stream for stream in self.streams.values() if stream.kind is Kind.MULTIFD and not stream.ended
        ]
        if self._recovers():
            return {}
        if not self.forward.total_bytes:
            return {stream.number: MULTIFD_FIRST_BYTES for stream in multifd}
        return {stream.number: stream.read_bytes + stream.readable_bytes() for stream in multifd}

    def _has_read(self, number: int, count: int) -> bool:
        stream = self.streams[number]
        return stream.ended or stream.closed or stream.read_bytes >= count

    def on_read(self, stream: Stream, data: memoryview) -> None:
        self.out.pace.took(len(data))
        first = self._first.get(stream.number)
        if first is not None:
            data = self._gather_first(stream, first, data)
            if not len(data):
                return
        if stream.number == MAIN:
            self._main_is_next = False
            self._read_main(stream, data)
        elif stream.kind is Kind.LATE and stream.number not in self._late:
            self._turn_away(stream, bytes(data[:8]))
        else:
            super().on_read(stream, data)
            if self._before_main:
                self.streams[MAIN].watch(wanted=self.allowance(self.streams[MAIN]) > 0)

    def _gather_first(self, stream: Stream, first: bytearray, data: memoryview) -> memoryview:
        """The first bytes of a connection, when there are enough to call the destination with."""
        first += data
        needed = MAIN_FIRST_BYTES if stream.number == MAIN else MULTIFD_FIRST_BYTES
        if len(first) < needed and not (
            stream.number != MAIN and not first.startswith(MULTIFD_MAGIC[: len(first)])
        ):
            return memoryview(b"")
        if stream.number == MAIN and not starts_main(bytes(first)):
            self.give_up(
                f"what the source sends is no migration of QEMU's: it begins with {bytes(first[:8]).hex()}"
            )
            return memoryview(b"")
        if stream.number != MAIN and not first.startswith(MULTIFD_MAGIC):
            self._turn_away(stream, bytes(first[:8]))
            return memoryview(b"")
        del self._first[stream.number]
        if stream.number != MAIN and MAIN in self.streams:
            self.loop.call_soon(self.read_on)
        self.out.add(FrameType.OPEN, stream.number, kind=stream.kind)
        if stream.number == MAIN:
            self._is_recovery = first.startswith(RECOVERY)
        if self._is_recovery and stream.number == MAIN:
            for other in [self.streams[number] for number in self._first]:
                other.kind = Kind.LATE
                del self._first[other.number]
                self._open_in_recovery(other)
        return memoryview(first)

    def _turn_away(self, stream: Stream, first: bytes) -> None:
        """A connection that is none of this migration's; the others go on."""
        what = "a second migration" if starts_main(first) else f"no migration, it begins with {first.hex()}"
        self.shared.warn(f"{self.title}: refused a connection: {what}; one at a time can go over a socket")
        stream.ended = True
        stream.close()

    def _read_main(self, stream: Stream, data: memoryview) -> None:
        """Look at it before it goes. The commit byte waits for what proves it."""
        undecidable = self.forward.may_end_in_commit(data)
        self.forward.see(data)
        if self.forward.has_return_path is False and not self._without_return_path:
            self.give_up(
                "the source's migration has no return path: a tail that is lost would leave no guest "
                "running; set the capability return-path on both QEMUs, or say --without-return-path"
            )
            return
        self._held_main.append(data)
        if self._release is not None:
            self._release.cancel()
            self._release = None
        if undecidable and not self.forward.committed:
            self._release = self.loop.call_later(COMMIT_PAUSE_SECONDS, self._send_main)
        elif self.forward.has_return_path is not None or self._without_return_path:
            self._send_main()

    def _send_main(self) -> None:
        self._release = None
        if self.is_over:
            return
        if self.forward.postcopy:
            self.state = State.POSTCOPY
        elif self.forward.committed:
            if self.state is not State.DONE:
                self.state = State.COMMITTING
        elif self.state in (State.GATHERING, State.COMMITTING):
            self.state = State.MOVING
        held, self._held_main = self._held_main, []
        for data in held:
            super().on_read(self.streams[MAIN], data)
        self.read_on()

    def on_qemu_end(self, stream: Stream, why: str) -> None:
        """By the table of `pipeline.relay`."""
        if self.is_over:
            return
        if stream.kind is Kind.LATE and stream.number not in self._late:
            stream.close()  # a stray one, that said nothing
            return
        done = self._has_gone_well()
        if stream.number == MAIN and not done:
            why = "the source's QEMU has ended the migration before it was done: cancelled, failed or gone"
            self.give_up(why, GRACE_SECONDS)
        elif not done and self.state is not State.COMMITTING:
            self.loop.call_later(REST_SECONDS, self._still_one_ended, stream.number)
        else:
            if self._held_main:
                self._send_main()
            self.out.add(FrameType.EOF, stream.number)
            self._end_if_all_is_said()

    def _still_one_ended(self, number: int) -> None:
        if not self.is_over and self.state not in (State.DONE, State.COMMITTING):
            self.give_up(f"connection {number} of the source's QEMU broke")

    def written(self, stream: Stream, arrived: Arrived) -> None:
        if stream.number == MAIN and arrived.type is FrameType.DATA:
            self.reverse.see(arrived.plain)
            if self.reverse.shut and self.state is not State.DONE:
                self.state = State.DONE if self.reverse.shut_value == 0 else State.MOVING
        elif arrived.type is FrameType.EOF:
            if stream.number == MAIN and not self.reverse.shut and not self._without_return_path:
                self.give_up("the destination's QEMU has ended without a word")
            if stream.ended:
                stream.close()
        self._end_if_all_is_said()

    def _acknowledged(self) -> None:
        self.read_on()
        self._end_if_all_is_said()

    def streams_open(self) -> bool:
        return any(not stream.ended for stream in self.streams.values())

    def _end_if_all_is_said(self) -> None:
        """Every connection of the source's has ended, and the destination's QEMU has it all."""
        done = self._has_gone_well()
        if self.controller is not None and self.controller.status != COMPLETED:
            done = False
        if done and not self.streams_open() and self.out.is_done() and not self._told_end:
            self._told_end = True
            self.state = State.DONE
            self.tell("ended")

    def heard(self, kind: str, said: dict[str, Any]) -> None:
        if kind == "accepted":
            self._accepted = True
            if not self.accepted.done():
                self.accepted.set_result(None)
        elif kind == "runs":
            self.runs_there_at = time.monotonic() - self.out.window.round_trip_seconds / 2
        elif kind == "report":
            self.peer_report = said.get("report")
            self.spawn(self._end_with_figures())

    def peer_gave_up(self, why: str, said: dict[str, Any]) -> None:
        if self._is_the_destinations():
            self._end_done(why)
        elif said.get("committed") and not said.get("dead"):
            # The destination may run, and its relay will not say so any more.
            self._undecided(why)
        else:
            super().peer_gave_up(why, said)

    async def _end_with_figures(self) -> None:
        if self.controller is not None:
            await self.controller.look()
        self.end(COMPLETED)

    def _why_not_switch_over(self) -> str:
        if self.is_over:
            return "the migration has ended"
        return "" if self.wires else "the other relay is gone"

    @property
    def blackout_ms(self) -> float | None:
        """For how long no guest ran, where both QEMUs told their relays."""
        stopped = self.controller.stopped_at if self.controller is not None else 0.0
        return (self.runs_there_at - stopped) * 1e3 if stopped and self.runs_there_at else None
