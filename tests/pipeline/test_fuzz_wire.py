"""Fuzz every decoder of bytes that come from the peer.

Inputs are seeds (`tests/pipeline/seeds`, and good frames made here) with bits flipped, numbers replaced by
extremes, pieces cut, doubled and spliced. Checksums are mended half of the time, so that what lies behind
them is reached. FERRY_FUZZ=N sets the inputs for each decoder (CI: 400). The recorded run of a million is in
CONTRIBUTING.md.
"""

from __future__ import annotations

import functools
import os
import random
import socket
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from isal import isal_zlib

from guestmem.page import PAGE_BYTES, WORDS_PER_PAGE
from pipeline.codecs import METHODS
from pipeline.codecs.method import CodecSettings
from pipeline.destination.placer import Placer, PlacerPlan, WrittenMap
from pipeline.errors import BadFrame, BadPacket, CodecError, ConnectionLost, RunFailed
from pipeline.packets.counters import Count, Counters
from pipeline.packets.packet import HEADER as PACKET_HEADER
from pipeline.packets.packet import Limits, read_packet
from pipeline.transports.tcp import messages
from pipeline.transports.tcp.link import Link
from pipeline.transports.tcp.protocol import (
    HEADER,
    HELLO_LIMITS,
    FrameLimits,
    FrameType,
    Hello,
    Role,
    check_body,
    pack_frame,
    pack_hello,
    pack_json,
    read_header,
    read_hello,
    read_json,
)
from pipeline.transports.tcp.server.arrivals import Arrivals
from pipeline.transports.tcp.server.channel_receiver import ChannelReceiver, ChannelReceiverPlan
from tests.support.hostile import raw_packet

SEEDS = Path(__file__).parent / "seeds"
EXAMPLES = int(os.environ.get("FERRY_FUZZ", "400"))
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
EXTREMES = (
    0,
    1,
    15,
    16,
    127,
    128,
    255,
    4095,
    4096,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 4096,
    2**32 - 1,
)
CANARY = b"\xa5" * 4096


