"""What carries rounds from source to destination: channels, queue and receivers, as one thing.

The coordinator hands it a round's list of pages; when `send` returns, all of them are applied.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from guestmem.ram import GuestRam
from guestmem.segment import PAGE_BYTES
from pipeline.accounting import Usage
from pipeline.channel import ChannelPlan, run_channel
from pipeline.codecs import METHODS
from pipeline.codecs.method import CodecSettings, Method
from pipeline.counters import Count, Counters
from pipeline.measured import SideFigures
from pipeline.options import Options
from pipeline.pacing import Wire, paced_packet_pages
from pipeline.packet import Limits, front_bytes
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


def packet_layout(options: Options) -> tuple[Method, CodecSettings, int, int]:
    """The method, its settings, pages of a packet and bytes of its payload at most."""
    assert options.level is not None
    settings = CodecSettings(
        level=options.level,
        qat_buffer_bytes=options.qat_buffer_bytes,
        qat_fallback=options.qat_fallback,
        decode_on_qat=options.qat_decode == "hardware",
    )
    method = METHODS[options.method]
    pages = paced_packet_pages(options.packet_pages, options.max_bandwidth)
    plain = pages * PAGE_BYTES
    return method, settings, pages, max(plain, method.bound_bytes(plain, settings))


def queue_bytes(options: Options) -> int:
    """Shared memory that the queue takes."""
    _, _, pages, payload = packet_layout(options)
    return options.queue_depth * (payload + front_bytes(pages))


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
        self._method, self._settings, self._packet_pages, payload = packet_layout(options)
        self.destination = GuestRam.create(source.size_bytes, "destination")
        self.rounds = RoundList(source.pages)
        self._queue = PacketQueue(options.queue_depth, front_bytes(self._packet_pages), payload)
        self.sent = Counters(options.channels)
        self.received = Counters(options.receivers)
        self.prealloc_ms: float | None = None
        self.fallback_reason = ""
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

    def _start_channels(self) -> list[Worker]:
        options = self._options
        wire = Wire(options.max_bandwidth)
        plans = [
            ChannelPlan(
                number=number,
                source=self._source,
                rounds=self.rounds,
                queue=self._queue,
                counters=self.sent,
                wire=wire,
                method=self._method,
                raw=RAW,
                settings=self._settings,
                packet_pages=self._packet_pages,
            )
            for number in range(options.channels)
        ]
        return [
            self._crew.start(f"channel {plan.number}", "send", functools.partial(run_channel, plan=plan))
            for plan in plans
        ]

    def _start_receivers(self) -> list[Worker]:
        options = self._options
        written = WrittenMap(self._source.pages)
        limits = Limits(
            ram_pages=self._source.pages,
            packet_pages=self._packet_pages,
            payload_bytes=self._queue.payload_bytes,
            channels=options.channels,
            method_codes=frozenset({self._method.code, RAW.code}),
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
                method=self._method,
                raw=RAW,
                settings=self._settings,
                limits=limits,
                prealloc=options.prealloc,
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
            if waiting:
                step(STEP_SECONDS)
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
