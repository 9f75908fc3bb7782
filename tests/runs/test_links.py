"""What lies between two commands: who is at the other end, addresses, and networks that lie."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli import recv as recv_command
from pipeline.cli import run as run_command
from pipeline.cli import send as send_command
from pipeline.errors import UsageError
from pipeline.transports.tcp.protocol import HEADER, FrameType, Hello, Role, pack_frame, pack_hello
from tests.support.harness import Run, migrate, read
from tests.support.hostile import Conversation, Sender, raw_packet
from tests.support.two_hosts import certificates, proxy, receiver, send, sent

SMALL = ("--size", "16M", "--dirty-rate", "0")
NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="another user's process needs root")


def secret(folder: Path, text: str = "0123456789abcdef" * 4, mode: int = 0o600) -> str:
    path = folder / f"secret-{abs(hash(text))}"
    path.write_text(text + "\n")
    path.chmod(mode)
    return str(path)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that other users reach, as pytest's own is not."""
    folder = Path(tempfile.mkdtemp(prefix="ferry-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


class TestASharedSecret:
    def test_both_know_it(self, tmp_path: Path) -> None:
        shared = ("--secret", secret(tmp_path))
        with receiver(*shared) as here:
            ended = sent(here.address, *SMALL, *shared, "--json", "-")
            assert ended.code == 0, ended.err
            assert here.end().code == 0
        assert "0123456789abcdef" not in ended.out

    def test_another_one_is_refused_and_the_next_sender_is_served(self, tmp_path: Path) -> None:
        shared = ("--secret", secret(tmp_path))
        with receiver(*shared) as here:
            ended = sent(here.address, *SMALL, "--secret", secret(tmp_path, "another secret of mine"))
            assert ended.code == 4
            assert "the secret is another" in ended.errors[0]
            ended = sent(here.address, *SMALL, "--insecure")
            assert ended.code == 4
            assert "give --secret FILE" in ended.errors[0]
            assert sent(here.address, *SMALL, *shared).code == 0

    def test_a_receiver_that_asks_for_none_is_not_trusted(self, tmp_path: Path) -> None:
        with receiver("--insecure") as here:
            ended = sent(here.address, *SMALL, "--secret", secret(tmp_path))
            assert ended.code == 4
            assert "asks for no secret" in ended.errors[0]

    def test_whoever_passes_it_on_is_found_out(self, tmp_path: Path) -> None:
        """As a user does who listens at another address of loopback than the receiver."""
        shared = ("--secret", secret(tmp_path))
        with receiver(*shared) as here, proxy(here.port) as between:
            ended = sent(between.address, *SMALL, *shared)
            assert ended.code == 4
            assert "somebody stands between" in ended.errors[0]

    def test_nothing_is_read_before_the_proof(self, tmp_path: Path) -> None:
        hello = Hello(Role.CONTROL, 0, 1, bytes(range(16)))
        with receiver("--secret", secret(tmp_path)) as here:
            for type_, text in ((FrameType.OPEN, b"frame type: OPEN"), (FrameType.RESPONSE, b"secret")):
                talk = Conversation(here.address)
                talk.frame(FrameType.HELLO, pack_hello(hello))
                challenge = talk.sock.recv(200)
                assert (challenge[5], len(challenge)) == (FrameType.CHALLENGE, HEADER.size + 32)
                talk.frame(type_, bytes(64))
                assert text in talk.sock.recv(1000)
                assert talk.over_within(1)
                talk.close()

    def test_version_1_has_none_and_is_refused(self, tmp_path: Path) -> None:
        body = pack_hello(Hello(Role.CONTROL, 0, 1, bytes(range(16))))
        with receiver("--secret", secret(tmp_path)) as here:
            talk = Conversation(here.address)
            talk.raw(pack_frame(FrameType.HELLO, 1, body, version=1))
            answer = talk.sock.recv(1000)
            assert answer[4] == 1
            assert b"version 1 knows no shared secret" in answer
            talk.close()

    def test_a_run_with_both_ends_here_makes_its_own(self) -> None:
        migrate("--transport", "tcp", *SMALL)
        with pytest.raises(UsageError, match="unrecognized arguments: --secret"):
            read(run_command, "--transport", "tcp", "--secret", "x")

    @pytest.mark.parametrize("module", ["send", "recv"])
    def test_what_loopback_needs(self, module: str, tmp_path: Path) -> None:
        command, option = (send_command, "--to") if module == "send" else (recv_command, "--listen")
        shared = secret(tmp_path)
        for address in ("127.0.0.1:7000", "[::1]:7000"):
            with pytest.raises(UsageError, match="any user of this host"):
                read(command, option, address)
            read(command, option, address, "--secret", shared)
            read(command, option, address, "--insecure")
        read(command, option, "unix:/tmp/x")
        for arguments, text in (
            (("192.0.2.1:7000", "--secret", shared), "the network is untrusted"),
            (("unix:/tmp/x", "--secret", shared), "the kernel says who is there"),
            (("127.0.0.1:7", "--secret", shared, "--tls-dir", "x"), "is for plain TCP"),
            (("127.0.0.1:7", "--secret", secret(tmp_path, "s" * 20, 0o640)), "chmod 600"),
            (("127.0.0.1:7", "--secret", secret(tmp_path, "short")), "holds 5 bytes, must be 16 to 1024"),
            (("127.0.0.1:7", "--secret", str(tmp_path)), "is not a regular file"),
            (("127.0.0.1:7", "--secret", "/nowhere/x"), "No such file"),
            (("127.0.0.1:7", "--secret", "/dev/null"), "is not a regular file"),
        ):
            with pytest.raises(UsageError, match=text):
                read(command, option, *arguments)


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "unix:"])
def test_a_sender_of_version_1_is_taken(listen: str, open_folder: Path) -> None:
    with receiver(listen=f"unix:{open_folder}/socket" if listen == "unix:" else listen) as here:
        sender = Sender(here.address, version=1)
        for talk in (sender.control, *sender.channels):
            assert talk.versions == {1}
        sender.channels[0].frame(FrameType.PACKET, *raw_packet([1, 2]))
        sender.control.json(FrameType.SETTLE, request=2, round=1, pages=2, connections=[[1, 1], [1, 0]])
        type_, body = sender.control.answer()
        assert (type_, body["applied"]) == (FrameType.SETTLED, 2)
        assert sender.control.versions == {1}
        sender.close()


