"""What a codec alone costs: one thread, the same packets, no pipeline. The bound to be measured by.

The packets are those that a run over the same RAM sends: up to 128 normal pages in order, zero
pages left out. Each is compressed from RAM where it lies into a buffer, and decompressed from
there into a destination of RAM's size, with both images prefaulted; nothing is copied, checked or
handed over. Timed are the codec's calls and nothing else, in CPU time of the thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from guestmem.page import PAGE_BYTES
from guestmem.prefault import populate, warm_heap
from guestmem.ram import GuestRam
from guestmem.zero import normal_mask
from pipeline.codecs import METHODS
from pipeline.codecs.method import HEAP_PACKETS, CodecSettings
from pipeline.processes.child import keep_heap


@dataclass(frozen=True)
class Roofline:
    """CPU seconds of one codec over an image; bytes of normal pages, and of payloads."""

    method: str
    level: int
    guest_bytes: int
    wire_bytes: int
    compress_seconds: float
    decompress_seconds: float


def packets(ram: GuestRam, packet_pages: int) -> Iterator[memoryview]:
    """The normal pages of RAM, a packet at a time; where they lie side by side, in place."""
    for first in range(0, ram.pages, packet_pages):
        pages = ram.words[first : first + packet_pages]
        mask = normal_mask(pages)
        if mask.all():
            yield pages.data.cast("B")
        elif mask.any():
            yield pages[mask].data.cast("B")


def roofline(
    source: GuestRam, destination: GuestRam, method_name: str, settings: CodecSettings, packet_pages: int
) -> Roofline:
    """Both directions of a codec over RAM. Raises CodecError, CodecUnavailable."""
    keep_heap()
    warm_heap(HEAP_PACKETS * packet_pages * PAGE_BYTES)
    method = METHODS[method_name]
    encoder, decoder = method.open_encoder(settings), method.open_decoder(settings)
    plain_bytes = packet_pages * PAGE_BYTES
    room = max(plain_bytes, method.bound_bytes(plain_bytes, settings))
    buffer = memoryview(bytearray(room))
    populate(source.mapping, write=False)
    populate(destination.mapping, write=True)
    guest = wire = 0
    compress = decompress = 0
    now = time.thread_time_ns
    for plain in packets(source, packet_pages):
        begun = now()
        length = encoder.compress(plain, buffer)
        middle = now()
        compress += middle - begun
        if length < len(plain) or method.code == METHODS["none"].code:
            into = destination.memory[guest : guest + len(plain)]
            middle = now()
            decoder.decompress(buffer[:length], into)
            decompress += now() - middle
        guest += len(plain)
        wire += min(length, len(plain))
    encoder.close()
    decoder.close()
    return Roofline(method_name, settings.level, guest, wire, compress / 1e9, decompress / 1e9)
