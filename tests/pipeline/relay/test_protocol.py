"""Frames between two relays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import BadFrame
from pipeline.relay.protocol import (
    HEADER,
    IN_ORDER,
    MAX_BLOCK_BYTES,
    OWN_STREAM,
    FrameType,
    Kind,
    check_payload,
    pack,
    read,
)


@given(
    st.integers(0, 299),
    st.integers(1, 2**64 - 1),
    st.integers(1, 2**64 - 1),
    st.integers(0, 255),
    st.binary(min_size=1, max_size=99),
)
def test_data_comes_as_it_was_packed(
    stream: int, sequence: int, order: int, method: int, payload: bytes
) -> None:
    frame = read(pack(FrameType.DATA, stream, sequence, order, method, 99, payload, with_crc=True))
    assert (frame.type, frame.stream, frame.sequence, frame.order) == (
        FrameType.DATA,
        stream,
        sequence,
        order,
    )
    assert (frame.method, frame.plain_bytes, frame.payload_bytes) == (method, 99, len(payload))
    check_payload(frame, memoryview(payload))
    with pytest.raises(BadFrame, match="CRC"):
        check_payload(frame, memoryview(payload[:-1] + bytes([payload[-1] ^ 1])))


@given(st.binary(min_size=HEADER.size, max_size=HEADER.size))
def test_bytes_that_nobody_packed_are_refused(data: bytes) -> None:
    with pytest.raises(BadFrame):
        read(data)


@given(st.integers(0, HEADER.size - 1), st.integers(1, 255))
def test_a_changed_byte_is_found(at: int, change: int) -> None:
    whole = bytearray(pack(FrameType.DATA, 1, 2, 3, 1, 4, b"abcd"))
    whole[at] ^= change
    with pytest.raises(BadFrame):
        read(bytes(whole))


def _packed(arguments: tuple[object, ...]) -> bytes:
    *most, with_crc, history = (*arguments, False, 0) if len(arguments) < 8 else arguments
    return pack(*most, with_crc=with_crc, history=history)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ((FrameType.INVALID,), "type"),
        ((FrameType.DATA, 1, 1, 1, 1, 0, b"x"), "plain bytes"),
        ((FrameType.DATA, 1, 1, 1, 1, MAX_BLOCK_BYTES + 1, b"x"), "plain bytes"),
        ((FrameType.DATA, 1, 1, 1, 1, 1, b""), "payload bytes"),
        ((FrameType.DATA, OWN_STREAM, 1, 1, 1, MAX_BLOCK_BYTES, b"x"), "plain bytes"),
        ((FrameType.DATA, 1, 0, 1, 1, 1, b"x"), "sequence"),
        ((FrameType.DATA, 1, 1, 0, 1, 1, b"x"), "order"),
        ((FrameType.DATA, 300, 1, 1, 1, 1, b"x"), "stream"),
        ((FrameType.PING, 0, 1), "sequence"),
        ((FrameType.EOF, 1, 1, 1, 0, 1, b"x"), "payload"),
        ((FrameType.OPEN, 1, 1, 1, 9), "kind"),
        ((FrameType.DATA, 1, 1, 1, 3, 9, b"x", False, 3), "history"),
        ((FrameType.DATA, 1, 1, 1, 3, 9, b"x", False, 0x100), "history"),
        ((FrameType.DATA, 1, 1, 1, 2, 9, b"x", False, 1), "history"),
        ((FrameType.DATA, OWN_STREAM, 1, 1, 3, 9, b"x", False, 1), "history"),
        ((FrameType.EOF, 1, 1, 1, 0, 0, b"", False, 1), "history"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_its_field(arguments: tuple[object, ...], field: str) -> None:
    with pytest.raises(BadFrame, match=field):
        read(_packed(arguments))


def test_every_type_has_a_form_that_is_taken() -> None:
    for type_ in set(FrameType) - {FrameType.INVALID}:
        numbers = (1, 1) if type_ in IN_ORDER else (0, 0)
        data = (1, b"x") if type_ is FrameType.DATA else (0, b"")
        assert read(pack(type_, 0, *numbers, Kind.MAIN, *data)).type is type_
