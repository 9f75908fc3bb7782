"""Blocks of a stream: each comes back as it was, in order, and anything else is refused."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.codecs.zstd_history import HistoryDecoder, HistoryEncoder
from pipeline.errors import CodecError

ROOM_BYTES = 4096


def compressed(encoder: HistoryEncoder, plain: bytes) -> memoryview:
    out = memoryview(bytearray(len(plain) + ROOM_BYTES))
    return out[: encoder.compress(memoryview(bytearray(plain)), out)]


def plain_of(decoder: HistoryDecoder, payload: memoryview, size: int) -> bytes:
    room = memoryview(bytearray(size))
    decoder.decompress(payload, room)
    return bytes(room)


@given(
    blocks=st.lists(st.binary(min_size=1, max_size=3000), max_size=12), level=st.sampled_from([3, 5, 7, 9])
)
@settings(max_examples=60, deadline=None)
def test_blocks_come_back(blocks: list[bytes], level: int) -> None:
    encoder, decoder = HistoryEncoder(level), HistoryDecoder()
    for block in blocks:
        assert plain_of(decoder, compressed(encoder, block), len(block)) == block


def test_what_came_before_is_not_sent_again() -> None:
    encoder, block = HistoryEncoder(5), random.Random(1).randbytes(100_000)
    assert len(compressed(encoder, block)) > len(block)
    assert len(compressed(encoder, block)) < 1000


def test_a_block_that_was_left_out_is_noticed() -> None:
    encoder, decoder = HistoryEncoder(5), HistoryDecoder()
    text = [b"".join(b"%d of %d, " % (n, turn) for n in range(3000)) for turn in range(3)]
    payloads = [compressed(encoder, block) for block in text]
    assert plain_of(decoder, payloads[0], len(text[0])) == text[0]
    try:
        assert plain_of(decoder, payloads[2], len(text[2])) != text[2]
    except CodecError:
        pass


@given(payload=st.binary(min_size=1, max_size=400))
@settings(max_examples=200, deadline=None)
def test_bytes_that_nobody_compressed_are_refused(payload: bytes) -> None:
    with pytest.raises(CodecError):
        plain_of(HistoryDecoder(), memoryview(bytearray(payload)), 5000)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_block_of_another_size_is_refused(change: int) -> None:
    payload = compressed(HistoryEncoder(5), b"some page of a guest, " * 50)
    with pytest.raises(CodecError):
        plain_of(HistoryDecoder(), payload, 22 * 50 + change)


def test_a_large_window_is_refused() -> None:
    """A frame header (RFC 8878, 3.1.1) that asks for 64 MiB."""
    header = bytes.fromhex("28b52ffd") + bytes([0x00, (26 - 10) << 3])
    with pytest.raises(CodecError, match="memory"):
        plain_of(HistoryDecoder(), memoryview(bytearray(header + bytes(20))), 5000)
