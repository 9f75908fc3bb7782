"""A migration at one relay: its streams, its connections to the other relay, its state.

What both sides do alike is here; what each side decides is in `source_session` and `destination_session`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pipeline.errors import one_line_of
from pipeline.relay.buffers import BLOCK_BYTES, Buffers
from pipeline.relay.codec_pool import CodecPool
from pipeline.relay.delivery import Arrived, Inbound, Outbound
from pipeline.relay.link_wire import LinkWire
from pipeline.relay.marks import ForwardMarks, ReverseMarks
from pipeline.relay.protocol import OWN_STREAM, Frame, FrameType, Kind
from pipeline.relay.stream import Stream
from pipeline.relay.wire import Wire

MAIN = 0
COMPLETED = "completed"
"""The outcome of a migration that went well."""

HOW_TO_RECOVER = (
    "the guest is in postcopy, half here and half there, and stands still: start new relays on new paths, "
    'give the destination\'s QEMU "migrate-recover" and the source\'s "migrate" with "resume"'
)

PING_SECONDS = 1.0
LAST_WORDS_SECONDS = 1.0
"""What is still to be said, when a migration has ended, may take so long."""


class State(Enum):
    """As the page of `pipeline.relay` has them."""

    GATHERING = "gathering"
    MOVING = "moving"
    COMMITTING = "committing"
    POSTCOPY = "postcopy"
    DONE = "done"
    ENDED = "ended"


@dataclass
class Shared:
    """What all migrations of a relay use together."""

    pool: CodecPool
    buffers: Buffers
    link: LinkWire
    say: Callable[[str], None]
    warn: Callable[[str], None]
    reconnect_seconds: float
    connections: int


@dataclass
class Figures:
    """What a migration's report is made of, beside its streams."""

    began_at: float = field(default_factory=time.monotonic)
    began_unix: float = field(default_factory=time.time)
    reconnections: int = 0
    breaks: list[str] = field(default_factory=list)
    stalls: int = 0
    stalled_seconds: float = 0.0
    wire_sent_bytes: int = 0
    undecided: bool = False


