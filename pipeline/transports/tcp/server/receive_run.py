"""One run on the receive side: the destination, its arrivals, and the answers to the sender's requests."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from isal import isal_zlib

from guestmem.ram import MIN_RAM_BYTES
from guestmem.segment import PAGE_BYTES
from guestmem.selfcheck import inconsistency
from guestmem.units import show_size
from pipeline.codecs import METHODS
from pipeline.codecs.method import CodecSettings, Method
from pipeline.destination.output import Output
from pipeline.destination.placer import PlacerPlan, WrittenMap
from pipeline.destination.verification import MAX_REGIONS, region_digests
from pipeline.errors import HostError, RunFailed
from pipeline.net.tls import Tls
from pipeline.packets.counters import Counters
from pipeline.packets.packet import Limits
from pipeline.processes.memory import available_bytes, check_memory, shm_free_bytes
from pipeline.processes.usage import SideFigures, Usage, private_bytes
from pipeline.report.document import host_record
from pipeline.source.send_side import RAW, payload_room
from pipeline.transports.tcp.messages import Offer, Open, Report, Settle, Settled, Verified, Verify
from pipeline.transports.tcp.protocol import BadFrame
from pipeline.transports.tcp.server.arrivals import Arrivals
from pipeline.transports.tcp.server.channel_receiver import ChannelReceiverPlan

PACKET_PAGES_MAX = (4 << 20) // PAGE_BYTES
NOWHERE = Output()
ON_CPU = CodecSettings(level=1)
HEADROOM = 0.9
"""Of the free memory, so much is offered for RAM: the rest is for workers, maps and buffers."""


@dataclass(frozen=True)
class ReceiveOptions:
    """What a receiver has and wants. `ram_bytes_max` None: what is free."""

    tls: Tls | None = None
    reconnect_seconds: float = 30.0
    prealloc: bool = False
    ram_bytes_max: int | None = None
    channels_max: int = 64
    keep: Output = NOWHERE
    settings: CodecSettings = ON_CPU

    def methods(self) -> tuple[Method, ...]:
        """The methods that this host can decompress."""
        return tuple(method for method in METHODS.values() if not method.unavailable())

    def offer(self) -> Offer:
        """What is said to a sender."""
        free = int(HEADROOM * min(shm_free_bytes(), available_bytes()))
        most = free if self.ram_bytes_max is None else min(free, self.ram_bytes_max)
        methods = self.methods()
        return Offer(
            ram_bytes_max=max(0, most),
            channels_max=self.channels_max,
            packet_pages_max=PACKET_PAGES_MAX,
            payload_bytes_max=payload_room(methods, self.settings, PACKET_PAGES_MAX),
            method_codes=[method.code for method in methods],
            prealloc=self.prealloc,
            keeps=self.keep.output or self.keep.shm_name or "",
            reconnect_seconds=self.reconnect_seconds,
        )


def misfit(offer: Offer, wanted: Open) -> str:
    """What of a run does not fit what a receiver has, in words; empty when all does."""
    if wanted.ram_bytes > offer.ram_bytes_max:
        return (
            f"RAM of {show_size(wanted.ram_bytes)} is more than the {show_size(offer.ram_bytes_max)} "
            "that the receiver has"
        )
    if wanted.channels > offer.channels_max:
        return f"{wanted.channels} channels are more than the {offer.channels_max} that the receiver takes"
    if wanted.packet_pages > offer.packet_pages_max:
        return f"packets of {wanted.packet_pages} pages are more than {offer.packet_pages_max}"
    if wanted.payload_bytes > offer.payload_bytes_max:
        return f"payloads of {wanted.payload_bytes} bytes are more than {offer.payload_bytes_max}"
    lacking = sorted(set(wanted.method_codes) - set(offer.method_codes))
    if lacking:
        names = {method.code: name for name, method in METHODS.items()}
        return f"the receiver cannot decompress {names.get(lacking[0], f'method code {lacking[0]}')}"
    return ""


class ReceiveRun:
    """The destination of one run."""

    def __init__(self, options: ReceiveOptions, offer: Offer, wanted: Open) -> None:
        """Give the destination its memory. Raises HostError, BadFrame for what does not fit."""
        why = misfit(offer, wanted)
        if why:
            raise BadFrame(f"open: {why}")
        if wanted.ram_bytes % PAGE_BYTES or wanted.ram_bytes < MIN_RAM_BYTES:
            raise BadFrame(f"ram_bytes: {wanted.ram_bytes} is not a RAM of whole pages")
        if RAW.code not in wanted.method_codes:
            raise BadFrame(f"method_codes: {wanted.method_codes} are without {RAW.code}")
        check_memory(wanted.ram_bytes, 1, 0, wanted.channels)
        self._options = options
        self.wanted = wanted
        pages = wanted.ram_bytes // PAGE_BYTES
        try:
            self.destination = options.keep.create(wanted.ram_bytes)
            self.arrivals = Arrivals(pages, wanted.channels)
            self._written = WrittenMap(pages)
            self.counters = Counters(wanted.channels)
        except OSError as error:
            raise HostError(f"cannot set up shared memory: {error}") from error
        codes = frozenset(wanted.method_codes)
        self._methods = tuple(method for method in options.methods() if method.code in codes)
        self._limits = Limits(
            pages, wanted.packet_pages, wanted.payload_bytes, wanted.channels, codes, RAW.code
        )
        self.figures = SideFigures()
        self.reasons: set[str] = set()
        self._used_before = self._used = Usage.now()
        self.kept = ""
        self.rounds = 0

    def landing(self, channel: int, generation: int) -> ChannelReceiverPlan:
        """What a channel's worker needs."""
        placing = PlacerPlan(
            destination=self.destination,
            written=self._written,
            methods=self._methods,
            raw=RAW,
            settings=self._options.settings,
            packet_pages=self.wanted.packet_pages,
            prealloc=self._options.prealloc,
            share=channel / self.wanted.channels,
        )
        return ChannelReceiverPlan(channel, generation, placing, self.arrivals, self.counters, self._limits)

    def check_settle(self, asked: Settle) -> None:
        """Raises BadFrame for a round that is not this one, or channels that are not these."""
        if asked.round != self.arrivals.round:
            raise BadFrame(f"round: {asked.round} in round {self.arrivals.round}")
        if len(asked.channels) != self.wanted.channels:
            raise BadFrame(f"channels: {len(asked.channels)} of {self.wanted.channels}")
        if asked.pages > self.wanted.ram_bytes // PAGE_BYTES:
            raise BadFrame(f"pages: {asked.pages} of {self.wanted.ram_bytes // PAGE_BYTES}")

    def settled(self, asked: Settle) -> tuple[Settled, bytes]:
        """The round is over: what of it was applied. Raises BadFrame when that is more than was sent."""
        arrivals = self.arrivals
        applied = int(np.count_nonzero(arrivals.applied))
        if applied > asked.pages:
            raise BadFrame(f"pages: {applied} were applied in round {asked.round} of {asked.pages}")
        bitmap = b""
        if applied != asked.pages:
            bitmap = np.packbits(arrivals.applied, bitorder="little").tobytes()
        at = arrivals.applied_ns or time.monotonic_ns()
        arrivals.end_round()
        self.rounds += 1
        self._used = Usage.now()
        return Settled(asked.request, applied, at, isal_zlib.crc32(bitmap)), bitmap

    def verified(self, asked: Verify) -> Verified:
        """Digests of the destination, or what contradicts its invariant."""
        if asked.how == "invariant":
            return Verified(asked.request, [], inconsistency(self.destination) or "")
        if self.wanted.ram_bytes > asked.region_bytes * MAX_REGIONS:
            raise BadFrame(f"region_bytes: {asked.region_bytes} makes more than {MAX_REGIONS} regions")
        return Verified(asked.request, region_digests(self.destination, asked.region_bytes), "")

    def keep(self) -> str:
        """All of RAM is here and whole: keep it; where. Raises RunFailed, HostError."""
        missing = int(np.count_nonzero(self.arrivals.whole == 0))
        if missing:
            raise RunFailed(f"{missing} pages of RAM did not arrive whole: the copy is not kept")
        self.kept = self._options.keep.keep(self.destination)
        return self.kept

    def report(self, request: int) -> Report:
        """What this side used. The channels' figures have been added by then."""
        self.figures.add(self._used - self._used_before, private_bytes())
        used = self.figures.usage
        return Report(
            request,
            used.cpu_seconds,
            used.minor_faults,
            used.major_faults,
            used.involuntary_switches,
            self.figures.private_bytes_max,
            [int(value) for value in self.counters.totals()],
            sorted(self.reasons),
            host_record(),
            [],
        )
