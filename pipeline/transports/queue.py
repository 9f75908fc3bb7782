"""`queue`: receivers on this host take slots from the queue, straight into the destination."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable

from guestmem.ram import GuestRam, PageNumbers
from guestmem.selfcheck import inconsistency
from pipeline.destination.applied_rounds import AppliedRounds
from pipeline.destination.placer import PlacerPlan, WrittenMap
from pipeline.destination.receiver import ReceiverPlan, run_receiver
from pipeline.destination.verification import differences
from pipeline.options import CHECKS, Options
from pipeline.packets.counters import Count, Counters, Totals
from pipeline.packets.packet import Limits
from pipeline.processes.supervisor import Supervisor, Worker
from pipeline.processes.usage import SideFigures, figures_of
from pipeline.source.send_side import RAW, PacketLayout, SendSide, Step, look_until
from pipeline.transports.base import Readiness, RoundOutcome, TransportFigures

BLOCK_BYTES = 512
"""The unit of st_blocks (inode(7))."""


class QueueTransport:
    """The receivers and the destination."""

    def __init__(
        self, options: Options, layout: PacketLayout, supervisor: Supervisor, source: GuestRam
    ) -> None:
        """Create the destination and fork all workers. Raises OSError, HostError."""
        self._options = options
        self._supervisor = supervisor
        self._source = source
        self.sending = SendSide(options, layout, supervisor, source)
        self.sending.keep_pages()
        self._destination = GuestRam.create(source.size_bytes, "destination")
        self._counters = Counters(options.receivers)
        self._receivers = self._start_receivers()
        self.sending.start()

    def _start_receivers(self) -> list[Worker]:
        options, sending = self._options, self.sending
        layout, auto = sending.layout, sending.auto
        written = WrittenMap(self._source.pages)
        applied = AppliedRounds(self._source.pages) if sending.keeping is not None else None
        limits = Limits(
            ram_pages=self._source.pages,
            packet_pages=layout.pages,
            payload_bytes=sending.queue.payload_bytes,
            channels=options.channels,
            method_codes=frozenset(method.code for method in layout.methods),
            raw_code=RAW.code,
            deltas=applied is not None,
        )
        plans = [
            ReceiverPlan(
                number=number,
                placing=PlacerPlan(
                    destination=self._destination,
                    written=written,
                    methods=layout.methods,
                    raw=RAW,
                    settings=layout.settings,
                    packet_pages=layout.pages,
                    prealloc=options.prealloc,
                    huge_pages=options.huge_pages != "off",
                    share=number / options.receivers,
                    statistics=auto.statistics if auto else None,
                    statistics_row=number,
                    applied=applied,
                ),
                rounds=sending.rounds,
                queue=sending.queue,
                counters=self._counters,
                limits=limits,
            )
            for number in range(options.receivers)
        ]
        return [
            self._supervisor.start(
                f"receiver {plan.number}", "recv", functools.partial(run_receiver, plan=plan)
            )
            for plan in plans
        ]

    def await_ready(self, between: Callable[[float], None]) -> Readiness:
        prealloc = self._options.prealloc
        size = self._destination.size_bytes

        def look() -> None:
            if prealloc:
                between(os.fstat(self._destination.fd).st_blocks * BLOCK_BYTES / size)

        return Readiness.await_all(self._supervisor, self._receivers, prealloc=prealloc, between=look)

    def settle(self, number: int, pages: PageNumbers, step: Step, stands: Callable[[], bool]) -> RoundOutcome:
        """Every packet that was queued is applied; on this way none is ever lost."""
        sent = int(self.sending.sent.totals()[Count.PACKETS])
        look_until(lambda: int(self.received()[Count.PACKETS]) == sent, step)
        return RoundOutcome(time.monotonic())

    def received(self) -> Totals:
        return self._counters.totals()

    def verify(
        self, how: str, between: Callable[[float], None], unexplained: Callable[[PageNumbers], PageNumbers]
    ) -> dict[str, str]:
        """Both images are here: byte for byte."""
        wrong = {}
        if "invariant" in CHECKS[how]:
            wrong["invariant"] = inconsistency(self._destination) or ""
        if "images" in CHECKS[how]:
            differing = unexplained(differences(self._source, self._destination, between))
            wrong["images"] = f"page {differing[0]} differs" if len(differing) else ""
        return wrong

    def commit(self, dirty_pages: int) -> None:
        """The copy goes nowhere: this transport measures and rehearses."""

    def abandon(self, why: str) -> None:
        """Everything goes with this process."""

    def finish(self) -> TransportFigures:
        self.sending.queue.filled.end(len(self._receivers))
        figures, reasons = figures_of(self._supervisor.finish(self._receivers))
        return TransportFigures(SideFigures(), figures, self.received(), reasons, {"kind": "queue"})
