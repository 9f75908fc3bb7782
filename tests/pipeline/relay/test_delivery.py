"""Streams over connections that break: every byte once, in order, and main behind what was read before it."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import defaultdict

import pytest

from pipeline.options import QatOptions
from pipeline.relay.buffers import Buffers
from pipeline.relay.codec_pool import CodecPool, PoolOptions
from pipeline.relay.delivery import Arrived, Inbound, Outbound
from pipeline.relay.link_wire import LinkWire
from pipeline.relay.protocol import Frame, FrameType, pack
from pipeline.relay.wire import Wire

CONNECTIONS = 3


class End:
    """One relay's half of a migration."""

    def __init__(self, method: str, limit: int = 0, level: int | None = None) -> None:
        self.buffers, self.link = Buffers(), LinkWire(limit)
        options = PoolOptions(method, level, 2, QatOptions())
        self.pool = CodecPool(options, self.link, self.buffers, with_qat=False)
        self.out = Outbound(self.pool, self.buffers, self.link)
        self.failures: list[str] = []
        self.into = Inbound(self.pool, self.buffers, self.deliver, lambda: None, self.failures.append)
        self.got: dict[int, bytearray] = defaultdict(bytearray)
        self.ended: set[int] = set()
        self.arrived_before: list[tuple[int, bool]] = []

    def deliver(self, arrived: Arrived) -> None:
        assert arrived.stream not in self.ended
        if arrived.type is FrameType.DATA:
            self.got[arrived.stream] += arrived.plain
        elif arrived.type is FrameType.EOF:
            self.ended.add(arrived.stream)
        self.into.done(arrived)

    def on_frame(self, wire: Wire, frame: Frame, payload: memoryview) -> None:
        if frame.type is FrameType.ACK:
            self.out.acknowledged(frame.stream, frame.sequence)
        else:
            self.into.take(frame, payload)

    def attach(self, number: int, sock: socket.socket) -> None:
        handlers = self.on_frame, lambda wire: self.out.pump(), self.lost
        wire = Wire(number, 1, sock, *handlers, self.buffers.take)
        self.out.wires.append(wire)
        self.into.wires.append(wire)
        self.into.ack_all()
        self.out.pump()

    def lost(self, wire: Wire, why: str) -> None:
        self.into.lost(wire)
        self.out.lost(wire)

    def close(self) -> None:
        for wire in list(self.out.wires):
            wire.close()
        self.pool.close()


def connect(one: End, other: End, number: int) -> None:
    ours, theirs = socket.socketpair()
    one.attach(number, ours)
    other.attach(number, theirs)


SLOW_BYTES_PER_SECOND = 20_000_000
"""Slow enough for blocks with a history."""


