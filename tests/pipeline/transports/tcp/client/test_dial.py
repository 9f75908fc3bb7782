"""The sender's call, and what a receiver of the version before says to it."""

from __future__ import annotations

import socket
import threading

import pytest

from pipeline.errors import PeerRefused
from pipeline.net.address import Address
from pipeline.transports.tcp.client.dial import Peer
from pipeline.transports.tcp.messages import Refusal
from pipeline.transports.tcp.protocol import (
    HEADER,
    HELLO,
    FrameType,
    Hello,
    Role,
    pack_frame,
    pack_json,
)

HELLO_SAID = Hello(Role.PACKETS, 0, 1, bytes(range(16)))


class OldReceiver:
    """Takes HELLO of version 1 only; `versions` are those it was spoken to in."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address("127.0.0.1", self._listener.getsockname()[1])
        self.versions: list[int] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while len(self.versions) < 3:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock:
                said = sock.recv(HEADER.size + HELLO.size, socket.MSG_WAITALL)
                self.versions.append(said[4])
                if said[4] == 1:
                    sock.sendall(pack_frame(FrameType.WELCOME, 1, pack_json({"old": True}), version=1))
                else:
                    refusal = Refusal(f"frame version: {said[4]}, here 1", False)
                    sock.sendall(pack_frame(FrameType.REFUSED, 1, pack_json(refusal.body()), version=1))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def test_it_is_called_again_in_its_version() -> None:
    here = OldReceiver()
    link, body = Peer(here.address, None, 1.0, 5.0).call(HELLO_SAID)
    assert (link.version, body, here.versions) == (1, {"old": True}, [3, 2, 1])
    link.close()
    here.close()


def test_where_there_is_a_secret_it_is_not() -> None:
    here = OldReceiver()
    with pytest.raises(PeerRefused, match=r"is ramferry 0\.1, which knows no --secret"):
        Peer(here.address, None, 1.0, 5.0, b"0123456789abcdef").call(HELLO_SAID)
    assert here.versions == [3, 2]
    here.close()
