"""The send side of every transport: the round's list, the channels, and the queue that they fill.

A transport (`pipeline.transports.base`) takes the filled slots from here to the destination.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from guestmem.ipc import Message
from guestmem.page import PAGE_BYTES
from guestmem.ram import GuestRam
from pipeline.auto.candidates import Candidate, candidates_here
from pipeline.auto.controller import Auto
from pipeline.auto.picker import AutoPicker, FixedPicker, Picker
from pipeline.codecs import METHODS
from pipeline.codecs.method import CodecSettings, Method
from pipeline.options import AUTO, Options
from pipeline.packets.counters import Counters
from pipeline.packets.pacing import Wire, paced_packet_pages
from pipeline.packets.packet import front_room
from pipeline.packets.queue import PacketQueue
from pipeline.packets.round_list import RoundList
from pipeline.processes.supervisor import Supervisor, Worker
from pipeline.processes.usage import SideFigures, figures_of
from pipeline.source.channel import ChannelPlan, run_channel
from pipeline.source.keeping import Keeping
from pipeline.source.kept_pages import KeptPages

STEP_SECONDS = 0.1
"""How often the coordinator is called while a round is sent."""

RAW = METHODS["none"]

Step = Callable[[float], None]
"""Called while a round goes on, with the seconds to wait at most."""


LOOK_SECONDS = 0.0002
LOOKS_A_STEP = 50


def look_until(done: Callable[[], bool], step: Step) -> None:
    """Look at counters in shared memory until `done`, five times a millisecond. Raises what `step` does."""
    looks = 0
    while not done():
        looks += 1
        if looks % LOOKS_A_STEP == 0:
            step(0.0)
        time.sleep(LOOK_SECONDS)


@dataclass(frozen=True)
class PacketLayout:
    """What packets may be: by which methods, of how many pages, with how much payload at most.

    `candidates` are what method auto chooses from; empty for a fixed method.
    """

    methods: tuple[Method, ...]
    settings: CodecSettings
    candidates: tuple[Candidate, ...]
    pages: int
    payload_bytes: int

    @classmethod
    def of(cls, options: Options) -> PacketLayout:
        """By the options; auto asks the host."""
        settings = CodecSettings.of(options.level or 0, options.qat, options.method)
        candidates = candidates_here(with_qat=options.auto_with_qat) if options.method == AUTO else ()
        names = {candidate.method_name for candidate in candidates} or {options.method}
        methods = (RAW, *(METHODS[name] for name in sorted(names - {RAW.name})))
        pages = paced_packet_pages(options.packet_pages, options.max_bandwidth)
        return cls(methods, settings, candidates, pages, payload_room(methods, settings, pages))

    def decoded_on_qat(self, wanted: bool) -> PacketLayout:
        """The same where a receiver `wanted` a device to decompress, or not."""
        return replace(self, settings=replace(self.settings, decode_on_qat=wanted))

    @property
    def slot_bytes(self) -> int:
        """Shared memory that a slot of the queue takes, about."""
        return self.payload_bytes + front_room(self.pages)


SECOND_GROUP_BYTES = 64 << 10
"""What a packet's second group, its deltas, may need more than one group of all its pages."""


def payload_room(methods: tuple[Method, ...], settings: CodecSettings, pages: int) -> int:
    """Bytes that a payload of `pages` pages takes at most, by whichever method."""
    plain = pages * PAGE_BYTES
    return max(plain, *(method.bound_bytes(plain, settings) for method in methods)) + SECOND_GROUP_BYTES


