"""The way of a page, packet by packet, in one process."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest

from pipeline.codecs import METHODS
from pipeline.codecs.method import QatWork
from pipeline.errors import RunFailed
from pipeline.packets.counters import Count
from pipeline.packets.pacing import MAX_CREDIT_NS, Wire, paced_packet_pages
from pipeline.packets.round_list import RoundList
from tests.support.rig import Rig, another_process

RANDOM = np.random.default_rng(11)


def noise(pages: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
    return RANDOM.integers(1, 1 << 63, (pages, 512), dtype=np.uint64)


def text(pages: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
    return np.repeat(RANDOM.integers(1, 1 << 63, (pages, 8), dtype=np.uint64), 64, axis=1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("packet_pages", [1, 3, 8, 1024])
@pytest.mark.parametrize("pages", [256, 257, 300])
def test_any_size_arrives(method: str, packet_pages: int, pages: int) -> None:
    rig = Rig(pages, method, packet_pages, slots=400 if packet_pages < 8 else 40)
    rig.source.words[: pages // 2] = text(pages // 2)
    rig.source.words[pages // 2 : pages - 20] = noise(pages - 20 - pages // 2)
    rig.round(np.arange(pages))
    assert rig.same()
    assert rig.count(Count.NORMAL_PAGES) == pages - 20
    assert rig.count(Count.ZERO_PAGES) == 20


@pytest.mark.parametrize("method", METHODS)
def test_scattered_pages_arrive_where_they_belong(method: str) -> None:
    rig = Rig(500, method, 16)
    rig.source.words[:] = text(500)
    chosen = np.sort(RANDOM.choice(500, 120, replace=False))
    rig.round(chosen)
    others = np.setdiff1d(np.arange(500), chosen)
    np.testing.assert_array_equal(rig.destination.words[chosen], rig.source.words[chosen])
    assert not rig.destination.words[others].any()


@pytest.mark.parametrize("method", METHODS)
def test_a_page_goes_zero_data_zero_data(method: str) -> None:
    rig = Rig(64, method)
    everything = np.arange(64)
    page = 17
    for content in (0, 5, 0, 0, 9, 0, 3):
        rig.source.words[page] = content
        rig.round(everything)
        assert rig.same()
        rig.round(np.array([page]))
        assert rig.same()


def test_zero_pages_never_travel_and_never_touch_clean_memory() -> None:
    rig = Rig(256, "zstd", 128)
    rig.round(np.arange(256))
    assert rig.count(Count.NORMAL_PAGES) == 0
    assert rig.count(Count.WIRE_BYTES) == 2 * 32 + 256 * 4
    import os

    assert os.fstat(rig.destination.fd).st_blocks == 0  # no page was ever allocated


def test_what_does_not_shrink_travels_raw() -> None:
    for method in METHODS:
        rig = Rig(64, method, 8)
        rig.source.words[:] = noise(64)
        rig.round(np.arange(64))
        assert rig.same()
        assert rig.count(Count.RAW_PACKETS) == (0 if method == "none" else 8)
        assert rig.count(Count.WIRE_BYTES) == 64 * 4096 + 8 * (32 + 4) + 64 * 4


class Nonsense:
    """An encoder that gives back what it likes."""

    def __init__(self, length: int, fill: int) -> None:
        self.qat = QatWork()
        self.length, self.fill = length, fill

    def compress(self, source: memoryview, dest: memoryview) -> int:
        dest[:] = bytes([self.fill]) * len(dest)
        return self.length

    def close(self) -> None:
        pass


@pytest.mark.parametrize("length", [0, -1, 1 << 30])
def test_an_impossible_length_is_refused_by_the_sender(length: int) -> None:
    rig = Rig(8, "zstd", 8, encoder=Nonsense(length, 1))
    rig.source.words[:] = text(8)
    with pytest.raises(RunFailed, match=r"packet 1, method zstd: .*compress returned"):
        rig.send(np.arange(8))


@pytest.mark.parametrize("method", ["zlib", "zstd", "qatzip"])
@pytest.mark.parametrize("length", [1, 40, 4096])
def test_bytes_that_are_no_packet_are_refused_by_the_receiver(method: str, length: int) -> None:
    rig = Rig(8, method, 8, encoder=Nonsense(length, 0x41))
    rig.source.words[:] = text(8)
    rig.send(np.arange(8))
    with pytest.raises(RunFailed, match=f"packet 1, method {method}"):
        rig.receive()


@pytest.mark.parametrize("method", METHODS)
def test_other_bytes_than_were_sent_are_refused(method: str) -> None:
    """A codec that decodes well but to something else: the checksum of the plain bytes tells."""
    rig = Rig(8, method, 8)
    rig.source.words[:] = text(8)
    rig.send(np.arange(8))
    slot = rig.queue.filled.get()
    assert slot is not None
    whole = rig.queue.slot(slot).memory
    other = Rig(8, method, 8)
    other.source.words[:] = text(8)
    other.send(np.arange(8))
    other_slot = other.queue.filled.get()
    assert other_slot is not None
    payload = other.queue.slot(other_slot).payload
    if method == "none":
        rig.queue.slot(slot).payload[:100] = payload[:100]
        with pytest.raises(RunFailed, match="CRC-32"):
            rig.receiver.apply(slot)
        return
    # the same header, but the bytes of another packet, as long as both fit
    from pipeline.packets.packet import read_packet, write_packet

    ours = read_packet(whole, rig.receiver._plan.limits, 1)
    theirs = read_packet(other.queue.slot(other_slot).memory, rig.receiver._plan.limits, 1)
    import dataclasses

    write_packet(whole, dataclasses.replace(theirs, block_crcs=ours.block_crcs))
    rig.queue.slot(slot).payload[: theirs.payload_bytes] = payload[: theirs.payload_bytes]
    with pytest.raises(RunFailed, match="CRC-32"):
        rig.receiver.apply(slot)


def test_a_packet_of_another_round_is_refused() -> None:
    """The barrier: nothing of one round is applied in the next."""
    rig = Rig(8, "zstd", 8)
    rig.source.words[:] = text(8)
    rig.send(np.arange(8))
    rig.rounds.begin(2, rig.rounds.list_all())
    with pytest.raises(RunFailed, match="round: 1 in round 2"):
        rig.receive()


@pytest.mark.parametrize("method", METHODS)
def test_a_guest_that_writes_the_very_pages_is_a_clean_snapshot(method: str) -> None:
    """Compress a snapshot, never live memory: every packet decodes, whatever is written meanwhile."""
    rig = Rig(64, method, 64)
    contents = [text(64), text(64), noise(64)]
    rig.source.words[:] = contents[0]

    def hammer(turn: int) -> None:
        rig.source.words[:] = contents[turn % 3]

    with another_process(hammer):
        for _ in range(60):
            rig.round(np.arange(64))  # raises when a packet cannot be decoded
    rig.round(np.arange(64))
    assert rig.same()


def test_claims_share_a_round_out_without_gaps() -> None:
    rounds = RoundList(10_000)
    rounds.pages[:5000] = np.arange(0, 10_000, 2)
    rounds.begin(1, 5000)
    taken = list(iter(lambda: rounds.claim(48).tolist(), []))
    assert [page for part in taken for page in part] == list(range(0, 10_000, 2))
    assert all(len(part) % 48 == 0 for part in taken[:-1])
    assert rounds.unclaimed() == 0


def test_a_dead_claimer_blocks_nobody() -> None:
    """The record lock goes with its holder."""
    import os
    import signal

    from pipeline.packets.round_list import CLAIM_LOCK, record_lock

    rounds = RoundList(100)
    rounds.begin(1, rounds.list_all())
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with record_lock(rounds.fd, CLAIM_LOCK):
            os.write(writing, b"x")
            time.sleep(60)
    os.read(reading, 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert len(rounds.claim(128)) == 100


def test_the_wire_carries_no_more_than_its_bandwidth() -> None:
    """No reservation of any 100 ms goes above 100 ms worth, and the sum holds to the rate."""
    rate, size = 10_000_000, 40_000
    wire = Wire(rate)
    began = time.monotonic_ns()
    across = [wire.reserve(size) for _ in range(200)]
    assert all(later - earlier == size * 1_000_000_000 // rate for earlier, later in pairwise(across))
    assert across[-1] - began >= 200 * size * 1_000_000_000 // rate - MAX_CREDIT_NS


@pytest.mark.parametrize(("rate", "pages"), [(0, 128), (1 << 30, 128), (1 << 20, 12), (1, 1)])
def test_packets_shrink_on_a_slow_wire(rate: int, pages: int) -> None:
    assert paced_packet_pages(128, rate) == pages
