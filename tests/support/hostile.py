"""A peer that speaks the protocol byte by byte, and can break any rule of it."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from guestmem.page import PAGE_BYTES
from pipeline.net.address import parse_address
from pipeline.packets.checksums import block_crcs
from pipeline.packets.packet import Packet, front_room, write_packet
from pipeline.transports.tcp.messages import Open
from pipeline.transports.tcp.older_versions import to_older
from pipeline.transports.tcp.protocol import (
    HEADER,
    VERSION,
    FrameType,
    Hello,
    Role,
    pack_frame,
    pack_hello,
    pack_json,
    read_json,
)

RAM_PAGES = 1024
PACKET_PAGES = 128
CHANNELS = 2
CODES = [1, 3, 5]


def packet_front(packet: Packet) -> bytes:
    """A packet without its payload."""
    room = memoryview(bytearray(front_room(len(packet.normal) + len(packet.zero) + 64) + (1 << 16)))
    return bytes(room[: write_packet(room, packet)])


def raw_packet(
    pages: list[int],
    payload: bytes | None = None,
    *,
    round_: int = 1,
    zero: list[int] | None = None,
    **changed: Any,
) -> tuple[bytes, bytes]:
    """Front and payload of a packet of raw pages; `changed` are fields that lie."""
    data = payload if payload is not None else bytes(os.urandom(PAGE_BYTES * len(pages)))
    fields: dict[str, Any] = {
        "method_code": 1,
        "channel": 0,
        "round": round_,
        "normal": np.array(pages, np.uint32),
        "zero": np.array(zero or [], np.uint32),
        "payload_bytes": len(data),
        "block_pages": 16,
        "block_crcs": block_crcs(memoryview(data), 16),
    }
    return packet_front(Packet(**{**fields, **changed})), data


class Conversation:
    """One connection."""

    def __init__(self, address: str, version: int = VERSION) -> None:
        self.sock = parse_address(address).connect(10)
        self.sock.settimeout(15)
        self.version = version
        self.versions: set[int] = set()
        self.sent = 0

    def hello(self, role: Role, run_id: bytes, number: int = 0, generation: int = 1) -> Conversation:
        """Say HELLO."""
        self.frame(FrameType.HELLO, pack_hello(Hello(role, number, generation, run_id)))
        return self

    def frame(self, type_: FrameType, body: bytes, payload: bytes = b"") -> None:
        """A frame as it should be."""
        self.sent += 1
        self.raw(pack_frame(type_, self.sent, body, len(payload), self.version) + payload)

    def json(self, type_: FrameType, **body: Any) -> None:
        """A frame of JSON; of a guest that runs, unless it says otherwise."""
        if type_ is FrameType.SETTLE:
            body = {"guest_stands": False, **body}
        self.frame(type_, pack_json(to_older(self.version, type_, body) if self.version < VERSION else body))

    def raw(self, data: bytes) -> None:
        """Bytes; a peer that hung up does not matter here."""
        try:
            self.sock.sendall(data)
        except OSError:
            pass

    def answer(self) -> tuple[FrameType | None, dict[str, Any]]:
        """The next frame but PONG; no type when the connection is over."""
        while True:
            head = self._read(HEADER.size)
            if len(head) < HEADER.size:
                return None, {}
            fields = HEADER.unpack(head)
            self.versions.add(fields[1])
            body = self._read(fields[5])
            self._read(fields[6])
            if fields[2] != FrameType.PONG:
                return FrameType(fields[2]), read_json(body)

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                more = self.sock.recv(count - len(data))
            except ConnectionError:
                return data
            if not more:
                return data
            data += more
        return data

    def over_within(self, seconds: float) -> bool:
        """Whether the receiver hangs up within a time, saying what it wants until then."""
        self.sock.settimeout(seconds)
        try:
            while self.sock.recv(1 << 16):
                pass
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        self.sock.close()


class Sender:
    """A run as far as its channels: control is open and each channel is welcome."""

    def __init__(self, address: str, channels: int = CHANNELS, version: int = VERSION) -> None:
        self.address, self.version = address, version
        self.run_id = os.urandom(16)
        self.control = Conversation(address, version).hello(Role.CONTROL, self.run_id)
        assert self.control.answer()[0] is FrameType.WELCOME
        self.open()
        self.channels = [self.channel(number) for number in range(channels)]

    def open(self, **changed: Any) -> None:
        wanted = Open(
            1,
            RAM_PAGES * PAGE_BYTES,
            CHANNELS,
            PACKET_PAGES,
            PACKET_PAGES * PAGE_BYTES,
            CODES,
            1 << 16,
            False,
            False,
        )
        self.control.json(FrameType.OPEN, **{**wanted.body(), **changed})
        assert self.control.answer()[0] is FrameType.OPENED

    def channel(self, number: int, generation: int = 1) -> Conversation:
        """One channel's connection."""
        talk = Conversation(self.address, self.version).hello(Role.PACKETS, self.run_id, number, generation)
        deadline = time.monotonic() + 10
        type_, body = talk.answer()
        assert type_ is FrameType.WELCOME, body
        assert time.monotonic() < deadline
        return talk

    def close(self) -> None:
        for talk in (self.control, *self.channels):
            talk.close()
