"""Who may send to a receiver of this host, and who may receive what a sender sends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.cli import recv as recv_command
from pipeline.cli import send as send_command
from pipeline.errors import UsageError
from tests.support.harness import Run, read
from tests.support.two_hosts import receiver, secret, send, sent

SMALL = ("--size", "16M", "--dirty-rate", "0")
NOBODY = 65534


def other_secret(folder: Path) -> str:
    path = folder / "other"
    path.write_text("another secret of enough bytes")
    path.chmod(0o600)
    return str(path)


class TestLoopback:
    @pytest.mark.parametrize(("command", "option"), [(send_command, "--to"), (recv_command, "--listen")])
    def test_plain_tcp_needs_a_word(self, command: object, option: str) -> None:
        with pytest.raises(UsageError, match="any user of this host"):
            read(command, option, "127.0.0.1:7000")  # type: ignore[arg-type]
        for more in (("--insecure",), ("--secret", secret())):
            read(command, option, "127.0.0.1:7000", *more)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="is for TCP"):
            read(command, option, "unix:/tmp/x", "--secret", secret())  # type: ignore[arg-type]

    def test_a_secret_that_is_shared_works(self) -> None:
        with receiver() as here:
            assert sent(here.address, *SMALL).code == 0
            assert here.end().code == 0

    def test_another_secret_is_refused_on_both_sides(self, tmp_path: Path) -> None:
        with receiver() as here:
            ended = sent(here.address, *SMALL, "--secret", other_secret(tmp_path), "--reconnect", "1")
            assert ended.code == 4
            assert "does not know the --secret" in ended.errors[0]
            assert sent(here.address, *SMALL).code == 0

    def test_a_sender_without_one_is_told(self) -> None:
        with receiver() as here:
            ended = sent(here.address, *SMALL, "--insecure", "--reconnect", "1")
            assert ended.code == 4
            assert "wants a --secret" in ended.errors[0]

    def test_a_receiver_without_one_gets_nothing(self) -> None:
        with receiver("--insecure") as here:
            ended = sent(here.address, *SMALL, "--reconnect", "1")
            assert ended.code == 4
            assert "does not ask for the --secret" in ended.errors[0]

    def test_somebody_else_who_listens_gets_nothing(self) -> None:
        """It answers HELLO with a CHALLENGE of its own making."""
        from pipeline.transports.tcp.protocol import FrameType, pack_frame

        listener = socket.create_server(("127.0.0.1", 0))
        heard = bytearray()

        def serve() -> None:
            sock, _ = listener.accept()
            sock.recv(1 << 16)
            sock.sendall(pack_frame(FrameType.CHALLENGE, 1, os.urandom(64)))
            sock.settimeout(3)
            try:
                while data := sock.recv(1 << 16):
                    heard.extend(data)
            except OSError:
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        ended = sent(f"127.0.0.1:{listener.getsockname()[1]}", *SMALL, "--reconnect", "1")
        thread.join()
        listener.close()
        assert ended.code == 4
        assert not heard

    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda path: path.write_text("x" * 15), "must be 16 to"),
            (lambda path: path.chmod(0o644), "is open to others"),
            (lambda path: path.unlink(), "cannot be read"),
        ],
    )
    def test_a_file_that_cannot_be_used(self, make: object, words: str, tmp_path: Path) -> None:
        path = Path(other_secret(tmp_path))
        make(path)  # type: ignore[operator]
        with pytest.raises(UsageError, match=words):
            read(send_command, "--to", "127.0.0.1:7", "--secret", str(path))

    def test_the_secret_is_in_no_document(self) -> None:
        with receiver() as here:
            ended = sent(here.address, *SMALL, "--json", "-")
            assert Path(secret()).read_text() not in ended.out
            assert "secret" not in ended.result["options"]


@pytest.mark.skipif(os.geteuid() != 0, reason="another user can be played by root only")
class TestUnixSockets:
    def test_another_users_receiver_gets_nothing(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o777)
        path = str(tmp_path / "socket")
        program = (
            "import os, socket, sys, time; os.setuid(65534); s = socket.socket(socket.AF_UNIX); "
            "s.bind(sys.argv[1]); os.chmod(sys.argv[1], 0o666); s.listen(); print('up', flush=True); "
            "c, _ = s.accept(); print(len(c.recv(1 << 16)), flush=True)"
        )
        os.chmod(tmp_path.parent, 0o755)
        os.chmod(tmp_path.parent.parent, 0o755)
        other = subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        if other.stdout.readline() != "up\n":
            pytest.skip("the other user cannot make a socket here")
        ended = sent(f"unix:{path}", *SMALL, "--reconnect", "1")
        assert ended.code == 4
        assert "another user" in ended.errors[0]
        assert other.stdout.readline() == "0\n"
        other.wait(5)

    def test_another_users_sender_is_sent_away(self, tmp_path: Path) -> None:
        path = str(tmp_path / "socket")
        with receiver(listen=f"unix:{path}") as here:
            os.chmod(path, 0o666)
            for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
                os.chmod(folder, 0o755)
            program = (
                "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX); "
                "s.connect(sys.argv[1]); s.settimeout(3); print(s.recv(100))"
            )
            ended = subprocess.run(
                [sys.executable, "-c", program, path], capture_output=True, text=True, timeout=20, check=False
            )
            assert ended.stdout == "b''\n", ended.stderr
            assert "another user" in here.run.wait_for("another user")
            assert sent(f"unix:{path}", *SMALL).code == 0


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
            assert received.err.count("refused") < 15
            assert "more were refused" in received.err

    def test_reconnections_of_a_run_get_in_past_a_crowd(self) -> None:
        from tests.support.two_hosts import proxy

        with receiver() as here, proxy(here.port) as network:
            running = send(
                network.address, "--size", "64M", "--dirty-rate", "0", "--max-bandwidth", "8M", "--json", "-"
            )
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
