"""Streams carried over connections that may break: in order, once, and no more under way than time allows.

Both relays have the same two halves, for what they send and for what they receive. They know nothing of
QEMU: what comes out of one end is told to the session that has them (`pipeline.relay.session`).
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from pipeline.errors import FerryError
from pipeline.relay.buffers import Buffers
from pipeline.relay.codec_pool import FEWEST_BYTES, NONE_CODE, CodecPool, DecodeJob, DecodeLane, EncodeLane
from pipeline.relay.lanes import HISTORY_BYTES_PER_SECOND
from pipeline.relay.link_wire import LinkWire
from pipeline.relay.protocol import OWN_STREAM, Frame, FrameType, Kind, pack
from pipeline.relay.window import NEVER, Pace, Window
from pipeline.relay.wire import Wire

NOTHING = memoryview(b"")

ACK_SECONDS = 0.002
"""So long acknowledgements are gathered: a few per cent of what may be under way."""


@dataclass(eq=False)
class Item:
    """A frame with a sequence, until it is acknowledged."""

    type: FrameType
    stream: int
    sequence: int
    order: int
    urgent: bool
    plain: memoryview
    method: int = 0
    payload: memoryview = NOTHING
    wire: Wire | None = None
    history: int = 0
    read_at: float = 0.0
    is_sent_again: bool = False
    is_done: bool = False

    def __lt__(self, other: Item) -> bool:
        return (not self.urgent, self.order) < (not other.urgent, other.order)


@dataclass
class Carried:
    """What a stream carried in one direction."""

    plain_bytes: int = 0
    payload_bytes: int = 0
    retransmitted_bytes: int = 0


class Outbound:
    """What goes to the other relay."""

    def __init__(self, pool: CodecPool, buffers: Buffers, link: LinkWire) -> None:
        self._pool, self._buffers, self._link = pool, buffers, link
        self._loop = asyncio.get_running_loop()
        self.wires: list[Wire] = []
        self.window, self.pace = Window(), Pace()
        self.carried: dict[int, Carried] = {}
        self.under_way: Counter[int] = Counter()
        self._next: dict[int, int] = {}
        self._lanes: dict[int, EncodeLane] = {}
        self._order = 0
        self._unacked: dict[int, deque[Item]] = {}
        self._ready: list[Item] = []
        self._paced_until = 0
        self._paced: asyncio.TimerHandle | None = None
        self.on_room: Callable[[], None] = lambda: None

    def add(self, type_: FrameType, stream: int, plain: memoryview = NOTHING, kind: int = 0) -> None:
        """A frame more. `plain` is given back when it is acknowledged; of OPEN, `kind` is the stream's."""
        self._order += 1
        sequence = self._next[stream] = self._next.get(stream, 0) + 1
        urgent = stream == OWN_STREAM or kind == Kind.LATE or 0 < len(plain) <= FEWEST_BYTES
        item = Item(type_, stream, sequence, self._order, urgent, plain, read_at=time.monotonic())
        self._unacked.setdefault(stream, deque()).append(item)
        self.window.took(len(plain))
        self.under_way[stream] += len(plain)
        if type_ is FrameType.OPEN:
            item.method = kind
        if type_ is not FrameType.DATA or self._pool.raw or len(plain) <= FEWEST_BYTES:
            if type_ is FrameType.DATA:
                item.method, item.payload = NONE_CODE, plain
            self._queue(item)
        else:
            self._pool.encode(plain, partial(self._encoded, item), self._lane(stream))

    def _lane(self, stream: int) -> EncodeLane | None:
        """Of a stream, while the link is slow enough for one thread a stream."""
        lane = self._lanes.get(stream)
        if lane is None:
            lane = self._lanes[stream] = EncodeLane()
        rate = self._link.bytes_per_second
        at_once = min(len(self._lanes), self._pool.channels)
        return lane if 0 < rate <= HISTORY_BYTES_PER_SECOND * at_once else None

    def _encoded(self, item: Item, code: int, payload: memoryview, history: int) -> None:
        item.method, item.payload, item.history = code, payload, history
        self.pace.saw(len(item.plain), len(payload))
        if payload is not item.plain:
            self._buffers.give(item.plain)
        self._queue(item)

    def _queue(self, item: Item) -> None:
        carried = self.carried.setdefault(item.stream, Carried())
        carried.plain_bytes += len(item.plain)
        carried.payload_bytes += len(item.payload)
        heapq.heappush(self._ready, item)
        self.pump()

    def pump(self) -> None:
        """Send what is ready, as far as the connections take it."""
        while self._ready:
            now = time.monotonic_ns()
            if self._paced_until > now and not self._ready[0].urgent:
                self._pace((self._paced_until - now) / 1e9)
                return
            wire = self._free_wire()
            if wire is None:
                return
            item = heapq.heappop(self._ready)
            if item.is_done:
                continue
            self._paced_until = max(self._paced_until, self._link.reserve(len(item.payload)))
            self._send(wire, item)

    def _free_wire(self) -> Wire | None:
        free = [wire for wire in self.wires if wire.has_room()]
        return min(free, key=lambda wire: wire.sent_bytes) if free else None

    def _pace(self, seconds: float) -> None:
        if self._paced is None:
            self._paced = self._loop.call_later(seconds, self._paced_out)

    def _paced_out(self) -> None:
        self._paced = None
        self.pump()

    def _send(self, wire: Wire, item: Item) -> None:
        item.wire = wire
        header = pack(
            *(item.type, item.stream, item.sequence, item.order, item.method, len(item.plain), item.payload),
            with_crc=item.type is FrameType.DATA and item.method != NONE_CODE,
            history=item.history,
        )
        wire.send(header, item.payload if len(item.payload) else None)

    def acknowledged(self, stream: int, sequence: int) -> None:
        """All of a stream up to that is done with, at the other side."""
        items = self._unacked.get(stream)
        now = time.monotonic()
        while items and items[0].sequence <= sequence:
            item = items.popleft()
            self.window.gave(len(item.plain), now - item.read_at if len(item.plain) > FEWEST_BYTES else NEVER)
            self.under_way[stream] -= len(item.plain)
            item.is_done = True
            if not item.is_sent_again:
                self._buffers.give(item.payload)
        self.on_room()

    def is_done(self) -> bool:
        """Whether all that was added has been acknowledged."""
        return not any(self._unacked.values())

    def lost(self, wire: Wire) -> None:
        """What went over a connection that broke goes again."""
        if wire in self.wires:
            self.wires.remove(wire)
        for items in self._unacked.values():
            for item in items:
                if item.wire is wire:
                    item.wire = None
                    # What came the first time is acknowledged while a connection still reads the second.
                    item.is_sent_again = True
                    self.carried[item.stream].retransmitted_bytes += len(item.payload)
                    heapq.heappush(self._ready, item)
        self.pump()

    def drop(self) -> None:
        """Nothing of QEMU's goes any more; the relays' own messages do."""
        for stream in [stream for stream in self._unacked if stream != OWN_STREAM]:
            for item in self._unacked.pop(stream):
                self.window.gave(len(item.plain), NEVER)
            self.under_way[stream] = 0
        self._ready = [item for item in self._ready if item.stream == OWN_STREAM]
        heapq.heapify(self._ready)


