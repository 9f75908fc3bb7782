"""Pages of a guest, compressed by every candidate on this host."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from guestmem.page import WORDS_PER_PAGE
from guestmem.zero import normal_mask
from pipeline.codecs import METHODS
from pipeline.codecs.method import CodecSettings
from pipeline.forecast.packet_size import PACKET_BYTES, PACKET_PAGES
from pipeline.forecast.situation import Batches, Candidate

MOST_BATCHES = 192
"""96 MiB. Of 32 MiB the ratio of Python's files was off by 5 % (256 MiB of them)."""

NONE, ROOM_BYTES = "none", 64 << 10
GAUGE, GAUGE_LEVEL = "zstd", -5
"""Quick, always there, and its ratio goes with that of the others."""

Words = npt.NDArray[np.uint64]
"""(n, 512): pages."""

NO_PAGES: Words = np.zeros((0, WORDS_PER_PAGE), np.uint64)


@dataclass(frozen=True)
class Gauges:
    """What the quick method makes of far more pages than were sampled, as a share: of all of RAM, and of
    those that were written. None where nobody looked at more."""

    whole: float | None = None
    written: float | None = None


NO_GAUGES = Gauges()


def normal_pages(pages: Words) -> tuple[Words, float]:
    """Those that are not zero, and the share of zero pages."""
    if not len(pages):
        return NO_PAGES, 0.0
    mask = normal_mask(pages)
    return pages[mask], float(1 - mask.mean())


def gauge_share(read: Callable[[int], Words], packets: list[int], threads: int) -> float:
    """What the quick method makes of many packets; `read` gives the normal pages of one, 128 at most."""

    def work(share: list[int]) -> tuple[int, int]:
        encoder = METHODS[GAUGE].open_encoder(CodecSettings(level=GAUGE_LEVEL))
        room = memoryview(bytearray(2 * PACKET_BYTES))
        plain = payload = 0
        try:
            for packet in share:
                data = read(packet).tobytes()
                if data:
                    plain, payload = plain + len(data), payload + encoder.compress(memoryview(data), room)
        finally:
            encoder.close()
        return plain, payload

    with ThreadPoolExecutor(threads) as pool:
        rows = list(pool.map(work, [packets[at::threads] for at in range(threads)]))
    plain = sum(row[0] for row in rows)
    return min(1.0, sum(row[1] for row in rows) / plain) if plain else 0.0


def candidates(
    methods: Iterable[tuple[str, int | None]],
    whole: Words,
    written: Words,
    threads: int,
    gauges: Gauges = NO_GAUGES,
) -> list[Candidate]:
    """Each method at its level, or its default one, on normal pages. Raises CodecUnavailable, CodecError."""
    found = []
    quick, quick_written = (
        None if gauge is None else measure(GAUGE, GAUGE_LEVEL, pages, threads)
        for gauge, pages in ((gauges.whole, whole), (gauges.written, written))
    )
    for name, level in methods:
        shown = level if level is not None else METHODS[name].default_level
        found.append(
            Candidate(
                name,
                shown if METHODS[name].levels else None,
                _gauged(measure(name, shown, whole, threads), quick, gauges.whole),
                _gauged(measure(name, shown, written, threads), quick_written, gauges.written),
            )
        )
    return found


def _gauged(batches: Batches, quick: Batches | None, gauge: float | None) -> Batches:
    if quick is None or gauge is None:
        return batches
    return replace(batches, gauge=quick.payload_bytes / quick.plain_bytes, gauge_share=gauge)


def measure(name: str, level: int, pages: Words, threads: int) -> Batches:
    """A method on packets of these pages, on so many CPUs at once, as channels do it: bytes, and CPU time of
    each direction."""
    packets = [
        pages[first : first + PACKET_PAGES]
        for first in range(0, min(len(pages), MOST_BATCHES * PACKET_PAGES), PACKET_PAGES)
    ]
    with ThreadPoolExecutor(threads) as pool:
        shares = pool.map(lambda at: _measure(name, level, packets[at::threads]), range(threads))
        rows = [row for share in shares for row in share]
    return Batches(*np.array(rows, np.float64).reshape(-1, 4).T)


def _measure(name: str, level: int, packets: list[Words]) -> list[tuple[int, int, int, int]]:
    """First all of them one way, then all back. As in a migration a sender compresses what it has just copied
    out of RAM, and a receiver's places are in no cache of its own."""
    method = METHODS[name]
    settings = CodecSettings(level=level)
    encoder, decoder = method.open_encoder(settings), method.open_decoder(settings)
    room_bytes = max(PACKET_BYTES, method.bound_bytes(PACKET_BYTES, settings)) + ROOM_BYTES
    room, snapshot = memoryview(bytearray(room_bytes)), memoryview(bytearray(PACKET_BYTES))
    try:
        plains = [memoryview(pages.tobytes()) for pages in packets]
        payloads, compress_ns = [], []
        for taken in (*plains[:1], *plains):
            plain = snapshot[: len(taken)]
            plain[:] = taken
            begun = time.thread_time_ns()
            length = len(plain) if name == NONE else encoder.compress(plain, room)
            compress_ns.append(time.thread_time_ns() - begun)
            payloads.append(bytes(room[:length]) if length < len(plain) else b"")
        places = [memoryview(bytearray(len(plain))) for plain in plains]
        decompress_ns = []
        for payload, place in zip(payloads, (*places[:1], *places), strict=True):
            begun = time.thread_time_ns()
            if payload:
                decoder.decompress(memoryview(payload), place)
            decompress_ns.append(time.thread_time_ns() - begun)
    finally:
        encoder.close()
        decoder.close()
    # The first one warms up.
    sizes = [len(payload) or len(plain) for plain, payload in zip(plains, payloads[1:], strict=True)]
    return list(zip(map(len, plains), sizes, compress_ns[1:], decompress_ns[1:], strict=True))
