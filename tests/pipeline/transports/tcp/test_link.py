"""Both directions of a link, against a peer that lets bytes through one by one."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from pipeline.errors import ConnectionLost
from pipeline.transports.tcp import incoming, link
from pipeline.transports.tcp.link import Link
from pipeline.transports.tcp.protocol import FrameType

ROOM = 8 << 20


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many bytes in half a second, or more."""
    monkeypatch.setattr(incoming, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(link, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(incoming, "MIN_BYTES_PER_SECOND", 1 << 30)


def connected() -> tuple[socket.socket, socket.socket]:
    """Over TCP: a Unix socket's peer is the same user's, and a send over one waits anew for each part."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        return near, listener.accept()[0]


class Sipping:
    """A peer that takes some bytes, again and again, and never enough."""

    def __init__(self, sock: socket.socket, count: int) -> None:
        self._sock, self._count, self._over = sock, count, threading.Event()
        self._thread = threading.Thread(target=self._sip)

    def _sip(self) -> None:
        while not self._over.wait(0.02):
            self._sock.recv(self._count)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()
        self._sock.close()


def test_a_peer_that_takes_bytes_one_by_one_does_not_hold_a_sender() -> None:
    near, far = connected()
    sending = Link(near)
    with Sipping(far, 4096):
        began = time.monotonic()
        with pytest.raises(ConnectionLost, match="stalled: fewer than"):
            sending.send_frame(FrameType.PACKET, b"", [memoryview(bytes(ROOM))])
        assert time.monotonic() - began < 20
        near.close()


def test_a_peer_that_takes_all_is_sent_all() -> None:
    near, far = connected()
    with Sipping(far, ROOM):
        Link(near).send_frame(FrameType.PACKET, b"", [memoryview(bytes(ROOM // 8))])
        near.close()