class Session:
    """One migration."""

    def __init__(self, name: str, migration_id: bytes, shared: Shared) -> None:
        self.name, self.id = name, migration_id
        self.shared = shared
        self.state = State.GATHERING
        self.streams: dict[int, Stream] = {}
        self.forward, self.reverse = ForwardMarks(), ReverseMarks()
        self.figures = Figures()
        self.outcome: str | None = None
        """None while it goes on; then `completed`, or why it failed."""
        self.finished = asyncio.get_running_loop().create_future()
        self.loop = asyncio.get_running_loop()
        self.out = Outbound(shared.pool, shared.buffers, shared.link)
        self.out.on_room = self.read_on
        self.into = Inbound(shared.pool, shared.buffers, self._arrived, self.release_main, self.give_up)
        self.peer_report: dict[str, Any] | None = None
        self.wires: dict[int, Wire] = {}
        self._waiting_main: list[Arrived] = []
        self._all_lost_at = 0.0
        self._pinger = self.loop.call_later(PING_SECONDS, self._ping)
        self._ended = False
        self.had_wires = False
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it beside everything else. What it raises is a fault of ours, and ends the relay."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_raise_in_loop)

    # ---------------------------------------------------------------- connections

    def attach(self, wire: Wire) -> None:
        """A connection to the other relay, new or again."""
        older = self.wires.get(wire.number)
        if older is not None and older.open:
            older.lose("called anew")
        self.wires[wire.number] = wire
        self.had_wires = True
        self.out.wires.append(wire)
        self.into.wires.append(wire)
        if self._all_lost_at:
            self.figures.stalls += 1
            self.figures.stalled_seconds += time.monotonic() - self._all_lost_at
            self._all_lost_at = 0.0
            if self.figures.undecided:
                self.figures.undecided = False
                self.shared.say(f"{self.title}: the relays speak again")
        wire.ping()
        self.into.ack_all()
        self.out.pump()

    def on_frame(self, wire: Wire, frame: Frame, payload: memoryview) -> None:
        if frame.type is FrameType.ACK:
            self.out.acknowledged(frame.stream, frame.sequence)
        else:
            self.into.take(frame, payload)

    def on_room(self, wire: Wire) -> None:
        self.out.pump()

    def on_lost(self, wire: Wire, why: str) -> None:
        self._count(wire)
        self.into.lost(wire)
        if self.wires.get(wire.number) is wire:
            del self.wires[wire.number]
        self.out.lost(wire)
        if self._ended:
            return
        self.figures.breaks.append(why)
        if not self.wires and not self._all_lost_at:
            self._all_lost_at = time.monotonic()
        self.connection_lost(wire, why)

    def _count(self, wire: Wire) -> None:
        self.figures.wire_sent_bytes += wire.sent_bytes
        wire.sent_bytes = 0

    def _ping(self) -> None:
        self._pinger = self.loop.call_later(PING_SECONDS, self._ping)
        for wire in list(self.wires.values()):
            wire.ping()
        trips = [wire.round_trip_seconds for wire in self.wires.values() if wire.round_trip_seconds]
        if trips:
            least = self.out.window.round_trip_seconds
            self.out.window.round_trip_seconds = min(trips) if not least else min(least, *trips)
        self.tick()

    @property
    def gone_seconds(self) -> float:
        """For how long there has been no connection to the other relay."""
        return time.monotonic() - self._all_lost_at if self._all_lost_at else 0.0

    @property
    def title(self) -> str:
        """For a reader."""
        return f"migration {self.name}" if self.name else "migration"

    # ---------------------------------------------------------------- the relays' own messages

    def tell(self, kind: str, **what: Any) -> None:
        """To the other relay."""
        body = json.dumps({"kind": kind, **what}, separators=(",", ":")).encode()
        self.out.add(FrameType.DATA, OWN_STREAM, memoryview(bytearray(body)))

    def _hear(self, plain: memoryview) -> None:
        try:
            said = json.loads(bytes(plain))
            kind = str(said["kind"])
        except (ValueError, KeyError, TypeError, RecursionError):
            self.give_up("the other relay's message is no message")
            return
        if kind == "abort":
            self.peer_gave_up(one_line_of(str(said.get("why", "")))[:300], said)
        else:
            self.heard(kind, said)

    # ---------------------------------------------------------------- streams

    def stream(self, number: int, kind: Kind) -> Stream:
        """A new one."""
        made = Stream(
            number, kind, self.shared.buffers, self.allowance, self.on_read, self.on_qemu_end, self.on_written
        )
        self.streams[number] = made
        return made

    def read_on(self) -> None:
        """Read from QEMU what there is room for."""
        if self._ended:
            return
        for stream in list(self.streams.values()):
            stream.watch(wanted=self.allowance(stream) > 0)

    def on_read(self, stream: Stream, data: memoryview) -> None:
        """Bytes of QEMU's."""
        if self._ended:
            return
        self.out.add(FrameType.DATA, stream.number, data, kind=stream.kind)

    def _arrived(self, arrived: Arrived) -> None:
        if arrived.stream == OWN_STREAM:
            if arrived.type is FrameType.DATA:
                self._hear(arrived.plain)
            self.into.done(arrived)
        elif self._ended:
            self.into.done(arrived)
        else:
            self.deliver(arrived)

    def deliver(self, arrived: Arrived) -> None:
        """A frame of a stream of QEMU's, in its stream's order."""
        if arrived.stream == MAIN:
            self._waiting_main.append(arrived)
        else:
            self._put(arrived)

    def release_main(self) -> None:
        """What of main has nothing outstanding in front of it."""
        while self._waiting_main and self.into.is_all_before(self._waiting_main[0].order):
            self._put(self._waiting_main.pop(0))

    def _put(self, arrived: Arrived) -> None:
        stream = self.streams.get(arrived.stream)
        if stream is None:
            self.give_up(f"bytes of stream {arrived.stream}, which was never opened")
            return
        self.about_to_write(stream, arrived)
        if not self._ended:
            stream.put(arrived)

    def on_written(self, stream: Stream, arrived: Arrived) -> None:
        """QEMU has it."""
        self.written(stream, arrived)
        self.into.done(arrived)

    # ---------------------------------------------------------------- ends

    def give_up(self, why: str, grace_seconds: float = 0.0) -> None:
        """Close everything of QEMU's, here and there; here after a while where QEMU closes it itself."""
        if self._ended:
            return
        self.out.drop()
        self.tell("abort", why=why, **self.last_facts())
        self.end(why, grace_seconds)

    def peer_gave_up(self, why: str, said: dict[str, Any]) -> None:
        """The other relay has closed what it had."""
        self.out.drop()
        self.end(why)

    def end(self, outcome: str, grace_seconds: float = 0.0) -> None:
        """Nothing of QEMU's goes on here; what is to be told to the other relay still may."""
        if self._ended:
            return
        self._ended = True
        if self.state is State.POSTCOPY and outcome != COMPLETED:
            outcome = f"{outcome}; {HOW_TO_RECOVER}"
        self.outcome = outcome
        self.state = State.ENDED
        if not grace_seconds:
            self._close_streams()
        self.spawn(self._last_words(grace_seconds))

    def _close_streams(self) -> None:
        for stream in self.streams.values():
            stream.close()

    async def _last_words(self, grace_seconds: float) -> None:
        until = time.monotonic() + grace_seconds
        while time.monotonic() < until and not all(stream.hung_up() for stream in self.streams.values()):
            await asyncio.sleep(0.01)
        self._close_streams()
        until = time.monotonic() + LAST_WORDS_SECONDS
        while not self.out.is_done() and (self.wires or not self.had_wires) and time.monotonic() < until:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        self.into.flush_acks()
        self._pinger.cancel()
        for wire in list(self.wires.values()):
            self._count(wire)
            wire.finish()
        if not self.finished.done():
            self.finished.set_result(None)

    @property
    def is_over(self) -> bool:
        return self._ended

    # ---------------------------------------------------------------- what each side decides

    def ends_by_itself(self) -> bool:
        """Whether it has gone well, and only the last words are missing: it is not to be broken off."""
        return self.state is State.DONE

    def last_facts(self) -> dict[str, Any]:
        """What the other relay has to know when this one gives up."""
        return {}

    def allowance(self, stream: Stream) -> int:
        """How many bytes of it may be read now."""
        return BLOCK_BYTES

    def about_to_write(self, stream: Stream, arrived: Arrived) -> None:
        """Bytes for QEMU are to be written."""

    def written(self, stream: Stream, arrived: Arrived) -> None:
        """Bytes for QEMU have been written."""

    def on_qemu_end(self, stream: Stream, why: str) -> None:
        """A stream of QEMU's has ended here."""
        raise NotImplementedError

    def connection_lost(self, wire: Wire, why: str) -> None:
        """A connection to the other relay broke."""
        raise NotImplementedError

    def heard(self, kind: str, said: dict[str, Any]) -> None:
        """A message of the other relay's."""

    def tick(self) -> None:
        """Once a second."""


def _raise_in_loop(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        task.get_loop().call_exception_handler({"message": "a task failed", "exception": error})