def test_a_socket_file_that_somebody_removed(open_folder: Path) -> None:
    output = open_folder / "copy"
    path = open_folder / "socket"
    with receiver("--output", str(output), listen=f"unix:{path}") as here:
        running = send(here.address, "--size", "32M", "--max-bandwidth", "32M", "--method", "none")
        here.run.wait_for("run of")
        time.sleep(0.3)
        path.unlink()
        with receiver(listen=f"unix:{path}") as other:
            assert running.end().code == 0
            ended = here.end()
            assert (ended.code, ended.errors) == (0, [])
            assert "Traceback" not in ended.err
            assert sent(other.address, *SMALL).code == 0
    assert output.stat().st_size == 32 << 20
    assert not path.exists()


def test_a_channel_that_calls_in_vain_while_the_copy_is_checked() -> None:
    """All of its packets have been applied: its time runs out, and the run goes on."""
    paced = (
        "--size",
        "32M",
        "--dirty-rate",
        "0",
        "--method",
        "none",
        "--max-bandwidth",
        "24M",
        "--json",
        "-",
    )
    with receiver() as here, proxy(here.port) as network:
        running = send(network.address, *paced, "--reconnect", "1")
        network.wait_for(3, 1 << 20)
        network.refusing.set()
        network.pipes[1].cut(reset=True)
        running.wait_for("checking the copy")
        session = here.run.one("rf session")
        os.kill(session, signal.SIGSTOP)
        time.sleep(2.5)
        os.kill(session, signal.SIGCONT)
        ended = running.end()
        assert ended.code == 0, ended.err
        assert ended.result["verified"] is True
        assert here.end().code == 0


@pytest.fixture
def visited() -> Iterator[str]:
    """A guest that keeps writing, and does not know of migrations."""
    name = f"links-{os.getpid()}"
    writes = ("--dirty-rate", "2M", "--dirty-pattern", "sequential")
    owner = Run("--create", name, "--size", "64M", *writes, module="tools.dirtyrate")
    try:
        owner.wait_for(name)
        yield name
    finally:
        os.kill(owner.process.pid, signal.SIGINT)
        owner.end(10)


class TestAVisitedGuestRunsOnWhileItsCopyIsChecked:
    def test_what_it_writes_meanwhile_may_differ(self, visited: str) -> None:
        with receiver() as here:
            ended = sent(here.address, "--attach", visited, "--json", "-", "--downtime-limit", "1000")
            assert ended.code == 0, ended.err
            assert here.end().code == 0
        assert ended.result["verification"] == {"images": True}
        assert ended.result["guest"]["state"] == "running"

    def test_what_it_did_not_write_may_not(self, visited: str) -> None:
        """A copy that is harmed where the guest does not write, when that has been sent."""
        paced = ("--max-bandwidth", "24M", "--method", "none", "--downtime-limit", "1000", "--delta", "0")
        with receiver("--once") as here:
            running = send(here.address, "--attach", visited, *paced)
            here.run.wait_for("run of")
            time.sleep(2)
            harm(here.run.one("rf session"), 64 << 20, 8000)
            ended = running.end()
        assert ended.code == 1
        assert "the copy is not the source: page 8000 differs" in ended.errors[0]


