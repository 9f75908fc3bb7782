from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import BadPacket
from pipeline.packets.delta import group_bytes_range
from pipeline.packets.packet import (
    HEADER,
    Limits,
    Packet,
    blocks_of,
    front_bytes_of,
    front_room,
    read_packet,
    wire_bytes,
    write_packet,
)

LIMITS = Limits(
    ram_pages=1 << 20,
    packet_pages=16,
    payload_bytes=16 * 4096,
    channels=4,
    method_codes=frozenset({1, 3}),
    raw_code=1,
    deltas=True,
)


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    pages = draw(st.lists(st.integers(0, LIMITS.ram_pages - 1), min_size=1, max_size=16, unique=True))
    cut = draw(st.integers(0, len(pages)))
    normal = np.array(sorted(pages[:cut]), np.uint32)
    zero = np.array(sorted(pages[cut:]), np.uint32)
    code = draw(st.sampled_from([1, 3]))
    payload = len(normal) * 4096
    if code == 3 and len(normal):
        payload = draw(st.integers(1, payload - 1))
    block = draw(st.sampled_from([16, 17, 1024]))
    crcs = draw(
        st.lists(st.integers(0, 2**32 - 1), min_size=(n := blocks_of(len(normal), block)), max_size=n)
    )
    packet = Packet(code, draw(st.integers(0, 3)), 7, normal, zero, payload, block, crcs)
    if len(normal) and draw(st.booleans()):
        with_deltas(packet, draw(st.integers(1, len(normal))), draw(st.integers(0, 4096 // 64)) * 64)
    return packet


def with_deltas(packet: Packet, deltas: int, lines_bytes: int) -> None:
    """Make the last of a packet's normal pages deltas; raw they are of so many bytes of lines."""
    packet.bases = np.arange(1, deltas + 1, dtype=np.uint32) % 6 + 1
    packet.group_bytes = group_bytes_range(deltas)[0] + lines_bytes
    packet.whole_bytes = packet.whole_pages * 4096
    packet.payload_bytes = packet.whole_bytes + packet.group_bytes


def slot_with(packet: Packet) -> memoryview:
    slot = memoryview(bytearray(front_room(LIMITS.packet_pages)))
    write_packet(slot, packet)
    return slot


@given(packets())
def test_a_packet_reads_back_as_it_was_written(packet: Packet) -> None:
    found = read_packet(slot_with(packet), LIMITS, 7)
    for field in dataclasses.fields(Packet):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(packet, field.name))
    assert wire_bytes(found) == front_bytes_of(packet) + packet.payload_bytes


@given(packets(), st.data())
def test_any_flipped_bit_is_refused(packet: Packet, data: st.DataObject) -> None:
    slot = slot_with(packet)
    used = front_bytes_of(packet)
    bit = data.draw(st.integers(0, used * 8 - 1))
    slot[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadPacket):
        read_packet(slot, LIMITS, 7)


@given(st.binary(min_size=front_room(16), max_size=front_room(16)))
def test_bytes_that_are_no_packet_are_refused(junk: bytes) -> None:
    with pytest.raises(BadPacket):
        read_packet(memoryview(junk), LIMITS, 7)


def test_fresh_memory_is_no_packet() -> None:
    with pytest.raises(BadPacket, match="magic"):
        read_packet(memoryview(bytes(front_room(16))), LIMITS, 0)


def numbers(*pages: int) -> npt.NDArray[np.uint32]:
    return np.array(pages, np.uint32)


GOOD = Packet(3, 0, 7, numbers(1, 5), numbers(9), 100, 16, [0])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"method_code": 0}, "method code"),
        ({"method_code": 2}, "method code"),
        ({"channel": 4}, "channel"),
        ({"round": 6}, "round"),
        ({"round": 8}, "round"),
        ({"normal": numbers(), "zero": numbers(), "payload_bytes": 0}, "page count"),
        ({"zero": np.arange(15, dtype=np.uint32)}, "page count"),
        ({"normal": numbers(5, 1)}, "ascending"),
        ({"normal": numbers(5, 5)}, "ascending"),
        ({"zero": numbers(3, 2)}, "ascending"),
        ({"normal": numbers(1, 1 << 20)}, "page number"),
        ({"zero": numbers((1 << 32) - 1)}, "page number"),
        ({"zero": numbers(1, 9)}, "as normal and as zero"),
        ({"block_pages": 0}, "block"),
        ({"block_pages": 15}, "block"),
        ({"payload_bytes": 2 * 4096}, "payload"),
        ({"payload_bytes": 0}, "payload"),
        ({"method_code": 1}, "raw payload"),
        ({"normal": numbers(), "zero": numbers(1), "block_crcs": []}, "payload"),
        ({"payload_bytes": 1 << 31}, "payload"),
    ],
)
def test_a_field_out_of_its_limits_is_named(change: dict[str, object], field: str) -> None:
    slot = slot_with(GOOD)
    read_packet(slot, LIMITS, 7)
    packet = dataclasses.replace(GOOD, **change)  # type: ignore[arg-type]
    slot = memoryview(bytearray(front_room(32)))
    write_packet(slot, packet)
    with pytest.raises(BadPacket, match=field):
        read_packet(slot, LIMITS, 7)


GROUP_BYTES = 8 + 1 + 2 * 64
DELTAS = dataclasses.replace(
    GOOD, payload_bytes=160, bases=numbers(6), whole_bytes=100, group_bytes=GROUP_BYTES
)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"bases": numbers(7)}, "delta's round"),
        ({"bases": numbers(0)}, "delta's round"),
        ({"bases": numbers(8)}, "delta's round"),
        ({"bases": numbers(1, 1, 1)}, "deltas: 3 of 2"),
        ({"whole_bytes": 0}, "payload of whole pages"),
        ({"whole_bytes": 4097}, "payload of whole pages"),
        ({"whole_bytes": 160}, "payload of deltas"),
        ({"whole_bytes": 10}, "payload of deltas"),
        ({"group_bytes": 8}, "deltas: 8 bytes"),
        ({"group_bytes": 9 + 4097}, "deltas: 4106 bytes"),
        ({"normal": numbers(5, 5)}, "as whole and as delta"),
        ({"normal": numbers(5, 1 << 20)}, "page number"),
        ({"block_pages": 0, "block_crcs": [], "method_code": 1}, "block"),
        ({"method_code": 1}, "raw payload"),
        ({"zero": numbers(5)}, "as normal and as zero"),
    ],
)
def test_what_is_said_of_deltas_has_limits(change: dict[str, object], field: str) -> None:
    read_packet(slot_with(DELTAS), LIMITS, 7)
    slot = memoryview(bytearray(front_room(32)))
    write_packet(slot, dataclasses.replace(DELTAS, **change))  # type: ignore[arg-type]
    with pytest.raises(BadPacket, match=field):
        read_packet(slot, LIMITS, 7)


def test_who_takes_no_deltas_refuses_their_version() -> None:
    with pytest.raises(BadPacket, match="version: 3"):
        read_packet(slot_with(DELTAS), dataclasses.replace(LIMITS, deltas=False), 7)


def test_the_header_is_32_bytes() -> None:
    assert HEADER.size == 32
