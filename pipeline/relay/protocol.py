"""What two relays say to each other. This page is the specification; the code below is its layout.

Connections are made by the source's relay, as channels of the RAM protocol are: TLS, HELLO (`Role.RELAY`, the
number of the connection, its generation, the migration's id), a proof where there is a secret, WELCOME. After
WELCOME either side sends frames: a header of 44 bytes, then a payload. Integers are little endian.

     0  u32 magic "RLY1"
     4  u8  type (`FrameType`; 0 is never valid)
     5  u8  method: how the payload is compressed (`pipeline.codecs`); of OPEN, what the stream is (`Kind`)
     6  u16 stream: numbered by the source's relay from 0; 65535 is the relays' own
     8  u64 sequence: of this stream in this direction, 1, 2, 3, ...
    16  u64 order: of all frames with a sequence in this direction, 1, 2, 3, ...
    24  u32 plain bytes: of the payload when it is decompressed
    28  u32 payload bytes
    32  u32 CRC-32 of the payload where it is compressed, else 0
    36  u32 history: of DATA compressed by zstd with the blocks of this stream before it at hand, 1 or 2 for
            which of two histories, and 256 more where that begins; else 0
    40  u32 CRC-32 of the 40 bytes above

OPEN, DATA and EOF carry streams. They may come on any connection and out of order, and again after a break:
the receiver puts each stream back in order by `sequence`, drops what it has had, and answers ACK when a frame
is done with: a DATA's bytes written to QEMU, all before included. ACK has no sequence of its own: its
`sequence` is the last one of that stream that is done with. The sender keeps what is not acknowledged, and
sends what went over a connection that broke again. DATA of main is written to QEMU only when all of a
lower `order` is.

Stream 65535 carries the relays' own messages, JSON in DATA, from the first frame on: `begin` (which delivery
is meant, and what the source's relay is), `accepted`, `abort` (why), `ended` and the reports of both sides.
A side that does not know a message's `kind` leaves it unread.

Blocks of a history are decompressed in the order of `sequence`, each once, whatever way they came.

PING is answered by PONG, and asked for every second. A side that hears nothing for 5 seconds gives the
connection up.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from isal import isal_zlib

from pipeline.codecs import METHODS
from pipeline.errors import BadFrame
from pipeline.relay.lanes import ANEW, SLOTS

MAGIC = 0x31594C52
HEADER = struct.Struct("<IBBHQQIIIII")
ZSTD_CODE = METHODS["zstd"].code
_BEFORE_CRC = struct.Struct("<IBBHQQIIII")
VERSION = 2
"""Of what `begin` and the streams mean; `begin` says it. 2 has histories."""

OWN_STREAM = 0xFFFF
MAX_STREAMS = 300
"""QEMU's multifd has at most 255 channels; main and preempt beside them."""

MAX_BLOCK_BYTES = 1 << 20
MAX_MESSAGE_BYTES = 60 << 10
ROOM_BYTES = 64 << 10
"""What a codec may add to a block at most."""


class FrameType(IntEnum):
    """What a frame is."""

    INVALID = 0
    OPEN = 1
    DATA = 2
    EOF = 3
    ACK = 4
    PING = 5
    PONG = 6


IN_ORDER = frozenset({FrameType.OPEN, FrameType.DATA, FrameType.EOF})


class Kind(IntEnum):
    """What a stream was found to be."""

    INVALID = 0
    MAIN = 1
    MULTIFD = 2
    LATE = 3
    """It came after main's first bytes, so it may stay silent: postcopy's preempt connection."""


@dataclass(frozen=True)
class Frame:
    """A header that has been checked."""

    type: FrameType
    method: int
    stream: int
    sequence: int
    order: int
    plain_bytes: int
    payload_bytes: int
    crc32: int
    history: int = 0


def pack(
    type_: FrameType,
    stream: int = 0,
    sequence: int = 0,
    order: int = 0,
    method: int = 0,
    plain_bytes: int = 0,
    payload: bytes | memoryview = b"",
    *,
    with_crc: bool = False,
    history: int = 0,
) -> bytes:
    """A header; the payload follows by itself."""
    crc = isal_zlib.crc32(payload) if with_crc else 0
    fields = MAGIC, type_, method, stream, sequence, order, plain_bytes, len(payload), crc, history
    head = _BEFORE_CRC.pack(*fields)
    return head + isal_zlib.crc32(head).to_bytes(4, "little")


def read(data: bytes | memoryview) -> Frame:
    """Check a header. Raises BadFrame."""
    magic, kind, method, stream, sequence, order, plain, payload, crc, history, head_crc = HEADER.unpack(data)
    _refuse(magic != MAGIC, "magic", f"{magic:#010x}")
    _refuse(isal_zlib.crc32(data[: _BEFORE_CRC.size]) != head_crc, "header CRC-32", f"{head_crc:#010x}")
    _refuse(kind not in FrameType._value2member_map_ or kind == 0, "type", kind)
    type_ = FrameType(kind)
    _refuse(stream >= MAX_STREAMS and stream != OWN_STREAM, "stream", stream)
    if type_ is not FrameType.ACK:
        _refuse((sequence == 0) == (type_ in IN_ORDER), "sequence", f"{sequence} of {type_.name}")
    _refuse((order == 0) == (type_ in IN_ORDER), "order", f"{order} of {type_.name}")
    if type_ is FrameType.DATA:
        limit = MAX_MESSAGE_BYTES if stream == OWN_STREAM else MAX_BLOCK_BYTES
        _refuse(not 0 < plain <= limit, "plain bytes", plain)
        _refuse(not 0 < payload <= plain + ROOM_BYTES, "payload bytes", payload)
    else:
        _refuse(plain != 0 or payload != 0, "payload", f"{payload} bytes of {type_.name}")
    _refuse(history != 0 and not _has_history(type_, stream, method, history), "history", history)
    if type_ is FrameType.OPEN:
        _refuse(method not in Kind._value2member_map_ or method == 0, "kind of a stream", method)
    return Frame(type_, method, stream, sequence, order, plain, payload, crc, history)


def _has_history(type_: FrameType, stream: int, method: int, history: int) -> bool:
    is_block = type_ is FrameType.DATA and stream != OWN_STREAM and method == ZSTD_CODE
    return is_block and 1 <= history & ~ANEW <= SLOTS


def check_payload(frame: Frame, payload: memoryview) -> None:
    """Raises BadFrame for one that came damaged."""
    found = isal_zlib.crc32(payload)
    _refuse(found != frame.crc32, "payload CRC-32", f"{frame.crc32:#010x}, computed {found:#010x}")


def _refuse(bad: bool, field: str, value: object) -> None:
    if bad:
        raise BadFrame(f"relay frame {field}: {value}")
