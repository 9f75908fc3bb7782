"""A channel and a receiver in one process, driven round by round: no guest, no coordinator."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from guestmem.page import PAGE_BYTES
from guestmem.ram import GuestRam
from pipeline.auto.picker import FixedPicker
from pipeline.codecs import METHODS
from pipeline.codecs.method import CodecSettings, Encoder
from pipeline.delta_figures import DeltaFigures
from pipeline.destination.applied_rounds import AppliedRounds
from pipeline.destination.placer import Placer, PlacerPlan, WrittenMap
from pipeline.destination.receiver import Receiver, ReceiverPlan
from pipeline.packets.counters import Count, Counters
from pipeline.packets.pacing import Wire
from pipeline.packets.packet import Limits, front_room
from pipeline.packets.queue import PacketQueue
from pipeline.packets.round_list import RoundList
from pipeline.source.channel import Channel, ChannelPlan, QueueOutlet
from pipeline.source.keeping import Keeping
from pipeline.source.kept_pages import KeptPages
from pipeline.source.send_side import payload_room

OPEN: list[Rig] = []

SECONDS_A_ROUND = 1.0


@contextmanager
def another_process(turn: Callable[[int], None]) -> Iterator[None]:
    """Call `turn` with 1, 2, 3, ... in a process of its own, as fast as it goes, meanwhile."""
    pid = os.fork()
    if pid == 0:
        count = 0
        while True:
            count += 1
            turn(count)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def close_rigs() -> None:
    """After a test: descriptors are few."""
    while OPEN:
        rig = OPEN.pop()
        rig.queue.close()
        for fd in (rig.source.fd, rig.destination.fd, rig.rounds.fd):
            os.close(fd)
        if rig.kept is not None:
            rig.kept.close()


class Rig:
    """Source and destination of `pages` pages, with all that lies between."""

    def __init__(
        self,
        pages: int,
        method: str = "zstd",
        packet_pages: int = 8,
        slots: int = 64,
        encoder: Encoder | None = None,
        delta_pages: int = 0,
    ) -> None:
        """With `delta_pages`, so many slots for kept versions of pages."""
        OPEN.append(self)
        chosen, raw = METHODS[method], METHODS["none"]
        settings = CodecSettings(level=chosen.default_level)
        self.source = GuestRam.create(pages * PAGE_BYTES, "test-source")
        self.destination = GuestRam.create(pages * PAGE_BYTES, "test-destination")
        self.rounds = RoundList(pages)
        payload = payload_room((raw, chosen), settings, packet_pages)
        self.queue = PacketQueue(slots, front_room(packet_pages), payload)
        self.sent, self.received = Counters(1), Counters(1)
        self.written = WrittenMap(pages)
        self.kept = KeptPages(pages, delta_pages * PAGE_BYTES, 1) if delta_pages else None
        self.keeping = Keeping(self.kept) if self.kept is not None else None
        self.applied = AppliedRounds(pages) if delta_pages else None
        wire = Wire(0)
        picker = FixedPicker(chosen, encoder or chosen.open_encoder(settings), settings.level)
        self.channel = Channel(
            ChannelPlan(
                number=0,
                source=self.source,
                rounds=self.rounds,
                counters=self.sent,
                wire=wire,
                raw=raw,
                open_picker=lambda: picker,
                packet_pages=packet_pages,
                kept=self.kept,
            ),
            picker,
            QueueOutlet(self.queue, wire),
            self.source.remap(writable=False),
        )
        self.placer = Placer(
            PlacerPlan(
                destination=self.destination,
                written=self.written,
                methods=(raw, chosen),
                raw=raw,
                settings=settings,
                packet_pages=packet_pages,
                prealloc=False,
                huge_pages=False,
                share=0.0,
                applied=self.applied,
            )
        )
        self.receiver = Receiver(
            ReceiverPlan(
                number=0,
                placing=self.placer.plan,
                rounds=self.rounds,
                queue=self.queue,
                counters=self.received,
                limits=Limits(
                    ram_pages=pages,
                    packet_pages=packet_pages,
                    payload_bytes=self.queue.payload_bytes,
                    channels=1,
                    method_codes=frozenset({chosen.code, raw.code}),
                    raw_code=raw.code,
                    deltas=delta_pages > 0,
                ),
            ),
            self.placer,
        )

    def send(self, pages: npt.NDArray[np.intp]) -> None:
        """One round as far as the queue."""
        self.rounds.pages[: len(pages)] = pages
        if self.keeping is not None:
            self.keeping.begin(self.rounds.number + 1, self.rounds.pages[: len(pages)])
        self.rounds.begin(self.rounds.number + 1, len(pages))
        self._before = self.sent.totals()
        self.channel.send_round()

    def receive(self) -> int:
        """Apply all that is in the queue; how many packets."""
        applied = 0
        while (slot := self.queue.filled.get_nowait()) is not None:
            self.receiver.apply(slot)
            applied += 1
        return applied

    def round(self, pages: npt.NDArray[np.intp]) -> None:
        """One whole round."""
        self.send(pages)
        self.receive()
        self.settle()

    def settle(self, missing: npt.NDArray[np.uint32] | None = None) -> DeltaFigures | None:
        """The barrier: these pages did not arrive. What deltas did."""
        if self.keeping is None:
            return None
        moved = self.sent.totals() - self._before
        lost = np.zeros(0, np.uint32) if missing is None else missing
        normal, wire = int(moved[Count.NORMAL_PAGES]), int(moved[Count.WIRE_BYTES])
        return self.keeping.settled(self.rounds.number, lost, normal, wire, SECONDS_A_ROUND)

    def same(self) -> bool:
        return bool(np.array_equal(self.source.words, self.destination.words))

    def count(self, column: Count) -> int:
        return int(self.sent.totals()[column])
