"""One run on the receive side: the destination, its arrivals, and the answers to the sender's requests."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from isal import isal_zlib

from guestmem.page import PAGE_BYTES
from guestmem.ram import MIN_RAM_BYTES
from guestmem.selfcheck import inconsistency
from guestmem.units import show_size
from pipeline.codecs import METHODS, library_versions
from pipeline.codecs.method import CodecSettings, Method
from pipeline.destination.applied_rounds import AppliedRounds
from pipeline.destination.output import Output
from pipeline.destination.placer import PlacerPlan, WrittenMap
from pipeline.destination.verification import MAX_REGIONS, page_crcs, region_bytes_of, region_digests
from pipeline.errors import BadFrame, HostError, RunFailed, one_line
from pipeline.options import MAX_PACKET_BYTES, ReceiveOptions
from pipeline.packets.counters import Counters
from pipeline.packets.packet import Limits
from pipeline.processes.limits import limit_of
from pipeline.processes.memory import available_bytes, check_memory, shm_free_bytes, worker_bytes
from pipeline.processes.usage import SideFigures, Usage, private_bytes
from pipeline.report.host import host_record
from pipeline.source.send_side import RAW, payload_room
from pipeline.transports.tcp.messages import (
    Commit,
    Offer,
    Open,
    Report,
    Settle,
    Settled,
    Verified,
    VerifiedPages,
    Verify,
    VerifyPages,
)
from pipeline.transports.tcp.server.arrivals import Arrivals
from pipeline.transports.tcp.server.channel_receiver import ChannelReceiverPlan
from qat.session import MIN_HW_BUFF_BYTES

PACKET_PAGES_MAX = MAX_PACKET_BYTES // PAGE_BYTES
DECODE_LEVEL = 1
"""No decoder asks for a level."""

HEADROOM = 0.9
"""Of the free memory, so much is offered for RAM: the rest is for workers, maps and buffers."""


def methods_here() -> tuple[Method, ...]:
    """The methods that this host can decompress."""
    return tuple(method for method in METHODS.values() if not method.unavailable())


def offer_of(options: ReceiveOptions) -> Offer:
    """What a receiver says to a sender: what it has now."""
    free = int(HEADROOM * min(shm_free_bytes(), available_bytes()))
    most = free if options.ram_bytes_max is None else min(free, options.ram_bytes_max)
    methods = methods_here()
    smallest = CodecSettings(DECODE_LEVEL, qat_buffer_bytes=MIN_HW_BUFF_BYTES)
    return Offer(
        ram_bytes_max=max(0, most),
        channels_max=options.channels_max,
        packet_pages_max=PACKET_PAGES_MAX,
        payload_bytes_max=payload_room(methods, smallest, PACKET_PAGES_MAX),
        method_codes=[method.code for method in methods],
        prealloc=options.prealloc,
        output=options.output or options.output_shm or "",
        reconnect_seconds=options.reconnect_seconds,
        decode_on_qat=CodecSettings.of(DECODE_LEVEL, options.qat).decode_on_qat,
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
        private = wanted.channels * worker_bytes(wanted.packet_pages * PAGE_BYTES)
        check_memory(wanted.ram_bytes, 1, 0, wanted.channels, private_bytes=private)
        self._options = options
        self.wanted = wanted
        pages = wanted.ram_bytes // PAGE_BYTES
        try:
            self._reservation = Output(options.output, options.output_shm).reserve(wanted.ram_bytes)
            self.destination = self._reservation.ram
            self.arrivals = Arrivals(pages, wanted.channels)
            self._written = WrittenMap(pages)
            self._applied = AppliedRounds(pages) if wanted.deltas else None
            self.counters = Counters(wanted.channels)
        except OSError as error:
            raise limit_of(error) or HostError(f"cannot set up shared memory: {one_line(error)}") from error
        codes = frozenset(wanted.method_codes)
        self._methods = tuple(method for method in methods_here() if method.code in codes)
        self._limits = Limits(
            pages,
            wanted.packet_pages,
            wanted.payload_bytes,
            wanted.channels,
            codes,
            RAW.code,
            not_summed=True,
            deltas=wanted.deltas,
        )
        self.figures = SideFigures()
        self.reasons: set[str] = set()
        self._used_before = self._used = Usage.now()
        self.output = ""
        self.rounds = 0
        self._standing_pages = 0

    def receiver_plan(self, number: int, first: bool) -> ChannelReceiverPlan:
        """What the worker of a number needs. One that follows a killed one leaves prealloc to that: its
        sender waits, and most of RAM has its pages."""
        placing = PlacerPlan(
            destination=self.destination,
            written=self._written,
            methods=self._methods,
            raw=RAW,
            settings=self._settings(),
            packet_pages=self.wanted.packet_pages,
            prealloc=self._options.prealloc and first,
            huge_pages=self._options.huge_pages != "off",
            share=number / self.wanted.channels,
            applied=self._applied,
        )
        return ChannelReceiverPlan(number, placing, self.arrivals, self.counters, self._limits)

    def _settings(self) -> CodecSettings:
        """For decoders: a device takes requests of the size that the sender makes."""
        settings = CodecSettings.of(DECODE_LEVEL, self._options.qat)
        buffer = self.wanted.qat_buffer_bytes
        return settings if buffer is None else replace(settings, qat_buffer_bytes=buffer)

    def check_settle(self, asked: Settle) -> None:
        """Raises BadFrame for a round that is not this one, or channels that are not these."""
        if asked.round != self.arrivals.round:
            raise BadFrame(f"round: {asked.round} in round {self.arrivals.round}")
        if len(asked.connections) != self.wanted.channels:
            raise BadFrame(f"connections: {len(asked.connections)} of {self.wanted.channels}")
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
        # A page that arrived while the guest ran may be torn, and then the guest had written it.
        self._standing_pages = self._standing_pages + applied if asked.guest_stands else 0
        self._used = Usage.now()
        return Settled(asked.request, applied, at, isal_zlib.crc32(bitmap)), bitmap

    def verified(self, asked: Verify) -> Verified:
        """Digests of the destination, or what contradicts its invariant."""
        if asked.how == "invariant":
            return Verified(asked.request, [], inconsistency(self.destination) or "")
        if self.wanted.ram_bytes > asked.region_bytes * MAX_REGIONS:
            raise BadFrame(f"region_bytes: {asked.region_bytes} makes more than {MAX_REGIONS} regions")
        return Verified(asked.request, region_digests(self.destination, asked.region_bytes), "")

    def verified_pages(self, asked: VerifyPages) -> tuple[VerifiedPages, bytes]:
        """The CRC-32 of each page of a region of the destination. Raises BadFrame."""
        ram_bytes = self.wanted.ram_bytes
        if asked.region_bytes % PAGE_BYTES or asked.region_bytes > region_bytes_of(ram_bytes):
            raise BadFrame(f"region_bytes: {asked.region_bytes} of {region_bytes_of(ram_bytes)} at most")
        if asked.region * asked.region_bytes >= ram_bytes:
            raise BadFrame(f"region: {asked.region} of {-(-ram_bytes // asked.region_bytes)}")
        crcs = page_crcs(self.destination, asked.region_bytes, asked.region)
        payload = crcs.tobytes()
        return VerifiedPages(asked.request, len(crcs), isal_zlib.crc32(payload)), payload

    def commit(self, asked: Commit) -> str:
        """All of RAM is here, whole and of one moment: put it where it belongs, and say where.

        Raises FerryError.
        """
        missing = int(np.count_nonzero(self.arrivals.whole == 0))
        if missing:
            raise RunFailed(f"{missing} pages of RAM did not arrive whole: nothing is written")
        if asked.dirty_pages not in (None, self._standing_pages):
            raise RunFailed(
                f"of {asked.dirty_pages} pages that the guest had written {self._standing_pages} arrived "
                "while it stood still: nothing is written"
            )
        self.output = self._reservation.commit()
        return self.output

    def give_up(self) -> None:
        """The run has failed: nothing of what was reserved for it is left."""
        self._reservation.give_up()

    def note_receivers(self, figures: SideFigures, reasons: set[str]) -> None:
        """What the workers used, and why software did a device's work."""
        self.figures.add(figures.usage, figures.private_bytes_max)
        self.reasons |= reasons

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
            host_record(library_versions()),
            [],
        )