def test_a_copy_that_is_harmed_is_told_by_its_page(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(os.urandom(48 << 20))
    paced = ("--image", str(image), "--dirty-rate", "0", "--max-bandwidth", "24M", "--method", "none")
    with receiver("--once") as here:
        running = send(here.address, *paced)
        here.run.wait_for("run of")
        time.sleep(1)
        harm(here.run.one("rf session"), 48 << 20, 5)
        ended = running.end()
        assert ended.code == 1
        assert "the copy is not the source: page 5 differs" in ended.errors[0]


def harm(session: int, size_bytes: int, page: int) -> None:
    """Flip a byte of a page of the destination, which is the segment of that size."""
    for entry in Path(f"/proc/{session}/fd").iterdir():
        if entry.stat().st_size == size_bytes:
            with entry.open("r+b") as file:
                file.seek(page * 4096 + 7)
                byte = file.read(1)
                file.seek(page * 4096 + 7)
                file.write(bytes([byte[0] ^ 1]))
            return
    raise AssertionError("no destination")


@pytest.mark.parametrize("prealloc", [True, False])
def test_a_connection_made_again_does_not_give_ram_its_pages_again(prealloc: bool) -> None:
    with receiver(*(("--prealloc",) if prealloc else ())) as here:
        sender = Sender(here.address, channels=0)
        took: dict[int, float] = {}
        for number, generation in ((0, 1), (0, 2), (1, 1), (0, 3), (1, 2)):
            talk = Conversation(here.address).hello(Role.PACKETS, sender.run_id, number, generation)
            type_, body = talk.answer()
            assert type_ is FrameType.WELCOME
            first = took.setdefault(number, body["prealloc_ms"])
            assert (first > 0) is prealloc
            assert body["prealloc_ms"] == first, "it was done once"
            talk.close()
        sender.close()


class TestCertificatesThatGoAway:
    """What was read while it was good stays in use."""

    def test_the_receiver_goes_on_and_says_so_once(self, tmp_path: Path) -> None:
        folder = certificates(tmp_path / "certs", "127.0.0.1")
        own = shutil.copytree(folder, tmp_path / "sender")
        with receiver("--tls-dir", str(folder), "--runs", "4") as here:
            for round_ in range(4):
                if round_ == 1:
                    (folder / "server-key.pem").unlink()
                if round_ == 3:
                    shutil.copy(own / "server-key.pem", folder)
                ended = sent(here.address, *SMALL, "--tls-dir", str(own))
                assert ended.code == 0, ended.err
            said = here.end()
        assert said.code == 0
        assert said.errors == []
        assert len([line for line in said.err.splitlines() if "stay in use" in line]) == 1

    def test_a_reconnection_of_the_sender_needs_no_file(self, tmp_path: Path) -> None:
        folder = certificates(tmp_path / "certs", "127.0.0.1")
        tls = ("--tls-dir", str(folder))
        with receiver(*tls) as here, proxy(here.port) as network:
            paced = ("--size", "32M", "--dirty-rate", "0", "--max-bandwidth", "24M", "--method", "none")
            running = send(network.address, *paced, *tls)
            network.wait_for(3, 1 << 20)
            (folder / "client-key.pem").unlink()
            network.pipes[1].cut(reset=True)
            ended = running.end()
            assert ended.code == 0, ended.err


def test_a_session_that_ends_before_anybody_came_is_not_started_in_a_loop() -> None:
    with receiver("--runs", "0") as here:
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            for pid in here.run.pids("rf session"):
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        said = here.stop()
    assert 2 <= len(said.errors) <= 8


def as_nobody(program: str) -> subprocess.Popen[str]:
    """The user may not be able to read this Python: it becomes that user afterwards."""
    become = f"import os, socket; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
    return subprocess.Popen([sys.executable, "-c", become + program], stdout=subprocess.PIPE, text=True)


@needs_root
class TestAUnixSocketOfAnotherUser:
    def test_the_sender_does_not_speak_with_it(self, open_folder: Path) -> None:
        path = open_folder / "socket"
        listening = as_nobody(
            "s = socket.socket(socket.AF_UNIX)\n"
            f"s.bind({str(path)!r}); s.listen(); print('here', flush=True)\n"
            "s.settimeout(30); c, _ = s.accept(); print(len(c.recv(100)), flush=True)"
        )
        assert listening.stdout is not None
        assert listening.stdout.readline() == "here\n"
        ended = sent(f"unix:{path}", *SMALL)
        assert ended.code == 4
        assert f"user {NOBODY} is at the other end" in ended.errors[0]
        assert listening.communicate(timeout=10)[0] == "0\n"

    def test_the_receiver_does_not_listen_to_it(self, open_folder: Path) -> None:
        path = open_folder / "socket"
        with receiver(listen=f"unix:{path}") as here:
            path.chmod(0o777)
            calling = as_nobody(
                "s = socket.socket(socket.AF_UNIX)\n"
                f"s.connect({str(path)!r}); s.settimeout(10); print(s.recv(1000)[32:])"
            )
            assert f"user {NOBODY} is at the other end" in calling.communicate(timeout=10)[0]
            here.run.wait_for("refused a local process")
            assert sent(f"unix:{path}", *SMALL).code == 0