@dataclass
class _Arriving:
    """A stream as it comes in."""

    expected: int = 1
    done: int = 0
    held: dict[int, Arrived | None] = field(default_factory=dict)
    come: int = 0
    """Everything up to this sequence has come; what has a history waits for that."""
    waiting: dict[int, DecodeJob | None] = field(default_factory=dict)
    lane: DecodeLane = field(default_factory=DecodeLane)


@dataclass
class Arrived:
    """A frame that has come, decompressed. `order` says what was read before it."""

    type: FrameType
    stream: int
    sequence: int
    order: int
    kind: int
    plain: memoryview


class Inbound:
    """What comes from the other relay."""

    def __init__(
        self,
        pool: CodecPool,
        buffers: Buffers,
        deliver: Callable[[Arrived], None],
        after_arrival: Callable[[], None],
        fail: Callable[[str], None],
    ) -> None:
        """`deliver` takes each frame, a stream's in order; `done` is to be called when it is done with.
        `after_arrival` is called whenever something has come."""
        self._after_arrival = after_arrival
        self._pool, self._buffers = pool, buffers
        self._deliver, self._fail = deliver, fail
        self._loop = asyncio.get_running_loop()
        self._streams: dict[int, _Arriving] = {}
        self._orders: list[int] = []
        self._all_below = 1
        self._to_ack: set[int] = set()
        self.wires: list[Wire] = []
        self.duplicates_bytes = 0
        self.held_bytes = self.peak_held_bytes = 0

    def take(self, frame: Frame, payload: memoryview) -> None:
        """A frame, new or again."""
        stream = self._streams.setdefault(frame.stream, _Arriving())
        if frame.sequence < stream.expected or frame.sequence in stream.held:
            self.duplicates_bytes += len(payload)
            self._buffers.give(payload)
            self._ack(frame.stream)
            return
        stream.held[frame.sequence] = None
        self.held_bytes += frame.plain_bytes
        self.peak_held_bytes = max(self.peak_held_bytes, self.held_bytes)
        self._decode_in_order(stream, frame, payload)
        if frame.type is FrameType.DATA and frame.method != NONE_CODE:
            if not frame.history:
                self._pool.decode(self._job(frame, payload))
        elif frame.type is FrameType.DATA and len(payload) != frame.plain_bytes:
            self._fail(f"{len(payload)} raw bytes for {frame.plain_bytes}")
        else:
            self._arrived(frame, payload)

    def _job(self, frame: Frame, payload: memoryview) -> DecodeJob:
        done = partial(self._decoded, frame)
        return DecodeJob(frame.method, payload, frame.plain_bytes, frame.history, done)

    def _decode_in_order(self, stream: _Arriving, frame: Frame, payload: memoryview) -> None:
        """What has a history, as soon as everything of its stream before it has come."""
        stream.waiting[frame.sequence] = self._job(frame, payload) if frame.history else None
        while (following := stream.come + 1) in stream.waiting:
            stream.come = following
            job = stream.waiting.pop(following)
            if job is not None:
                self._pool.decode(job, stream.lane)

    def _decoded(self, frame: Frame, plain: memoryview, error: FerryError | None) -> None:
        if error is not None:
            self._fail(str(error))
        else:
            self._arrived(frame, plain)

    def _arrived(self, frame: Frame, plain: memoryview) -> None:
        stream = self._streams[frame.stream]
        heapq.heappush(self._orders, frame.order)
        while self._orders and self._orders[0] == self._all_below:
            heapq.heappop(self._orders)
            self._all_below += 1
        stream.held[frame.sequence] = Arrived(
            frame.type, frame.stream, frame.sequence, frame.order, frame.method, plain
        )
        while (found := stream.held.get(stream.expected)) is not None:
            del stream.held[stream.expected]
            stream.expected += 1
            self._deliver(found)
        self._after_arrival()

    def is_all_before(self, order: int) -> bool:
        """Whether everything of a lower order has come."""
        return self._all_below >= order

    def done(self, arrived: Arrived) -> None:
        """A frame's bytes are where they belong."""
        self._streams[arrived.stream].done = arrived.sequence
        self.held_bytes -= len(arrived.plain)
        self._buffers.give(arrived.plain)
        self._ack(arrived.stream)

    def _ack(self, stream: int) -> None:
        if not self._to_ack:
            self._loop.call_later(ACK_SECONDS, self._send_acks)
        self._to_ack.add(stream)

    def lost(self, wire: Wire) -> None:
        """What was acknowledged over a connection that broke may not have come."""
        if wire in self.wires:
            self.wires.remove(wire)
        self.ack_all()

    def ack_all(self) -> None:
        """Again, over a connection that is new."""
        for stream in self._streams:
            self._ack(stream)

    def flush_acks(self) -> None:
        """Now: nothing may be sent any more soon."""
        if self._to_ack:
            self._send_acks()

    def _send_acks(self) -> None:
        streams, self._to_ack = self._to_ack, set()
        wire = next((wire for wire in self.wires if wire.open), None)
        for stream in streams if wire is not None else ():
            assert wire is not None
            wire.send(pack(FrameType.ACK, stream, self._streams[stream].done))
