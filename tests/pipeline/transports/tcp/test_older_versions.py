"""What a peer of an older version says and is told."""

from __future__ import annotations

import dataclasses

import pytest

from pipeline.errors import BadFrame
from pipeline.transports.tcp.messages import Commit, Offer, Open, Ready, Settle
from pipeline.transports.tcp.older_versions import VERSION_1, VERSION_2, from_older, to_older
from pipeline.transports.tcp.protocol import FrameType

OFFER = Offer(1 << 30, 64, 1024, 1 << 22, [1, 2], True, "file x", 30.0, True)
OPEN = Open(1, 1 << 24, 2, 128, 1 << 19, [1, 3], 1 << 15, True, True)
SETTLE = Settle(2, 1, 100, [[1, 5], [2, 0]], True)


def test_an_offer() -> None:
    told = to_older(VERSION_1, FrameType.WELCOME, OFFER.body())
    assert told["keeps"] == "file x"
    assert not {"output", "decode_on_qat"} & set(told)
    heard = Offer.of(from_older(VERSION_1, FrameType.WELCOME, told))
    assert heard == Offer(1 << 30, 64, 1024, 1 << 22, [1, 2], True, "file x", 30.0, False)


def test_the_other_welcome() -> None:
    told = to_older(VERSION_1, FrameType.WELCOME, Ready(1.5, "", False, 7, 4096).body())
    assert told == {"prealloc_ms": 1.5, "fallback_reason": "", "simulated": False}
    assert Ready.of(from_older(VERSION_1, FrameType.WELCOME, told)) == Ready(1.5, "", False, 0, 0)


def test_an_open() -> None:
    told = to_older(VERSION_1, FrameType.OPEN, OPEN.body())
    assert set(OPEN.body()) - set(told) == {"qat_buffer_bytes", "decode_on_qat", "deltas"}
    heard = Open.of(from_older(VERSION_1, FrameType.OPEN, told))
    assert (heard.qat_buffer_bytes, heard.decode_on_qat) == (None, False)


def test_a_settle() -> None:
    told = to_older(VERSION_1, FrameType.SETTLE, SETTLE.body())
    assert told["channels"] == [[1, 5], [2, 0]]
    assert "guest_stands" not in told
    assert Settle.of(from_older(VERSION_1, FrameType.SETTLE, told)) == dataclasses.replace(
        SETTLE, guest_stands=False
    )


def test_a_commit() -> None:
    told = to_older(VERSION_1, FrameType.COMMIT, Commit(3, 7).body())
    assert told == {"request": 3}
    assert Commit.of(from_older(VERSION_1, FrameType.COMMIT, told)) == Commit(3, None)


@pytest.mark.parametrize(
    ("type_", "body"),
    [
        (FrameType.WELCOME, {"output": "x", "keeps": "x"}),
        (FrameType.OPEN, {"ram_bytes": 4096, "decode_on_qat": True}),
        (FrameType.SETTLE, {"connections": []}),
        (FrameType.SETTLE, {"round": 1, "guest_stands": True}),
        (FrameType.COMMIT, {"request": 1, "dirty_pages": 0}),
    ],
)
def test_fields_of_version_2_are_refused_in_version_1(type_: FrameType, body: dict[str, object]) -> None:
    with pytest.raises(BadFrame, match="not a field of version 1"):
        from_older(VERSION_1, type_, body)


@pytest.mark.parametrize("buffer", [0, 4095, 3 << 14, 1 << 20, "64K"])
def test_buffers_that_no_device_has(buffer: object) -> None:
    with pytest.raises(BadFrame, match="qat_buffer_bytes"):
        Open.of({**OPEN.body(), "qat_buffer_bytes": buffer})


def test_version_2_is_told_all_but_deltas() -> None:
    told = to_older(VERSION_2, FrameType.OPEN, OPEN.body())
    assert "deltas" not in told
    assert "qat_buffer_bytes" in told
    heard = Open.of(from_older(VERSION_2, FrameType.OPEN, told))
    assert heard == dataclasses.replace(OPEN, deltas=False)
    with pytest.raises(BadFrame, match="not a field of version 2"):
        from_older(VERSION_2, FrameType.OPEN, OPEN.body())
    assert to_older(VERSION_2, FrameType.SETTLE, SETTLE.body()) == SETTLE.body()