async def carry(method: str, seed: int, breaks: int, limit: int = 0, level: int | None = None) -> int:
    """Gives how many blocks had a history."""
    chance = random.Random(seed)
    one, other = End(method, limit, level), End(method)
    histories = 0
    take = other.into.take

    def count(frame: Frame, payload: memoryview) -> None:
        nonlocal histories
        histories += bool(frame.history)
        take(frame, payload)

    other.into.take = count  # type: ignore[method-assign]
    for number in range(CONNECTIONS):
        connect(one, other, number)
    sent: dict[int, bytearray] = defaultdict(bytearray)
    text = b"".join(b"page %d of text. " % chance.randrange(99) for _ in range(20000))
    for turn in range(60):
        stream = chance.randrange(4)
        size = chance.choice([1, 8, 700, 30_000, 200_000])
        at = chance.randrange(len(text) - size)
        data = chance.randbytes(size) if chance.random() < 0.2 else text[at : at + size]
        sent[stream] += data
        one.out.add(FrameType.DATA, stream, memoryview(bytearray(data)))
        if turn % (60 // breaks) == 0:
            for wire in chance.sample(one.out.wires, min(len(one.out.wires), chance.randrange(1, 4))):
                wire.lose("a test")
            await asyncio.sleep(chance.choice([0, 0.003]))
            connect(one, other, CONNECTIONS + turn)
        await asyncio.sleep(0)
    for stream in sent:
        one.out.add(FrameType.EOF, stream)
    for _ in range(2000):
        if one.out.is_done():
            break
        await asyncio.sleep(0.005)
    assert one.failures == other.failures == []
    assert one.out.is_done()
    assert other.got == sent
    assert other.ended == set(sent)
    assert one.out.window.under_way_bytes == 0
    one.close()
    other.close()
    return histories


@pytest.mark.parametrize("method", ["none", "zstd", "lz4", "auto"])
@pytest.mark.parametrize("seed", range(3))
def test_every_byte_once_and_in_order(method: str, seed: int) -> None:
    asyncio.run(asyncio.wait_for(carry(method, seed, breaks=12), 60))


@pytest.mark.parametrize(("method", "level"), [("zstd", 5), ("auto", None)])
@pytest.mark.parametrize("seed", range(3))
def test_blocks_with_a_history_over_connections_that_break(method: str, level: int, seed: int) -> None:
    work = carry(method, seed, breaks=12, limit=SLOW_BYTES_PER_SECOND, level=level)
    assert asyncio.run(asyncio.wait_for(work, 60))


def test_histories_are_decompressed_in_order_whatever_order_they_come_in() -> None:
    async def shuffled() -> None:
        chance = random.Random(1)
        one, other = End("zstd", SLOW_BYTES_PER_SECOND, 5), End("zstd")
        take, came = other.into.take, list[tuple[Frame, memoryview]]()
        other.into.take = lambda frame, payload: came.append((frame, payload))  # type: ignore[method-assign]
        connect(one, other, 0)
        text = b"".join(b"page %d of text. " % chance.randrange(99) for _ in range(20000))
        sent: dict[int, bytearray] = defaultdict(bytearray)
        for turn in range(30):
            data = text[turn * 1000 : turn * 1000 + 20_000]
            sent[turn % 2] += data
            one.out.add(FrameType.DATA, turn % 2, memoryview(bytearray(data)))
        while len(came) < 30:
            await asyncio.sleep(0.005)
        assert all(frame.history for frame, _ in came)
        chance.shuffle(came)
        for frame, payload in came:
            take(frame, payload)
            await asyncio.sleep(0.001)
        while not one.out.is_done():
            assert not other.failures
            await asyncio.sleep(0.005)
        assert other.got == sent
        one.close()
        other.close()

    asyncio.run(asyncio.wait_for(shuffled(), 30))


def test_a_block_that_goes_again_is_not_used_again_when_it_is_acknowledged() -> None:
    async def twice() -> None:
        one, other = End("none"), End("none")
        connect(one, other, 0)
        block = one.buffers.take(100_000)
        one.out.add(FrameType.DATA, 1, block)
        one.out.wires[0].lose("a test")
        connect(one, other, 1)
        assert one.out.carried[1].retransmitted_bytes == 100_000
        one.out.acknowledged(1, 1)
        assert one.buffers.take(100_000).obj is not block.obj
        one.close()
        other.close()

    asyncio.run(asyncio.wait_for(twice(), 30))


def test_an_acknowledgement_over_a_connection_that_broke_goes_again() -> None:
    async def silent() -> None:
        one, other = End("none"), End("none")
        hears = False
        acknowledged = one.out.acknowledged

        def hear(stream: int, sequence: int) -> None:
            if hears:
                acknowledged(stream, sequence)

        one.out.acknowledged = hear  # type: ignore[method-assign]
        connect(one, other, 0)
        connect(one, other, 1)
        one.out.add(FrameType.DATA, 1, memoryview(bytearray(100_000)))
        while not other.got[1]:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.02)
        assert not one.out.is_done()
        hears = True
        other.into.wires[0].lose("a test")
        while not one.out.is_done():
            await asyncio.sleep(0.005)
        one.close()
        other.close()

    asyncio.run(asyncio.wait_for(silent(), 30))


def test_a_fast_link_has_no_histories() -> None:
    work = carry("zstd", 1, breaks=1, limit=100 * SLOW_BYTES_PER_SECOND, level=5)
    assert asyncio.run(asyncio.wait_for(work, 60)) == 0


def test_a_history_that_was_never_begun_ends_it_in_a_line() -> None:
    async def hostile() -> None:
        one, other = End("none"), End("zstd")
        connect(one, other, 0)
        item = memoryview(bytearray(b"the middle of a history"))
        one.out.wires[0].send(
            pack(FrameType.DATA, 2, 1, 1, 3, 100, item, with_crc=True, history=1), memoryview(bytearray(item))
        )
        for _ in range(400):
            if other.failures:
                break
            await asyncio.sleep(0.005)
        assert "never begun" in other.failures[0]
        one.close()
        other.close()

    asyncio.run(asyncio.wait_for(hostile(), 30))


def test_bytes_that_nobody_compressed_end_it_in_a_line() -> None:
    async def damaged() -> None:
        one, other = End("none"), End("zstd")
        connect(one, other, 0)
        item = memoryview(bytearray(b"no frame of zstd's"))
        one.out.add(FrameType.DATA, 1, item)
        # The same, said to be zstd's.
        one.out.wires[0].send(
            pack(FrameType.DATA, 2, 1, 2, 3, 100, item, with_crc=True), memoryview(bytearray(item))
        )
        for _ in range(400):
            if other.failures:
                break
            await asyncio.sleep(0.005)
        assert len(other.failures) == 1
        one.close()
        other.close()

    asyncio.run(asyncio.wait_for(damaged(), 30))


def test_random_bytes_end_a_connection_and_nothing_else() -> None:
    async def hostile() -> None:
        end = End("none")
        ours, theirs = socket.socketpair()
        end.attach(0, ours)
        theirs.sendall(random.Random(1).randbytes(5000))
        for _ in range(400):
            if not end.out.wires:
                break
            await asyncio.sleep(0.005)
        assert end.out.wires == []
        assert end.got == {}
        theirs.close()
        end.close()

    asyncio.run(asyncio.wait_for(hostile(), 30))
