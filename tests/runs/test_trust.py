"""Who may send to a receiver of this host, and who may receive what a sender sends."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import pytest

from pipeline.transports.tcp.protocol import (
    HEADER,
    NONCE_BYTES,
    PROOF_BYTES,
    FrameType,
    pack_frame,
)
from tests.support.harness import Run
from tests.support.two_hosts import proxy, receiver, send, sent

SMALL = ("--size", "16M", "--dirty-rate", "0")


@pytest.fixture
def shared(tmp_path: Path) -> tuple[str, str]:
    path = tmp_path / "secret"
    path.write_text("fedcba9876543210" * 2)
    path.chmod(0o600)
    return "--secret", str(path)


class TestLoopback:
    def test_somebody_else_who_listens_gets_nothing(self, shared: tuple[str, str]) -> None:
        """It answers HELLO with a CHALLENGE of its own making."""
        listener = socket.create_server(("127.0.0.1", 0))
        heard = bytearray()

        def serve() -> None:
            sock, _ = listener.accept()
            sock.recv(1 << 16)
            sock.sendall(pack_frame(FrameType.CHALLENGE, 1, os.urandom(NONCE_BYTES)))
            sock.sendall(pack_frame(FrameType.PROOF, 2, os.urandom(PROOF_BYTES)))
            sock.settimeout(3)
            try:
                while data := sock.recv(1 << 16):
                    heard.extend(data)
            except OSError:
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        ended = sent(f"127.0.0.1:{listener.getsockname()[1]}", *SMALL, *shared, "--reconnect", "1")
        thread.join()
        listener.close()
        assert ended.code == 4
        assert "does not know the secret" in ended.errors[0]
        assert len(heard) == HEADER.size + NONCE_BYTES + PROOF_BYTES

    def test_the_secret_is_in_no_document(self, shared: tuple[str, str]) -> None:
        with receiver(*shared) as here:
            ended = sent(here.address, *SMALL, *shared, "--json", "-")
            assert Path(shared[1]).read_text() not in ended.out
            assert "secret" not in ended.result["options"]


class TestStrangers:
    def test_a_crowd_that_says_nothing_keeps_nobody_out_and_is_few_lines(self) -> None:
        with receiver() as here:
            crowd = []
            for _ in range(300):
                sock = socket.create_connection(("127.0.0.1", here.port))
                crowd.append(sock)
            ended = sent(here.address, *SMALL)
            assert ended.code == 0, ended.err
            for sock in crowd:
                sock.close()
            received = here.end()
            assert received.code == 0
            assert received.err.count("refused 127") < 15
            assert "others were refused" in received.err

    def test_reconnections_of_a_run_get_in_past_a_crowd(self) -> None:
        with receiver() as here, proxy(here.port) as network:
            paced = ("--method", "zstd", "--max-bandwidth", "8M", "--json", "-")
            running = send(network.address, "--size", "64M", "--dirty-rate", "0", *paced)
            network.wait_for(3, 1 << 19)
            crowd = [socket.create_connection(("127.0.0.1", here.port)) for _ in range(200)]
            network.pipes[1].cut(reset=True)
            ended = running.end()
            assert ended.code == 0, ended.err
            assert ended.result["transport"]["reconnections"] == 1
            for sock in crowd:
                sock.close()


def test_a_run_over_loopback_is_closed_to_strangers() -> None:
    """`run --transport tcp` makes a secret of its own: nobody else can be its receiver, or its sender."""
    running = Run("--transport", "tcp", "--size", "32M", "--max-bandwidth", "8M", "--dirty-rate", "0")
    running.wait_for("starting")
    time.sleep(0.5)
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[1].startswith("0100007F"):
            port = int(fields[1].split(":")[1], 16)
            with socket.socket() as sock:
                sock.settimeout(2)
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    sock.sendall(b"x" * 100)
    assert running.end().code == 0
