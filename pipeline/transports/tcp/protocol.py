"""The protocol between two hosts. This page is the specification; the code below is its layout.

One connection carries control, and one for each channel of the sender carries packets. All are made by the
sender. A packet travels on whichever connection is free: the channel in its header says which channel made
it, and has nothing to do with the number of the connection that it came on. Where TLS is used it
is version 1.3, both sides show certificates, and nothing is read before its handshake is over.

Frames
------
Everything is a frame: a header of 32 bytes, a body, a payload. All integers little endian.

     0  u32 magic "RFN1"
     4  u8  version
     5  u8  type (`FrameType`; 0 is never valid)
     6  u16 0
     8  u32 sequence: 1, 2, 3, ... on this connection in this direction
    12  u32 body bytes
    16  u32 payload bytes
    20  u32 CRC-32 of the body
    24  u32 0
    28  u32 CRC-32 of the 28 bytes above

The bodies of HELLO, CHALLENGE, RESPONSE and PROOF are binary (below), that of PACKET is the front of a packet
(`pipeline.packets.packet`), that of all others one JSON object. Only PACKET, SETTLED and
VERIFIED_PAGES have a payload. What is longer than its type allows, a sequence with a gap, a reserved field
that is not 0, or a checksum that is wrong, ends the connection.

HELLO is the first frame of a connection. An unknown peer can send nothing else, but RESPONSE where there is a
secret:

     0  u8  role (`Role`; 0 is never valid)
     1  u8  0
     2  u16 number of the connection, from 0; 0 for control and resume
     4  u32 generation of this connection, from 1: a later one replaces an earlier one
     8  16  run id: random, chosen by the sender, not all zero; whoever knows it belongs to the run

Role 4 is that of a relay (`pipeline.relay.protocol`), which takes no others; a receiver refuses it. Role 5 is
that of a probe (`pipeline.transports.tcp.probe`), which both answer with WELCOME and PROBED, unless a
migration goes on; sides older than it refuse it by its number.

Version rule: a side takes its own version and those before, and all frames of a connection have the version
of its HELLO; what a receiver says before it has read one is of the oldest version. A sender whose HELLO is
refused for its version (the text of REFUSED begins with `frame version`) calls again in the one before. This
is version 3. Version 2 has no deltas. Version 1 is that of 0.1.0; 0 is not valid. Version 1 has no secret,
and neither side speaks it where there is one; it has no VERIFY_PAGES. How the JSON of both differs, says
`pipeline.transports.tcp.older_versions`.

The shared secret
-----------------
Any user of a host can listen on its loopback ports, and connect to them. Where there is no TLS, both sides
can be given a secret. Then a receiver answers HELLO with CHALLENGE, on every connection, and reads nothing
but RESPONSE next; a sender that was given one takes nothing but CHALLENGE:

    CHALLENGE   32  the receiver's nonce, random
    RESPONSE    32  the sender's nonce, random
                32  HMAC-SHA256(secret, "ramferry 2 sender" 0 and what follows)
    PROOF       32  HMAC-SHA256(secret, "ramferry 2 receiver" 0 and what follows)

What follows is both nonces, the receiver's first, the body of HELLO, and the receiver's address and port as
each side sees them, in text with a space between (`127.0.0.1 7000`). So nobody between the two can pass on
what they say. A proof that is wrong ends the connection: REFUSED at the receiver, and at the sender for good.
The secret says who is there. It neither hides nor protects what comes after, as TLS does.

On a Unix socket each side asks its kernel instead, and speaks with its own user and with root only.

States of the receiver, and what it takes in each
-------------------------------------------------
    LISTENING   HELLO control         -> WELCOME, its offer; OFFERED. A HELLO for packets is refused.
    OFFERED     OPEN                  -> OPENED, when the destination has its memory; RUNNING from then on
    RUNNING     HELLO packets k, g    -> WELCOME, when the worker is ready; an earlier generation of k ends
                PACKET on k           -> (nothing: only SETTLE tells)
                END on k              -> (nothing: no more packets come on this connection, and it closes)
                SETTLE r              -> SETTLED r, when nothing of round r is on its way; the round is r + 1
                VERIFY                -> VERIFIED
                VERIFY_PAGES          -> VERIFIED_PAGES
                COMMIT                -> COMMITTED; DONE
    any         PING                  -> PONG
                HELLO resume, g + 1   -> WELCOME: the sender has lost control; the state stays
                FAILED                -> the run has failed; LISTENING
    DONE        FINISH                -> REPORT; LISTENING, or the end

A second sender (another run id) is REFUSED while a run goes on, and so is a HELLO resume of a run that is
not here. Either side may send FAILED, with a line
that says why, and then closes. When control is lost the receiver waits `reconnect` seconds, keeps all
that it has, and goes on taking packets; after that the run has failed.

Requests carry a number, and the answer the same. A sender that lost control asks again with the same
number; to a request that was answered already the receiver gives the same answer.

Rounds and what is lost
-----------------------
Packets are applied as they come, each page at most once a round. Behind the last packet of a round the
sender says in SETTLE, for every connection, its generation and how many packets were written on it. The
receiver ends connections of earlier generations, waits until the others have delivered that many or are
broken, and answers which pages of the round have been applied: all that SETTLE says, or a bitmap. Pages
that were not are dirty again. So nothing that was applied is sent twice, whatever broke, and no packet of
one round can overwrite one of the next.

WELCOME on a connection for packets says how many packets of the run were applied so far. A sender whose
connections break again and again, with packets sent on them and none applied, gives up after its `reconnect`
seconds: something on the way lets small packets through and no large ones.

What guards what
----------------
Against damage on the way: TLS, and the digests of VERIFY. Frames, fronts of packets, and the pages of packets
that were made from a snapshot have a CRC-32 besides.

Against a page that the guest wrote while it was read: the dirty log. The guest marks a page after writing it,
its mark was cleared before it was read, so the page is listed again. Raw pages that are read out of live RAM
while they are sent therefore have no checksums (in version 1 they have, and what does not match is not
applied). What arrived while the guest ran counts for the copy only if the guest has not written it since:
SETTLE says of a round whether the guest has stood still since its pages were listed (`guest_stands`), COMMIT
how many pages were dirty when it was paused (`dirty_pages`), and the receiver commits only when it has
applied as many in the rounds since. A round with the guest running starts that count again.

Is the copy the source?
-----------------------
VERIFY asks for digests of regions: `region_bytes` each, from the start of RAM, the last may be shorter;
BLAKE2b of 16 bytes, in hex. Both sides make theirs at the same time. Of a region whose digests differ
VERIFY_PAGES (not in version 1) asks for the pages, by `region_bytes` and the region's index from 0; the
payload of VERIFIED_PAGES is one u32 a page of the region, in order: the page's CRC-32. A guest that runs on
at the source has written some of the pages that differ; the others may not.

Members for a device
--------------------
The device that decompresses takes members of GZIP_EXT up to its buffer size only. So WELCOME says whether the
receiver wants one to (`decode_on_qat`), and OPEN how many plain bytes a member holds at most
(`qat_buffer_bytes`), and whether that is so of members made in software as well (`decode_on_qat`).

The end of a run without COMMIT is a failure, and what the receiver had is gone. Before it answers COMMIT
it looks itself whether every page of RAM has been applied, none was left half written by a connection that
broke, and all that was dirty came while the guest stood.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from isal import isal_zlib

from pipeline.errors import BadFrame

VERSION = 3
VERSIONS = frozenset({1, 2, VERSION})
OLDEST_VERSION = min(VERSIONS)
SECRET_VERSION, DELTA_VERSION = 2, 3
"""From which on a side knows secrets, and deltas."""

VERSION_REFUSED = "frame version"
"""How a REFUSED begins that is for the version of a HELLO."""
MAGIC = 0x314E4652
HEADER = struct.Struct("<IBBHIIIIII")
_BEFORE_CRC = struct.Struct("<IBBHIIIII")
HELLO = struct.Struct("<BBHI16s")
RUN_ID_BYTES = 16
NONCE_BYTES = PROOF_BYTES = 32

MAX_JSON_BYTES = 60 << 10
"""A body of JSON: digests of 1024 regions are 36 KiB, a report of 64 channels 20."""

HELLO_SECONDS = 5.0
"""From a connection's first byte to the end of its HELLO, TLS handshake and all."""

