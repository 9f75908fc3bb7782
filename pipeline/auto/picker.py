"""How a channel comes to the method of its next packet.

With a fixed method there is nothing to choose. With auto the coordinator publishes two candidates, a
faster and a stronger one (`pipeline.auto.chooser`), and each channel takes the stronger one for a packet
whenever no wire time will be lost while it compresses that packet: the wire never waits for a
channel, and no CPU is saved that would have made the wire's work smaller.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Protocol

from guestmem.page import PAGE_BYTES
from pipeline.auto.candidates import QATZIP, Candidate
from pipeline.auto.statistics import Sent, Statistics
from pipeline.codecs.method import CodecSettings, Encoder, Method, QatWork
from pipeline.packets.pacing import Wire

PROBE_PAGES = 4
"""Pages of a packet that the probe samples at, evenly spread: 16 KiB cost some 20 us."""

PROBES = (("lz4", -15), ("zstd", -5))
"""What may probe; the first that the host has."""

WORTHWHILE = 0.97
"""A packet whose sample shrinks to more than this travels raw."""

TRUSTED_PACKETS = 4
"""So many compressed packets in a row, and the probe is left out until one does not shrink."""


class Picker(Protocol):
    """Chooses and compresses, for one channel."""

    qat: QatWork

    def pick(self, pages: int) -> Method:
        """The method meant for the next packet, of so many pages."""

    def compress(
        self, plain: memoryview, payload: memoryview, histories: HistoryEncoders | None = None
    ) -> int:
        """Compress a packet as picked; `len(plain)` or more says that it does not shrink. By an encoder of
        `histories` where these have one for it."""

    def close(self) -> None:
        """Give back what the codecs hold."""


class HistoryEncoders(Protocol):
    """Encoders that remember what they compressed before."""

    def encoder(self, method: Method, level: int) -> Encoder | None:
        """The one of a candidate; None where there is none."""


class FixedPicker:
    """One method for all packets."""

    def __init__(self, method: Method, encoder: Encoder, level: int) -> None:
        self._method, self._encoder, self._level = method, encoder, level
        self.qat = encoder.qat
        self.close = encoder.close

    def pick(self, pages: int) -> Method:
        return self._method

    def compress(
        self, plain: memoryview, payload: memoryview, histories: HistoryEncoders | None = None
    ) -> int:
        encoder = histories.encoder(self._method, self._level) if histories is not None else None
        return (encoder or self._encoder).compress(plain, payload)


IN_NO_HURRY_NS, UNKNOWN_PATIENCE_NS = 50_000_000, 500_000_000
"""With so much still on its way a channel may wait for the wire to show its speed, and so long in all."""

UNTRIED_NS = 16_000
"""What a page is thought to take by a candidate that was not used yet."""


class AutoPicker:
    """One of the two candidates that are published, by the state of the wire."""

    def __init__(
        self,
        number: int,
        channels: int,
        candidates: tuple[Candidate, ...],
        settings: CodecSettings,
        statistics: Statistics,
        wire: Wire,
    ) -> None:
        """For channel `number`. Opens the device where a candidate needs one.

        Raises CodecUnavailable without one where no fallback is allowed.
        """
        self._channels = channels
        self._candidates = candidates
        self._settings = settings
        self._tally = statistics
        self._wire = wire
        self._encoders: dict[int, Encoder] = {}
        self._cells = [memoryview(statistics.sent[number, index]) for index in range(len(candidates))]
        self._page_takes_ns = [0] * len(candidates)
        self._picked = 0
        self._counted = 0
        self._trust = 0
        self._first_sent = False
        self._patience_ns = UNKNOWN_PATIENCE_NS
        self.qat = QatWork()
        self._without_device = True
        if QATZIP in candidates:
            encoder = self._encoder(candidates.index(QATZIP))
            self.qat = encoder.qat
            self._without_device = bool(encoder.qat.fallback_reason)
        self._probe = self._open_probe()
        self._sample = memoryview(bytearray(PROBE_PAGES * PAGE_BYTES))
        self._probed = memoryview(bytearray(PROBE_PAGES * PAGE_BYTES))

    def _encoder(self, index: int) -> Encoder:
        encoder = self._encoders.get(index)
        if encoder is None:
            candidate = self._candidates[index]
            settings = replace(self._settings, level=candidate.level)
            encoder = self._encoders[index] = candidate.method.open_encoder(settings)
        return encoder

    def _open_probe(self) -> Encoder:
        here = {candidate.method_name: candidate.method for candidate in self._candidates}
        name, level = next((name, level) for name, level in PROBES if name in here)
        return here[name].open_encoder(CodecSettings(level=level))

    def pick(self, pages: int) -> Method:
        """The stronger candidate when the wire is busy for as long as it takes, else the faster one."""
        self._wait_for_the_wire()
        faster, stronger = self._tally.choice[2:] if self._without_device else self._tally.choice[:2]
        self._picked = faster
        if stronger != faster:
            takes = (self._page_takes_ns[stronger] or UNTRIED_NS) * pages // self._channels
            if self._wire.slack_ns() > takes:
                self._picked = stronger
        return self._candidates[self._picked].method

    def _wait_for_the_wire(self) -> None:
        """Behind its first packet a channel does not run ahead of a wire whose speed is not known yet: what
        it makes now, a slow link still has to carry when a stronger candidate has long been chosen."""
        while self._first_sent and self._patience_ns > 0 and self._wire.is_unknown():
            if self._wire.slack_ns() < IN_NO_HURRY_NS:
                break
            began = time.monotonic_ns()
            time.sleep(0.002)
            self._patience_ns -= time.monotonic_ns() - began
        self._first_sent = True

    def compress(
        self, plain: memoryview, payload: memoryview, histories: HistoryEncoders | None = None
    ) -> int:
        """As picked, unless a sample says that the packet will not shrink."""
        if self._trust < TRUSTED_PACKETS and not self._shrinks(plain):
            self._count(0, len(plain), len(plain), 0, 0)
            return len(plain)
        index = self._picked
        candidate, encoder = self._candidates[index], None
        if histories is not None:
            encoder = histories.encoder(candidate.method, candidate.level)
        encoder = encoder or self._encoder(index)
        cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
        length = encoder.compress(plain, payload)
        took, used = time.perf_counter_ns() - wall, time.thread_time_ns() - cpu
        if length >= len(plain):
            self._trust = 0
            self._count(0, len(plain), len(plain), 0, 0)
            return length
        self._trust += 1
        # A packet that was preempted took long for no reason of its own: CPU time is what counts,
        # but for a device, which is waited for.
        takes = (took if candidate is QATZIP else used) * PAGE_BYTES // len(plain)
        self._page_takes_ns[index] += (takes - self._page_takes_ns[index]) // 4
        self._count(index, len(plain), length, used, took)
        return length

    def _shrinks(self, plain: memoryview) -> bool:
        pages = len(plain) // PAGE_BYTES
        if pages < 2 * PROBE_PAGES:
            return True
        for place in range(PROBE_PAGES):
            start = (pages * place // PROBE_PAGES) * PAGE_BYTES
            self._sample[place * PAGE_BYTES : (place + 1) * PAGE_BYTES] = plain[start : start + PAGE_BYTES]
        length = self._probe.compress(self._sample, self._probed)
        return length < WORTHWHILE * len(self._sample)

    def _count(self, index: int, plain: int, payload: int, cpu_ns: int, wall_ns: int) -> None:
        cells = self._cells[index]
        cells[Sent.PACKETS] += 1
        cells[Sent.PLAIN_BYTES] += plain
        cells[Sent.PAYLOAD_BYTES] += payload
        cells[Sent.CPU_NS] += cpu_ns
        cells[Sent.WALL_NS] += wall_ns
        if (index == 0) != (self._counted == 0):
            cells[Sent.RUNS] += 1
        self._counted = index

    def close(self) -> None:
        for encoder in self._encoders.values():
            encoder.close()
        self._probe.close()
