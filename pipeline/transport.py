"""What carries rounds from source to destination: channels, queue and receivers, as one thing.

The coordinator hands it a round's list of pages; when `send` returns, all of them are applied.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from guestmem.ram import GuestRam
from guestmem.segment import PAGE_BYTES
from pipeline.accounting import Usage
from pipeline.arguments import AUTO
from pipeline.auto import Auto
from pipeline.channel import ChannelPlan, run_channel
from pipeline.codecs import METHODS
from pipeline.codecs.method import CodecSettings, Method
from pipeline.counters import Count, Counters
from pipeline.ladder import Rung, ladder
from pipeline.measured import SideFigures
from pipeline.options import Options
from pipeline.pacing import Wire, paced_packet_pages
from pipeline.packet import Limits, front_bytes
from pipeline.picker import AutoPicker, FixedPicker, Picker
from pipeline.queue import PacketQueue
from pipeline.receiver import ReceiverPlan, WrittenMap, run_receiver
from pipeline.rounds import RoundList
from pipeline.workers import Crew, Worker

STEP_SECONDS = 0.1
"""How often the coordinator is called while a round is sent."""

DRAIN_STEP_SECONDS = 0.0002
"""How often the barrier looks whether the last packets of a round are applied."""

RAW = METHODS["none"]

Step = Callable[[float], None]
"""Called while a round goes on, with the seconds to wait at most."""


@dataclass(frozen=True)
class PacketLayout:
    """What packets may be: by which methods, of how many pages, with how much payload at most.

    `rungs` are what method auto chooses from; empty for a fixed method.
    """

    methods: tuple[Method, ...]
    settings: CodecSettings
    rungs: tuple[Rung, ...]
    pages: int
    payload_bytes: int

    @classmethod
    def of(cls, options: Options) -> PacketLayout:
        """By the options; auto asks the host."""
        settings = CodecSettings(
            level=options.level or 0,
            qat_buffer_bytes=options.qat_buffer_bytes,
            qat_fallback=options.qat_fallback,
            decode_on_qat=options.qat_decode == "hardware",
            qat_timeout_seconds=options.qat_timeout_seconds,
        )
        rungs = ladder(with_qat=options.auto_with_qat) if options.method == AUTO else ()
        names = {rung.method_name for rung in rungs} or {options.method}
        methods = (RAW, *(METHODS[name] for name in sorted(names - {RAW.name})))
        pages = paced_packet_pages(options.packet_pages, options.max_bandwidth)
        plain = pages * PAGE_BYTES
        room = max(method.bound_bytes(plain, settings) for method in methods)
        return cls(methods, settings, rungs, pages, max(plain, room))


def queue_bytes(options: Options) -> int:
    """Shared memory that the queue takes."""
    layout = PacketLayout.of(options)
    return options.queue_depth * (layout.payload_bytes + front_bytes(layout.pages))


def _joined(reasons: set[str]) -> str:
    return ", ".join(sorted(reasons - {""}))


class Transport:
    """The workers of both sides and what they share."""

    def __init__(self, options: Options, crew: Crew, source: GuestRam) -> None:
        """Create what is shared and fork the workers; `await_ready` waits for them.

        Raises OSError, HostError where shared memory or message queues cannot be had.
        """
        self._options = options
        self._crew = crew
        self._source = source
        self._layout = layout = PacketLayout.of(options)
        self.destination = GuestRam.create(source.size_bytes, "destination")
        self.rounds = RoundList(source.pages)
        self._queue = PacketQueue(options.queue_depth, front_bytes(layout.pages), layout.payload_bytes)
        self.sent = Counters(options.channels)
        self.received = Counters(options.receivers)
        self._wire = Wire(options.max_bandwidth)
        self.auto: Auto | None = None
        if layout.rungs:
            self.auto = Auto(layout.rungs, options.channels, options.receivers, self.sent, self._wire)
        self.prealloc_ms: float | None = None
        self.fallback_reason = ""
        self.simulated = False
        self._receivers = self._start_receivers()
        self._channels = self._start_channels()

    def await_ready(self) -> None:
        """Wait until every worker has set itself up."""
        sent = [self._await(worker, "ready") for worker in self._channels]
        received = [self._await(worker, "ready") for worker in self._receivers]
        if self._options.prealloc:
            self.prealloc_ms = max(float(message["prealloc_ms"]) for message in received)
        reasons = {str(message["fallback_reason"]) for message in sent + received}
        self.fallback_reason = _joined(reasons)
        self.simulated = any(message["simulated"] for message in sent + received)

    def _start_channels(self) -> list[Worker]:
        options = self._options
        plans = [
            ChannelPlan(
                number=number,
                source=self._source,
                rounds=self.rounds,
                queue=self._queue,
                counters=self.sent,
                wire=self._wire,
                raw=RAW,
                open_picker=functools.partial(self._open_picker, number),
                packet_pages=self._layout.pages,
            )
            for number in range(options.channels)
        ]
        return [
            self._crew.start(f"channel {plan.number}", "send", functools.partial(run_channel, plan=plan))
            for plan in plans
        ]

    def _open_picker(self, number: int) -> Picker:
        """Called in the channel's own process. Raises CodecUnavailable."""
        layout = self._layout
        if self.auto is None:
            method = layout.methods[-1]
            return FixedPicker(method, method.open_encoder(layout.settings))
        channels = self._options.channels
        return AutoPicker(number, channels, layout.rungs, layout.settings, self.auto.tally, self._wire)

    def _start_receivers(self) -> list[Worker]:
        options = self._options
        written = WrittenMap(self._source.pages)
        limits = Limits(
            ram_pages=self._source.pages,
            packet_pages=self._layout.pages,
            payload_bytes=self._queue.payload_bytes,
            channels=options.channels,
            method_codes=frozenset(method.code for method in self._layout.methods),
            raw_code=RAW.code,
        )
        plans = [
            ReceiverPlan(
                number=number,
                receivers=options.receivers,
                destination=self.destination,
                written=written,
                rounds=self.rounds,
                queue=self._queue,
                counters=self.received,
                methods=self._layout.methods,
                raw=RAW,
                settings=self._layout.settings,
                limits=limits,
                prealloc=options.prealloc,
                tally=self.auto.tally if self.auto else None,
            )
            for number in range(options.receivers)
        ]
        return [
            self._crew.start(f"receiver {plan.number}", "recv", functools.partial(run_receiver, plan=plan))
            for plan in plans
        ]

    def send(self, number: int, pages: int, step: Step) -> float:
        """Send the first `pages` of the list and wait until all are applied.

        Returns when all were sent (monotonic seconds). Raises what `step` raises.
        """
        self.rounds.begin(number, pages)
        for channel in self._channels:
            self._crew.tell(channel, {"kind": "round"})
        waiting = list(self._channels)
        while waiting:
            waiting = [worker for worker in waiting if self._crew.take(worker, "sent") is None]
            if self.auto is not None:
                self.auto.look()
            if waiting:
                step(STEP_SECONDS if self.auto is None else self.auto.step_seconds)
        sent_at = time.monotonic()
        self._drain(step)
        return sent_at

    def _drain(self, step: Step) -> None:
        """The barrier: every packet sent is applied before anything of the next round is sent."""
        sent = int(self.sent.totals()[Count.PACKETS])
        looks = 0
        while int(self.received.totals()[Count.PACKETS]) != sent:
            looks += 1
            if looks % 50 == 0:
                step(0.0)
            time.sleep(DRAIN_STEP_SECONDS)

    def finish(self) -> tuple[SideFigures, SideFigures]:
        """End the workers; what the send side's and the receive side's used inside the clock."""
        sides = SideFigures(), SideFigures()
        reasons = set()
        for side, workers in zip(sides, (self._channels, self._receivers), strict=True):
            for worker in workers:
                worker.leaving = True
                self._crew.tell(worker, {"kind": "finish"})
            for worker in workers:
                message = self._await(worker, "usage")
                used = {name: message[name] for name in Usage.__dataclass_fields__}
                side.add(Usage(**used), int(message["private_bytes"]))
                reasons.add(str(message["fallback_reason"]))
        self.fallback_reason = _joined(reasons)
        return sides

    def _await(self, worker: Worker, kind: str) -> dict[str, Any]:
        while (found := self._crew.take(worker, kind)) is None:
            self._crew.wait(STEP_SECONDS)
        return found[0]