STALL_SECONDS = 5.0
"""A connection on which something is due, and nothing moves for so long, is broken."""

MIN_BYTES_PER_SECOND = 16 << 10
"""A payload that comes more slowly than this has stalled."""

PING_SECONDS = 1.0


class FrameType(IntEnum):
    """What a frame is; who sends it."""

    INVALID = 0
    HELLO = 1  # sender
    WELCOME = 2  # receiver
    REFUSED = 3  # receiver
    OPEN = 4  # sender
    OPENED = 5  # receiver
    PING = 6  # sender
    PONG = 7  # receiver
    PACKET = 8  # sender
    SETTLE = 9  # sender
    SETTLED = 10  # receiver
    VERIFY = 11  # sender
    VERIFIED = 12  # receiver
    COMMIT = 13  # sender
    COMMITTED = 14  # receiver
    FINISH = 15  # sender
    REPORT = 16  # receiver
    FAILED = 17  # both
    END = 18  # sender: no more packets come on this connection
    CHALLENGE = 19  # receiver
    RESPONSE = 20  # sender
    PROOF = 21  # receiver
    VERIFY_PAGES = 22  # sender
    VERIFIED_PAGES = 23  # receiver
    PROBED = 24  # receiver


WITH_PAYLOAD = frozenset({FrameType.PACKET, FrameType.SETTLED, FrameType.VERIFIED_PAGES})


class Role(IntEnum):
    """What a connection is for."""

    INVALID = 0
    CONTROL = 1
    PACKETS = 2
    RESUME = 3
    RELAY = 4
    PROBE = 5