class SendSide:
    """The channels and what they share."""

    def __init__(
        self,
        options: Options,
        layout: PacketLayout,
        supervisor: Supervisor,
        source: GuestRam,
        frame_bytes: int | None = None,
        open_wire: Callable[[int, Counters], Wire] = lambda limit, sent: Wire(limit),
    ) -> None:
        """Create what is shared. `frame_bytes` is what the transport adds to a packet, where it sends
        raw pages out of RAM itself; None where all payloads must be in the slots.

        Raises OSError, HostError where shared memory or pipes cannot be had.
        """
        self._options = options
        self._supervisor = supervisor
        self._source = source
        self._frame_bytes = frame_bytes
        self.layout = layout
        self.rounds = RoundList(source.pages)
        self.sent = Counters(options.channels)
        self.wire = open_wire(options.max_bandwidth, self.sent)
        self.auto: Auto | None = None
        if layout.candidates:
            self.auto = Auto(layout.candidates, options.channels, options.receivers, self.sent, self.wire)
        self.keeping: Keeping | None = None
        self._kept: KeptPages | None = None
        self._channels: list[Worker] = []
        self._is_calling: Callable[[int], bool] | None = None
        self.said_ready: list[Message] = []
        """What the channels said when they were ready."""

    @functools.cached_property
    def queue(self) -> PacketQueue:
        """What the channels fill. Made when it is first asked for, which must be before any worker is forked.

        Raises HostError where shared memory or pipes cannot be had.
        """
        layout = self.layout
        return PacketQueue(self._options.queue_depth, front_room(layout.pages), layout.payload_bytes)

    def keep_pages(self) -> None:
        """Deltas may go, since the receiver takes them. Called before any worker is forked. Raises
        OSError."""
        options = self._options
        if options.delta_bytes:
            self._kept = KeptPages(self._source.pages, options.delta_bytes, options.channels)
            self.keeping = Keeping(self._kept)

    def use(self, channels: list[Worker], is_calling: Callable[[int], bool]) -> None:
        """Have channels of the transport's claim and send by themselves.

        `is_calling` says of a channel, by its index, that it has no connection: no round waits for it.
        """
        self._channels, self._is_calling = channels, is_calling

    def plan(self, number: int) -> ChannelPlan:
        """What channel `number` works with."""
        return ChannelPlan(
            number=number,
            source=self._source,
            rounds=self.rounds,
            counters=self.sent,
            wire=self.wire,
            raw=RAW,
            open_picker=functools.partial(self._open_picker, number),
            packet_pages=self.layout.pages,
            in_place=self._frame_bytes is not None,
            frame_bytes=self._frame_bytes or 0,
            kept=self._kept,
        )

    def start(self) -> None:
        """Start channels that fill the queue."""
        queue = self.queue
        self._channels = [
            self._supervisor.start(
                f"channel {number}",
                "send",
                functools.partial(run_channel, plan=self.plan(number), queue=queue),
            )
            for number in range(self._options.channels)
        ]

    def _open_picker(self, number: int) -> Picker:
        """Called in the channel's own process. Raises CodecUnavailable."""
        layout = self.layout
        if self.auto is None:
            method = layout.methods[-1]
            return FixedPicker(method, method.open_encoder(layout.settings), layout.settings.level)
        channels = self._options.channels
        return AutoPicker(
            number, channels, layout.candidates, layout.settings, self.auto.statistics, self.wire
        )

    def await_ready(self) -> tuple[set[str], bool]:
        """Wait until every channel has set itself up; why software compresses, and whether a device is
        emulated."""
        messages = [self._supervisor.await_message(worker, "ready") for worker in self._channels]
        self.said_ready = messages
        reasons = {str(message["fallback_reason"]) for message in messages}
        return reasons - {""}, any(message["simulated"] for message in messages)

    def send(self, number: int, pages: int, step: Step) -> float:
        """Have the first `pages` of the list claimed, compressed and queued.

        Returns when all were (monotonic seconds). Raises what `step` raises.
        """
        if self.keeping is not None:
            self.keeping.begin(number, self.rounds.pages[:pages])
        self.rounds.begin(number, pages)
        for channel in self._channels:
            self._supervisor.tell(channel, {"kind": "round"})
        waiting = list(range(len(self._channels)))
        while waiting:
            waiting = [index for index in waiting if not self._has_sent(index, number)]
            if self.auto is not None:
                self.auto.sample()
            if waiting:
                step(STEP_SECONDS if self.auto is None else self.auto.step_seconds)
        return time.monotonic()

    def _has_sent(self, index: int, number: int) -> bool:
        """Whether a channel has no part in the round any more: it said so, or it cannot have one."""
        while (found := self._supervisor.take(self._channels[index], "sent")) is not None:
            if found[0]["round"] == number:
                return True
        if self._is_calling is None:
            return False
        # In this order: one that gets its connection back in between finds nothing to claim.
        return self.rounds.unclaimed() == 0 and self._is_calling(index)

    def finish(self) -> tuple[SideFigures, set[str]]:
        """End the channels; what they used inside the clock, and why software compressed. Those of the
        transport's it ends itself."""
        if self._is_calling is not None:
            return SideFigures(), set()
        return figures_of(self._supervisor.finish(self._channels))