def mutated(seed: bytes, luck: random.Random) -> bytes:
    """A few changes."""
    data = bytearray(seed)
    for _ in range(luck.randint(0, 4)):
        at = luck.randrange(len(data) + 1)
        kind = luck.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << luck.randrange(8)
        elif kind == 1 and at + 4 <= len(data):
            struct.pack_into("<I", data, at, luck.choice(EXTREMES))
        elif kind == 2:
            del data[at : at + luck.randint(1, 40)]
        elif kind == 3:
            data[at:at] = luck.randbytes(luck.randint(1, 40))
        elif kind == 4:
            data[at:at] = data[at // 2 : at]
        elif kind == 5 and at + 2 <= len(data):
            struct.pack_into("<H", data, at, luck.choice(EXTREMES) & 0xFFFF)
    return bytes(data[: 1 << 20])


def inputs(seeds: list[bytes]) -> st.SearchStrategy[tuple[bytes, bool]]:
    """Mutants of the seeds, and whether their checksums are to be mended."""
    return st.builds(
        lambda seed, number, mend: (mutated(seed, random.Random(number)), mend),
        st.sampled_from(seeds),
        st.integers(0, 2**64 - 1),
        st.booleans(),
    )


def seeds_of(kind: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(SEEDS.glob(f"{kind}-*"))]


GOOD_HELLO = pack_hello(Hello(Role.PACKETS, 1, 3, bytes(range(16))))
BODIES: list[messages.Message] = [
    messages.Offer(1 << 30, 64, 1024, 1 << 22, [1, 2, 3], True, "x", 30.0, True),
    messages.VerifyPages(3, 16 << 20, 7),
    messages.VerifiedPages(3, 4096, 9),
    messages.Ready(1.5, "", False, 7, 2 << 20),
    messages.Refusal("busy", True),
    messages.Failure("why"),
    messages.Open(1, 1 << 24, 2, 128, 1 << 19, [1, 3], 1 << 16, False, True),
    messages.Asked(9),
    messages.Ping(123456789, 0),
    messages.Settle(2, 1, 100, [[1, 5], [2, 0]], True),
    messages.Commit(9, 5),
    messages.Settled(2, 90, 123456789, 77),
    messages.Verify(3, "images", 1 << 24),
    messages.Verified(3, ["ab" * 16], ""),
    messages.Committed(4, "file x"),
    messages.Report(5, 1.0, 2, 3, 4, 5, [1, 2, 3], ["x"], {"cpus": 2}, []),
]
FRAMES = [
    pack_frame(FrameType.HELLO, 1, GOOD_HELLO),
    pack_frame(FrameType.SETTLED, 1, pack_json(BODIES[8].body()), 128),
    pack_frame(FrameType.PACKET, 1, raw_packet([1, 2])[0], 8192),
]


def mended_header(data: bytes) -> bytes:
    return data[:28] + struct.pack("<I", isal_zlib.crc32(data[:28])) + data[32:]


@FUZZ
@given(inputs(FRAMES))
def test_frame_headers(given_: tuple[bytes, bool]) -> None:
    data, mend = given_
    data = mended_header(data) if mend and len(data) >= 32 else data
    for limits in (HELLO_LIMITS, FrameLimits(frozenset(FrameType) - {FrameType.INVALID}, 5000, 9000)):
        try:
            header = read_header(data[: HEADER.size], 1, limits)
        except BadFrame:
            continue
        assert header.body_bytes <= limits.body_bytes
        assert header.payload_bytes <= limits.payload_bytes
        assert header.type in limits.types
        try:
            check_body(header, data[HEADER.size :])
        except BadFrame:
            continue


@FUZZ
@given(inputs([GOOD_HELLO]))
def test_hello(given_: tuple[bytes, bool]) -> None:
    try:
        hello = read_hello(given_[0])
    except BadFrame:
        return
    assert hello.generation and any(hello.run_id) and hello.role


@FUZZ
@given(inputs([pack_json(body.body()) for body in BODIES]))
def test_messages(given_: tuple[bytes, bool]) -> None:
    for kind in messages.Message.__subclasses__():
        try:
            message = kind.of(read_json(given_[0]))
        except BadFrame:
            continue
        assert kind.of(read_json(pack_json(message.body()))) == message


LIMITS = Limits(1024, 128, 128 * PAGE_BYTES, 2, frozenset({1, 3}), 1)
FRONTS = [
    raw_packet([1, 2, 3], zero=[9])[0],
    raw_packet(list(range(128)))[0],
    raw_packet([], b"", zero=[7, 8])[0],
]


def mended_front(data: bytes) -> bytes:
    """With the CRC-32 that the counts it names ask for, where they fit."""
    if len(data) < PACKET_HEADER.size:
        return data
    crc = isal_zlib.crc32(data[PACKET_HEADER.size :], isal_zlib.crc32(data[:28]))
    return data[:28] + struct.pack("<I", crc) + data[32:]


@FUZZ
@given(inputs(FRONTS))
def test_packet_fronts(given_: tuple[bytes, bool]) -> None:
    data, mend = given_
    try:
        packet = read_packet(memoryview(mended_front(data) if mend else data), LIMITS, 1)
    except BadPacket:
        return
    for pages in (packet.normal, packet.zero):
        assert not len(pages) or int(pages[-1]) < LIMITS.ram_pages
    assert len(packet.normal) + len(packet.zero) <= LIMITS.packet_pages
    assert packet.payload_bytes <= LIMITS.payload_bytes


def payloads(name: str) -> list[bytes]:
    """What the method itself makes of some pages, beside the seeds."""
    method = METHODS[name]
    encoder = method.open_encoder(CodecSettings(level=method.default_level))
    found = []
    for plain in (bytes(PAGE_BYTES), b"text and more text " * 431 + bytes(3), os.urandom(64) * 64):
        plain = plain[:PAGE_BYTES].ljust(PAGE_BYTES, b"x")
        into = memoryview(bytearray(2 * PAGE_BYTES))
        found.append(bytes(into[: encoder.compress(memoryview(plain), into)]))
    return found + seeds_of(name)


@pytest.mark.parametrize("name", METHODS)
def test_payloads(name: str) -> None:
    """Nothing is written beside the place, and the decoder works on after every input."""
    method = METHODS[name]
    decoder = method.open_decoder(CodecSettings(level=method.default_level))
    memory = bytearray(CANARY + bytes(PAGE_BYTES) + CANARY)
    place = memoryview(memory)[len(CANARY) : len(CANARY) + PAGE_BYTES]

    @FUZZ
    @given(inputs(payloads(name)))
    def fuzz(given_: tuple[bytes, bool]) -> None:
        try:
            decoder.decompress(memoryview(given_[0]), place)
        except CodecError:
            pass
        assert memory.startswith(CANARY) and memory.endswith(CANARY)

    fuzz()


class Fenced:
    """A destination between two stretches of memory that nobody may write."""

    def __init__(self, pages: int) -> None:
        fence = 16
        whole = np.full((pages + 2 * fence, WORDS_PER_PAGE), 0xA5A5A5A5A5A5A5A5, np.uint64)
        self.pages = pages
        self.size_bytes = pages * PAGE_BYTES
        self.words = whole[fence : fence + pages]
        self.words[:] = 0
        self.memory = self.words.data.cast("B")
        self._fences = (whole[:fence], whole[fence + pages :])

    def remap(self, *, writable: bool) -> Fenced:
        return self

    def unharmed(self) -> bool:
        return all(bool((fence == 0xA5A5A5A5A5A5A5A5).all()) for fence in self._fences)


class LandingRig:
    """A channel's receiving end, fed over a socket pair."""

    def __init__(self) -> None:
        pages = LIMITS.ram_pages
        self.destination = Fenced(pages)
        raw, zstd = METHODS["none"], METHODS["zstd"]
        placing = PlacerPlan(
            destination=self.destination,  # type: ignore[arg-type]
            written=WrittenMap(pages),
            methods=(raw, zstd),
            raw=raw,
            settings=CodecSettings(level=1),
            packet_pages=LIMITS.packet_pages,
            prealloc=False,
            huge_pages=False,
            share=0.0,
        )
        self.arrivals = Arrivals(pages, 2)
        self.counters = Counters(2)
        self.plan = ChannelReceiverPlan(0, placing, self.arrivals, self.counters, LIMITS)
        self.placer = Placer(placing)

    def feed(self, data: bytes) -> None:
        """All of `data`, and then the end of the connection."""
        near, far = socket.socketpair()
        feeding = threading.Thread(target=self._send, args=(far, data))
        feeding.start()
        try:
            ChannelReceiver(self.plan, self.placer, Link(near)).work()
        except (RunFailed, ConnectionLost):
            pass
        near.close()
        feeding.join()

    @staticmethod
    def _send(far: socket.socket, data: bytes) -> None:
        try:
            far.sendall(data)
        except OSError:
            pass
        far.close()


def whole_packet(pages: list[int], **changed: object) -> bytes:
    front, payload = raw_packet(pages, **changed)  # type: ignore[arg-type]
    return pack_frame(FrameType.PACKET, 1, front, len(payload)) + payload


@settings(FUZZ, max_examples=max(50, EXAMPLES // 4))
@given(inputs([whole_packet([5, 6, 7]), whole_packet(list(range(900, 1024, 2))), whole_packet([], zero=[3])]))
def test_landing(given_: tuple[bytes, bool]) -> None:
    data, mend = given_
    if mend and len(data) > HEADER.size:
        body = struct.unpack_from("<I", data, 12)[0]
        front = mended_front(data[HEADER.size : HEADER.size + body])
        crc = struct.pack("<I", isal_zlib.crc32(front))
        data = mended_header(data[:20] + crc + data[24:32] + front + data[HEADER.size + body :])
    rig = shared_rig()
    rig.arrivals.applied[:] = 0
    rig.feed(data)
    assert rig.destination.unharmed()


@functools.cache
def shared_rig() -> LandingRig:
    return LandingRig()


def test_the_landing_rig_lands_what_is_good() -> None:
    rig = LandingRig()
    rig.feed(whole_packet([5, 6, 7]))
    assert rig.arrivals.packets(0) == (0, 1)
    assert int(rig.counters.totals()[Count.NORMAL_PAGES]) == 3
    assert rig.destination.words[5].any() and not rig.destination.words[4].any()