ROLES = frozenset(Role) - {Role.INVALID}


@dataclass(frozen=True)
class FrameHeader:
    """A header that has been checked."""

    version: int
    type: FrameType
    sequence: int
    body_bytes: int
    payload_bytes: int
    body_crc32: int


@dataclass(frozen=True)
class Hello:
    """The first frame of a connection."""

    role: Role
    number: int
    generation: int
    run_id: bytes


@dataclass(frozen=True)
class FrameLimits:
    """What of a frame's lengths a side accepts, in a state."""

    types: frozenset[FrameType]
    body_bytes: int = MAX_JSON_BYTES
    payload_bytes: int = 0


HELLO_LIMITS = FrameLimits(frozenset({FrameType.HELLO}), HELLO.size)
RESPONSE_LIMITS = FrameLimits(frozenset({FrameType.RESPONSE}), NONCE_BYTES + PROOF_BYTES)


def pack_frame(
    type_: FrameType,
    sequence: int,
    body: bytes | memoryview,
    payload_bytes: int = 0,
    version: int = VERSION,
) -> bytes:
    """Header and body; the payload follows by itself."""
    head = _BEFORE_CRC.pack(
        MAGIC,
        version,
        type_,
        0,
        sequence,
        len(body),
        payload_bytes,
        isal_zlib.crc32(body),
        0,
    )
    return head + isal_zlib.crc32(head).to_bytes(4, "little") + body


def read_header(data: bytes, sequence: int, limits: FrameLimits) -> FrameHeader:
    """Check a header against what may come now. Raises BadFrame."""
    if len(data) != HEADER.size:
        raise BadFrame(f"frame header: {len(data)} bytes, not {HEADER.size}")
    magic, version, kind, zero, number, body, payload, body_crc, zero_too, crc = HEADER.unpack(data)
    _refuse(magic != MAGIC, "frame magic", f"{magic:#010x}, not {MAGIC:#010x}")
    found = isal_zlib.crc32(data[: _BEFORE_CRC.size])
    _refuse(crc != found, "frame header CRC-32", f"{crc:#010x}, computed {found:#010x}")
    _refuse(version not in VERSIONS, VERSION_REFUSED, f"{version}, here {VERSION}")
    _refuse(zero != 0 or zero_too != 0, "frame reserved field", zero or zero_too)
    if kind not in limits.types:
        names = ", ".join(sorted(known.name for known in limits.types))
        raise BadFrame(f"frame type: {_type_name(kind)} where {names} may come")
    _refuse(number != sequence, "frame sequence", f"{number} where {sequence} is due")
    _refuse(body > limits.body_bytes, "frame body", f"{body} bytes of {limits.body_bytes} at most")
    _refuse(
        payload > 0 and kind not in WITH_PAYLOAD, "frame payload", f"{payload} bytes of a {_type_name(kind)}"
    )
    _refuse(
        payload > limits.payload_bytes, "frame payload", f"{payload} bytes of {limits.payload_bytes} at most"
    )
    return FrameHeader(version, FrameType(kind), number, body, payload, body_crc)


def check_body(header: FrameHeader, body: bytes | memoryview) -> None:
    """Raises BadFrame when the body is not what the header says."""
    found = isal_zlib.crc32(body)
    _refuse(
        header.body_crc32 != found, "frame body CRC-32", f"{header.body_crc32:#010x}, computed {found:#010x}"
    )


def pack_hello(hello: Hello) -> bytes:
    """The body of a HELLO."""
    return HELLO.pack(hello.role, 0, hello.number, hello.generation, hello.run_id)


def read_hello(body: bytes) -> Hello:
    """Raises BadFrame."""
    if len(body) != HELLO.size:
        raise BadFrame(f"hello: {len(body)} bytes, not {HELLO.size}")
    role, zero, number, generation, run_id = HELLO.unpack(body)
    _refuse(role not in ROLES, "hello role", role)
    _refuse(zero != 0, "hello reserved field", zero)
    numbered = Role.PACKETS, Role.RELAY, Role.PROBE
    _refuse(role not in numbered and number != 0, "hello number", f"{number} of control")
    _refuse(generation == 0, "hello generation", 0)
    _refuse(not any(run_id), "hello run id", "all zero")
    return Hello(Role(role), number, generation, run_id)


def pack_json(body: dict[str, Any]) -> bytes:
    """A body of JSON."""
    return json.dumps(body, separators=(",", ":")).encode()


def read_json(body: bytes | memoryview) -> dict[str, Any]:
    """Raises BadFrame for what is no JSON object."""
    try:
        found = json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"frame body: no JSON ({type(error).__name__})") from error
    if not isinstance(found, dict):
        raise BadFrame(f"frame body: {type(found).__name__}, not an object")
    return found


def _type_name(kind: int) -> str:
    return FrameType(kind).name if kind in FrameType._value2member_map_ else str(kind)


def _refuse(bad: bool, field: str, value: object) -> None:
    if bad:
        raise BadFrame(f"{field}: {value}")
