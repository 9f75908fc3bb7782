"""Peers that mean harm. Whatever they do, the receiver says one line in time, and serves the next run."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
import zstandard
from isal import isal_zlib

from guestmem.page import PAGE_BYTES
from pipeline.transports.tcp.protocol import HEADER, FrameType, Hello, Role, pack_frame, pack_hello
from tests.support.hostile import PACKET_PAGES, RAM_PAGES, Conversation, Sender, raw_packet
from tests.support.two_hosts import Receiver, proxy, receiver, send, sent

RUN_ID = bytes(range(16))


@pytest.fixture(scope="module")
def here() -> Iterator[Receiver]:
    """One receiver for all of them: none may keep it from the next."""
    with receiver("--runs", "0", "--reconnect", "1") as listening:
        yield listening


def assert_serves(here: Receiver) -> None:
    ended = sent(here.address, "--size", "4M", "--dirty-rate", "0", "--quiet")
    assert ended.code == 0, ended.err
    here.run.wait_for("complete")


def hello_frame(role: int = 1, number: int = 0, generation: int = 1, run_id: bytes = RUN_ID) -> bytes:
    body = struct.pack("<BBHI16s", role, 0, number, generation, run_id)
    return pack_frame(FrameType.HELLO, 1, body)


GOOD_HELLO = pack_frame(FrameType.HELLO, 1, pack_hello(Hello(Role.CONTROL, 0, 1, RUN_ID)))


def with_crc(head: bytes) -> bytes:
    return head + struct.pack("<I", isal_zlib.crc32(head))


STRANGERS: dict[str, tuple[bytes, str]] = {
    "junk": (os.urandom(300), "frame magic"),
    "http": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + bytes(60), "frame magic"),
    "zeros": (bytes(100), "frame magic: 0x00000000"),
    "a flipped bit": (GOOD_HELLO[:40] + bytes([GOOD_HELLO[40] ^ 1]) + GOOD_HELLO[41:], "body CRC-32"),
    "version 0": (
        with_crc(GOOD_HELLO[:4] + b"\0" + GOOD_HELLO[5:28]) + GOOD_HELLO[32:],
        "frame version: 0",
    ),
    "version 4": (
        with_crc(GOOD_HELLO[:4] + b"\4" + GOOD_HELLO[5:28]) + GOOD_HELLO[32:],
        "frame version: 4",
    ),
    "a reserved field": (
        with_crc(GOOD_HELLO[:6] + b"\1\0" + GOOD_HELLO[8:28]) + GOOD_HELLO[32:],
        "frame reserved field: 1",
    ),
    "type 0": (with_crc(GOOD_HELLO[:5] + b"\0" + GOOD_HELLO[6:28]) + GOOD_HELLO[32:], "frame type: INVALID"),
    "another type first": (pack_frame(FrameType.PING, 1, b"{}"), "frame type: PING"),
    "sequence 2": (pack_frame(FrameType.HELLO, 2, GOOD_HELLO[32:]), "frame sequence: 2"),
    "a body of gigabytes": (
        with_crc(GOOD_HELLO[:12] + b"\xff" * 4 + GOOD_HELLO[16:28]),
        "frame body: 4294967295 bytes",
    ),
    "a payload": (with_crc(GOOD_HELLO[:16] + b"\1\0\0\0" + GOOD_HELLO[20:28]), "frame payload: 1 bytes"),
    "role 0": (hello_frame(role=0), "hello role: 0"),
    "role 6": (hello_frame(role=6), "hello role: 6"),
    "a relay": (hello_frame(role=Role.RELAY), "a relay calls another relay"),
    "resuming what is not here": (hello_frame(role=3), "no run of this id is open here"),
    "generation 0": (hello_frame(generation=0), "hello generation: 0"),
    "run id 0": (hello_frame(run_id=bytes(16)), "hello run id: all zero"),
    "control with a number": (hello_frame(number=1), "hello number: 1"),
    "packets of no run": (hello_frame(role=2), "no run of this id is open here"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_stranger_is_sent_away(name: str, here: Receiver) -> None:
    data, line = STRANGERS[name]
    talk = Conversation(here.address)
    began = time.monotonic()
    talk.raw(data)
    type_, body = talk.answer()
    assert type_ is FrameType.REFUSED
    assert re.search(line, body["text"])
    assert talk.over_within(3)
    assert time.monotonic() - began < 3
    talk.close()


@pytest.mark.long
def test_nothing_half_a_header_and_one_byte_a_second(here: Receiver) -> None:
    """At the same time: each is sent away when its five seconds are over."""
    pieces = (b"", GOOD_HELLO[:16], GOOD_HELLO[: HEADER.size])
    silent = [Conversation(here.address) for _ in pieces]
    for talk, piece in zip(silent, pieces, strict=True):
        talk.raw(piece)
    slow = Conversation(here.address)
    began = time.monotonic()
    for byte in GOOD_HELLO[:6]:
        slow.raw(bytes([byte]))
        time.sleep(1)
    for talk, count in zip((*silent, slow), ("0", "16", "32", "[456]"), strict=True):
        assert re.search(rf"no hello within 5 s \({count} bytes came\)", talk.answer()[1]["text"])
        assert talk.over_within(0.5)
        talk.close()
    assert time.monotonic() - began < 8
    here.run.wait_for("no hello within 5 s")


class Crowd:
    """Silent sockets of two addresses, made again as soon as they are sent away, by a process of its own."""

    PROGRAM = (
        "import select, socket, sys\n"
        "def call(host):\n"
        "    s = socket.socket(); s.bind((host, 0)); s.setblocking(False)\n"
        "    s.connect_ex(('127.0.0.1', int(sys.argv[1]))); return s\n"
        "crowd = {s.fileno(): (s, h) for h in sys.argv[2:] for s in [call(h) for _ in range(80)]}\n"
        "poll = select.poll()\n"
        "for fd in crowd: poll.register(fd, select.POLLIN)\n"
        "while True:\n"
        "    for fd, _ in poll.poll():\n"
        "        poll.unregister(fd); s, h = crowd.pop(fd); s.close()\n"
        "        s = call(h); crowd[s.fileno()] = s, h; poll.register(s.fileno(), select.POLLIN)\n"
    )

    def __init__(self, port: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", self.PROGRAM, str(port), "127.0.0.2", "127.0.0.3"]
        )

    def __enter__(self) -> None:
        time.sleep(1)

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()


def test_two_addresses_of_silent_strangers_do_not_keep_a_sender_out() -> None:
    """Nor do they keep it from calling again, and they do not fill the log."""
    with receiver("--runs", "2", "--reconnect", "10") as here, Crowd(here.port):
        assert sent(here.address, "--size", "4M", "--dirty-rate", "0").code == 0
        with proxy(here.port) as network:
            slow = ("--size", "32M", "--dirty-rate", "0", "--max-bandwidth", "16M", "--method", "none")
            running = send(network.address, *slow)
            network.wait_for(3, 1 << 20)
            network.cut_all()
            ended = running.end()
            assert ended.code == 0, ended.err
        said = here.end().err
    lines = [line for line in said.splitlines() if "refused" in line]
    left_out = sum(int(found) for found in re.findall(r"and (\d+) others were refused", said))
    assert lines and left_out > 50 * len(lines)


def test_after_all_of_them_an_honest_run_works(here: Receiver) -> None:
    assert_serves(here)


def send_packet(sender: Sender, front: bytes, payload: bytes, channel: int = 0) -> None:
    sender.channels[channel].frame(FrameType.PACKET, front, payload)


def compressed(payload: bytes, pages: int, code: int = 3) -> tuple[bytes, bytes]:
    """A packet that says it decompresses to `pages` pages."""
    front, _ = raw_packet(
        list(range(pages)),
        b"\0" * PAGE_BYTES * pages,
        method_code=code,
        payload_bytes=len(payload),
    )
    return front, payload


def inflating() -> bytes:
    """A frame of 4 GiB of zeros in some hundred KiB that does not say its length."""
    packer = zstandard.ZstdCompressor(level=3, write_content_size=False).compressobj()
    block = bytes(16 << 20)
    return b"".join(packer.compress(block) for _ in range(64)) + packer.flush()


def lying_length() -> bytes:
    """The same, and it says that it is 8 pages."""
    frame = bytearray(zstandard.ZstdCompressor(level=1).compress(bytes(256 << 20)))
    # Frame_Header_Descriptor: single segment, a content size of 4 bytes, behind the magic.
    assert frame[4] >> 6 == 2
    window = 0 if frame[4] & 0x20 else 1
    frame[5 + window : 9 + window] = struct.pack("<I", 8 * PAGE_BYTES)
    return bytes(frame)


def page_twice(sender: Sender) -> None:
    front, payload = raw_packet([5, 6, 7])
    send_packet(sender, front, payload)
    send_packet(sender, *raw_packet([7]))


def page_twice_on_two_channels(sender: Sender) -> None:
    send_packet(sender, *raw_packet([5, 6, 7]))
    time.sleep(0.3)
    send_packet(sender, *raw_packet([7]), channel=1)


def stale_round(sender: Sender) -> None:
    sender.control.json(FrameType.SETTLE, request=2, round=1, pages=0, connections=[[1, 0], [1, 0]])
    assert sender.control.answer()[0] is FrameType.SETTLED
    send_packet(sender, *raw_packet([5], round_=1))


def settle(
    sender: Sender, request: int, round_: int, pages: int, packets: int, *, stands: bool = False
) -> None:
    """Round `round_` is over: so many pages, in so many packets over channel 0."""
    sender.control.json(
        FrameType.SETTLE,
        request=request,
        round=round_,
        pages=pages,
        connections=[[1, packets], [1, 0]],
        guest_stands=stands,
    )
    assert sender.control.answer()[0] is FrameType.SETTLED


def torn_last_version(sender: Sender) -> None:
    """All of RAM is whole after round 1; round 2 tears the 16 pages of a block, and is the last."""
    for first in range(0, RAM_PAGES, PACKET_PAGES):
        send_packet(sender, *raw_packet([], b"", zero=list(range(first, first + PACKET_PAGES))))
    settle(sender, 2, 1, RAM_PAGES, RAM_PAGES // PACKET_PAGES)
    send_packet(sender, *raw_packet(list(range(16)), round_=2, block_crcs=[1]))
    settle(sender, 3, 2, 16, RAM_PAGES // PACKET_PAGES + 1)
    sender.control.json(FrameType.COMMIT, request=4, dirty_pages=16)


def written_while_it_was_read(sender: Sender) -> None:
    """All of RAM is whole after round 1. The guest had written 16 pages when it was paused; 8 of them arrived
    while it stood, the others when it ran, and nobody knows whether those are of one moment."""
    for first in range(0, RAM_PAGES, PACKET_PAGES):
        send_packet(sender, *raw_packet([], b"", zero=list(range(first, first + PACKET_PAGES))))
    packets = RAM_PAGES // PACKET_PAGES
    settle(sender, 2, 1, RAM_PAGES, packets)
    send_packet(sender, *raw_packet(list(range(8)), round_=2, block_pages=0, block_crcs=[]))
    settle(sender, 3, 2, 8, packets + 1)
    send_packet(sender, *raw_packet(list(range(8, 16)), round_=3, block_pages=0, block_crcs=[]))
    settle(sender, 4, 3, 8, packets + 2, stands=True)
    sender.control.json(FrameType.COMMIT, request=5, dirty_pages=16)


def tampered(offset: int, value: int) -> Callable[[Sender], None]:
    def send_it(sender: Sender) -> None:
        front, payload = raw_packet([5, 6])
        changed = bytearray(front)
        struct.pack_into("<I", changed, offset, value)
        send_packet(sender, bytes(changed), payload)

    return send_it


MEMBERS: dict[str, tuple[Callable[[Sender], None], str]] = {
    "a page out of range": (lambda s: send_packet(s, *raw_packet([RAM_PAGES])), "page number: 1024 of 1024"),
    "the last page number there is": (lambda s: send_packet(s, *raw_packet([2**32 - 1])), "page number"),
    "a zero page out of range": (
        lambda s: send_packet(s, *raw_packet([], b"", zero=[RAM_PAGES])),
        "page number: 1024 of 1024",
    ),
    "a page twice in a packet": (lambda s: send_packet(s, *raw_packet([5, 5])), "not strictly ascending"),
    "a page as normal and zero": (
        lambda s: send_packet(s, *raw_packet([5], zero=[5])),
        "as normal and as zero",
    ),
    "a page twice": (page_twice, "page 7: twice in round 1"),
    "a page twice on two channels": (page_twice_on_two_channels, "page 7: twice in round 1"),
    "a length that wraps": (
        lambda s: send_packet(s, *raw_packet([5], b"", payload_bytes=2**32 - 4096, block_crcs=[0])),
        "payload",
    ),
    "more pages than a packet": (
        lambda s: send_packet(s, *raw_packet(list(range(PACKET_PAGES + 1)))),
        "frame body|frame payload|page count",
    ),
    "a page count that wraps": (tampered(12, 2**32 - 1), "page count"),
    "a zero count that wraps": (tampered(16, 2**32 - 2), "page count"),
    "a method that was not agreed": (
        lambda s: send_packet(s, *compressed(b"x" * 100, 8, code=2)),
        "method code: 2",
    ),
    "a channel in the packet": (lambda s: send_packet(s, *raw_packet([5], channel=2)), "channel: 2 of 2"),
    "a payload shorter than the packet says": (
        lambda s: send_packet(s, raw_packet([5])[0], bytes(100)),
        "payload: 100 bytes",
    ),
    "inflating to gigabytes": (lambda s: send_packet(s, *compressed(inflating(), 128)), "zstd frame"),
    "inflating past what it says": (lambda s: send_packet(s, *compressed(lying_length(), 8)), "zstd|ZSTD"),
    "bytes that are no zstd": (lambda s: send_packet(s, *compressed(os.urandom(999), 8)), "zstd"),
    "bytes that are no gzip": (lambda s: send_packet(s, *compressed(os.urandom(999), 8, code=5)), "gzip"),
    "the bytes of other pages": (
        lambda s: send_packet(s, *compressed(zstandard.compress(b"a" * PAGE_BYTES * 8), 8)),
        "CRC-32",
    ),
    "a stale round": (stale_round, "round: 1 in round 2"),
    "a round to come": (lambda s: send_packet(s, *raw_packet([5], round_=2)), "round: 2 in round 1"),
    "junk on a channel": (lambda s: s.channels[0].raw(os.urandom(200)), "frame magic"),
    "a request on a channel": (
        lambda s: s.channels[0].json(FrameType.COMMIT, request=2, dirty_pages=0),
        "frame type: COMMIT",
    ),
    "junk on control": (lambda s: s.control.raw(os.urandom(200)), "frame magic"),
    "a packet on control": (lambda s: s.control.frame(FrameType.PACKET, b"{}"), "frame type: PACKET"),
    "no JSON": (lambda s: s.control.frame(FrameType.SETTLE, b"{"), "no JSON"),
    "deep JSON": (lambda s: s.control.frame(FrameType.SETTLE, b"[" * 50_000), "no JSON"),
    "a list": (lambda s: s.control.frame(FrameType.SETTLE, b"[]"), "not an object"),
    "a field of another type": (
        lambda s: s.control.json(FrameType.SETTLE, request=2, round="1", pages=0, connections=[]),
        "round: '1'",
    ),
    "a field too many": (
        lambda s: s.control.json(FrameType.SETTLE, request=2, round=1, pages=0, connections=[], more=1),
        "'more': not a field of Settle",
    ),
    "a request again and other": (
        lambda s: s.control.json(FrameType.SETTLE, request=7),
        "request: 7 after 1",
    ),
    "settle with channels missing": (
        lambda s: s.control.json(FrameType.SETTLE, request=2, round=1, pages=0, connections=[[1, 0]]),
        "connections: 1 of 2",
    ),
    "settle another round": (
        lambda s: s.control.json(FrameType.SETTLE, request=2, round=2, pages=0, connections=[[1, 0], [1, 0]]),
        "round: 2 in round 1",
    ),
    "open twice": (
        lambda s: s.control.json(FrameType.OPEN, request=2),
        "frame type: OPEN in state RUNNING",
    ),
    "keep what never came": (
        lambda s: s.control.json(FrameType.COMMIT, request=2, dirty_pages=0),
        f"{RAM_PAGES} pages of RAM did not arrive whole",
    ),
    "keep what was torn last": (torn_last_version, "16 pages of RAM did not arrive whole"),
    "keep what a guest wrote": (
        written_while_it_was_read,
        "of 16 pages that the guest had written 8",
    ),
    "finish before the end": (
        lambda s: s.control.json(FrameType.FINISH, request=2),
        "frame type: FINISH in state RUNNING",
    ),
    "pages of a region that is none": (
        lambda s: s.control.json(FrameType.VERIFY_PAGES, request=2, region_bytes=16 << 20, region=1),
        "region: 1 of 1",
    ),
    "pages of a region too large": (
        lambda s: s.control.json(FrameType.VERIFY_PAGES, request=2, region_bytes=32 << 20, region=0),
        "region_bytes: 33554432 of 16777216 at most",
    ),
    "regions of one page": (
        lambda s: s.control.json(FrameType.VERIFY, request=2, how="images", region_bytes=4095),
        "region_bytes: 4095",
    ),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_of_a_run_that_breaks_the_rules(name: str, here: Receiver) -> None:
    do_harm, line = MEMBERS[name]
    sender = Sender(here.address)
    began = time.monotonic()
    do_harm(sender)
    said = here.run.wait_for("error:")
    assert time.monotonic() - began < 5
    assert re.search(line, said), said
    type_, body = sender.control.answer()
    assert type_ in (FrameType.FAILED, None)
    if type_ is FrameType.FAILED:
        assert re.search(line, body["text"])
    sender.close()


@pytest.mark.long
def test_half_a_packet_and_then_nothing(here: Receiver) -> None:
    """A channel that stalls is closed; the sender that only pings has a run, but not for ever."""
    sender = Sender(here.address)
    front, payload = raw_packet([5, 6, 7])
    whole = pack_frame(FrameType.PACKET, 2, front, len(payload)) + payload
    sender.channels[0].raw(whole[:-100])
    assert sender.channels[0].over_within(12)
    sender.close()
    here.run.wait_for("stalled")
    here.run.wait_for("error:")


def test_a_connection_number_equal_to_the_number_of_channels(here: Receiver) -> None:
    sender = Sender(here.address)
    talk = Conversation(here.address).hello(Role.PACKETS, sender.run_id, 2)
    assert talk.answer() == (FrameType.REFUSED, {"text": "connection: 2 of 2", "busy": False})
    talk = Conversation(here.address).hello(Role.PACKETS, sender.run_id, 0)
    assert talk.answer()[1]["text"] == "generation: 1 of connection 0 after 1"
    talk = Conversation(here.address).hello(Role.PACKETS, RUN_ID, 0, generation=2)
    assert talk.answer()[1]["text"] == "no run of this id is open here"
    talk = Conversation(here.address).hello(Role.CONTROL, RUN_ID)
    assert talk.answer()[1]["busy"] is True
    talk = Conversation(here.address).hello(Role.RESUME, sender.run_id, generation=1)
    assert talk.answer()[1]["text"] == "generation: 1 after 1"
    talk = Conversation(here.address).hello(Role.RESUME, RUN_ID, generation=2)
    assert talk.answer()[1]["busy"] is True
    sender.close()
    here.run.wait_for("error:")


@pytest.mark.long
def test_a_sender_that_opens_nothing(here: Receiver) -> None:
    talk = Conversation(here.address).hello(Role.CONTROL, RUN_ID)
    assert talk.answer()[0] is FrameType.WELCOME
    assert talk.over_within(8)
    assert re.search("opened no run|before it opened a run", here.run.wait_for("error:"))
    talk.close()


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"ram_bytes": 1 << 59}, "is more than the"),
        ({"ram_bytes": 4097}, "not a RAM of whole pages"),
        ({"ram_bytes": -1}, "ram_bytes: -1"),
        ({"channels": 0}, "channels: 0"),
        ({"channels": 65}, "65 channels are more than the 64"),
        ({"packet_pages": 1025}, "packets of 1025 pages"),
        ({"payload_bytes": 1 << 31}, "payloads of 2147483648 bytes"),
        ({"method_codes": [1, 99]}, "cannot decompress method code 99"),
        ({"method_codes": [3]}, "are without 1"),
        ({"method_codes": [0]}, "method_codes: 0"),
    ],
)
def test_a_run_that_does_not_fit(changed: dict[str, object], line: str, here: Receiver) -> None:
    sender = Sender.__new__(Sender)
    sender.control = Conversation(here.address).hello(Role.CONTROL, RUN_ID)
    assert sender.control.answer()[0] is FrameType.WELCOME
    with pytest.raises(AssertionError):
        sender.open(**changed)
    assert line in here.run.wait_for("error:")
    sender.control.close()


@pytest.mark.parametrize("state", ["connected", "hello", "opened", "channels", "packets", "settled"])
def test_a_reset_in_every_state(state: str, here: Receiver) -> None:
    def reset(*talks: Conversation) -> None:
        for talk in talks:
            talk.sock.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER
            talk.close()

    if state == "connected":
        reset(Conversation(here.address))
    elif state == "hello":
        talk = Conversation(here.address).hello(Role.CONTROL, RUN_ID)
        talk.answer()
        reset(talk)
        here.run.wait_for("error:")
    else:
        sender = Sender(here.address, channels=0 if state == "opened" else 2)
        if state in ("packets", "settled"):
            send_packet(sender, *raw_packet([1, 2, 3]))
        if state == "settled":
            sender.control.json(FrameType.SETTLE, request=2, round=1, pages=3, connections=[[1, 1], [1, 0]])
            assert sender.control.answer()[1]["applied"] == 3
        reset(*sender.channels, sender.control)
        here.run.wait_for("error:")
    assert_serves(here)
