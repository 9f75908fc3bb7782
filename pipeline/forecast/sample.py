"""Pages of a guest, compressed by every candidate on this host."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from guestmem.page import PAGE_BYTES, WORDS_PER_PAGE
from guestmem.zero import normal_mask
from pipeline.codecs import METHODS
from pipeline.codecs.method import CodecSettings
from pipeline.forecast.situation import Batches, Candidate

PACKET_PAGES = 128
"""Pages of a packet: what a channel compresses at once."""

MOST_BATCHES = 192
"""96 MiB. Of 32 MiB the ratio of Python's files was off by 5 % (256 MiB of them)."""

NONE, ROOM_BYTES = "none", 64 << 10
GAUGE, GAUGE_LEVEL = "zstd", -5
"""Quick, always there, and its ratio goes with that of the others."""

Words = npt.NDArray[np.uint64]
"""(n, 512): pages."""

NO_PAGES: Words = np.zeros((0, WORDS_PER_PAGE), np.uint64)


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
        room = memoryview(bytearray(2 * PACKET_PAGES * PAGE_BYTES))
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
    gauge: float | None = None,
) -> list[Candidate]:
    """Each method at its level, or its default one, on normal pages. `gauge` is what the quick method
    makes of far more than `whole`. Raises CodecUnavailable, CodecError."""
    found = []
    quick = None if gauge is None else measure(GAUGE, GAUGE_LEVEL, whole, threads)
    for name, level in methods:
        shown = level if level is not None else METHODS[name].default_level
        found.append(
            Candidate(
                name,
                shown if METHODS[name].levels else None,
                _gauged(measure(name, shown, whole, threads), quick, gauge),
                measure(name, shown, written, threads),
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
    method = METHODS[name]
    settings = CodecSettings(level=level)
    encoder, decoder = method.open_encoder(settings), method.open_decoder(settings)
    packet = PACKET_PAGES * PAGE_BYTES
    room = memoryview(bytearray(max(packet, method.bound_bytes(packet, settings)) + ROOM_BYTES))
    back = memoryview(bytearray(packet))
    rows = []
    try:
        for number, pages in enumerate([*packets[:1], *packets]):
            plain = memoryview(pages.tobytes())
            begun = time.thread_time_ns()
            length = len(plain) if name == NONE else encoder.compress(plain, room)
            middle = time.thread_time_ns()
            if length < len(plain):
                decoder.decompress(room[:length], back[: len(plain)])
            ended = time.thread_time_ns()
            if number:  # the first one warms up
                rows.append((len(plain), min(length, len(plain)), middle - begun, ended - middle))
    finally:
        encoder.close()
        decoder.close()
    return rows
