"""Two commands and a network between them: what arrives, and what survives."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from guestmem.segment import SHM
from pipeline.cli import recv as recv_command
from pipeline.cli import run as run_command
from pipeline.cli import send as send_command
from pipeline.errors import UsageError
from tests.support.harness import Run, migrate, read
from tests.support.two_hosts import Receiver, certificates, proxy, receiver, send, sent

GUEST = ("--size", "64M", "--dirty-rate", "8M")
PACED = ("--size", "64M", "--method", "zstd", "--dirty-rate", "2M", "--max-bandwidth", "16M", "--json", "-")
"""A first round of a second and more."""

SLOW = ("--size", "64M", "--method", "none", "--dirty-rate", "0", "--max-bandwidth", "16M", "--json", "-")
"""Longer than another sender takes to start on a host in use."""


@pytest.fixture(scope="module")
def tls_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificates(tmp_path_factory.mktemp("tls") / "certs", "127.0.0.1", "::1", "localhost", "lab")


@pytest.mark.parametrize("method", ["none", "zstd", "isal", "qatzip", "auto"])
def test_both_ends_here(method: str) -> None:
    result = migrate("--transport", "tcp", *GUEST, "--method", method, "--channels", "3", "--prealloc")
    assert result["transport"]["kind"] == "tcp"
    assert [channel["channel"] for channel in result["transport"]["channels"]] == [0, 1, 2]
    assert result["transport"]["reconnections"] == 0
    assert result["recv"]["cpu_seconds"] > 0
    assert result["time"]["prealloc_ms"] > 0


def test_zero_copy_says_what_the_kernel_copied_all_the_same() -> None:
    """Over loopback that is all of it."""
    result = migrate("--transport", "tcp", *GUEST, "--method", "none", "--zero-copy", "--prealloc")
    counted = result["transport"]["zero_copy"]
    assert counted["sent_bytes"] == result["traffic"]["guest_bytes"]
    assert counted["copied_bytes"] == counted["sent_bytes"]
    assert counted["unknown_bytes"] == 0


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("--transport tcp --method zstd", "--method none"),
        ("--method none", "--transport tcp"),
        ("--transport tcp", "--method none"),
        ("--transport tcp --method none,zstd", "--method none"),
    ],
)
def test_zero_copy_is_refused_where_it_cannot_be(arguments: str, why: str) -> None:
    with pytest.raises(UsageError, match=f"--zero-copy: .*{why}"):
        read(run_command, "--zero-copy", *arguments.split())


def test_zero_copy_needs_plain_tcp(tls_dir: Path) -> None:
    for rest in (("--to", "127.0.0.1:1", "--tls-dir", str(tls_dir)), ("--to", "unix:socket")):
        with pytest.raises(UsageError, match="--zero-copy"):
            read(send_command, "--zero-copy", "--method", "none", *rest)


def test_the_self_check_guest_is_judged_by_the_receiver() -> None:
    migrate("--transport", "tcp", "--size", "32M", "--verify", "both")


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0", "localhost:0"])
@pytest.mark.parametrize("secure", [True, False])
def test_an_image_arrives_in_a_file(listen: str, secure: bool, tls_dir: Path, tmp_path: Path) -> None:
    image, output = tmp_path / "image", tmp_path / "copy"
    image.write_bytes(os.urandom(3 << 20) + bytes(5 << 20) + b"x" * (1 << 20))
    tls = ("--tls-dir", str(tls_dir)) if secure else ()
    with receiver("--output", str(output), *tls, listen=listen) as here:
        ended = sent(here.address, "--image", str(image), "--dirty-rate", "0", *tls, "--json", "-")
        assert ended.code == 0, ended.err
        assert here.end().code == 0
    assert output.read_bytes() == image.read_bytes()
    assert ended.result["transport"]["tls"] == ("1.3" if secure else None)
    assert ended.result["transport"]["output"] == f"file {output}"
    assert {path.name for path in tmp_path.iterdir()} == {"image", "copy"}


def test_unix_socket_and_named_shared_memory(tmp_path: Path) -> None:
    name = f"ramferry-test-{os.getpid()}"
    kept = SHM / name
    try:
        with receiver("--output-shm", name, listen=f"unix:{tmp_path}/socket") as here:
            ended = sent(here.address, *GUEST, "--method", "none")
            assert ended.code == 0, ended.err
            assert here.end().code == 0
            assert kept.stat().st_size == 64 << 20
            assert kept.stat().st_mode & 0o777 == 0o600
            kept.unlink()
        assert not Path(f"{tmp_path}/socket").exists()
    finally:
        kept.unlink(missing_ok=True)


@pytest.mark.parametrize(("method", "secure"), [("none", True), ("zstd", False)])
def test_every_channel_cut_once(method: str, secure: bool, tls_dir: Path) -> None:
    tls = ("--tls-dir", str(tls_dir)) if secure else ()
    with receiver(*tls) as here, proxy(here.port) as network:
        size = ("--size", "32M") if method == "none" else ()
        running = send(network.address, *PACED, "--method", method, *size, *tls)
        for number in (1, 2):
            network.wait_for(number + 1, 1 << 19)
            network.pipes[number].cut(reset=number == 2)
            network.wait_for(number + 3)
        ended = running.end()
        assert ended.code == 0, ended.err
        assert ended.result["verified"] is True
        assert ended.result["transport"]["reconnections"] == 2
        assert here.end().code == 0


def test_control_is_lost_and_comes_back() -> None:
    with receiver() as here, proxy(here.port) as network:
        running = send(network.address, *PACED)
        network.wait_for(3, 1 << 20)
        network.pipes[0].cut()
        ended = running.end()
        assert ended.code == 0, ended.err
        assert ended.result["verified"] is True
        assert len(ended.result["transport"]["control"]["broken"]) == 1


def test_nothing_that_was_applied_is_sent_again() -> None:
    """All connections reset at once, in the middle of a round of an idle guest."""
    with receiver() as here, proxy(here.port) as network:
        running = send(network.address, *PACED, "--dirty-rate", "0")
        network.wait_for(3, 2 << 20)
        network.refusing.set()
        network.cut_all()
        time.sleep(1)
        network.refusing.clear()
        ended = running.end()
        assert ended.code == 0, ended.err
        result = ended.result
    pages = (64 << 20) // 4096
    again = sum(figures["pages"] for figures in result["rounds"]) - pages
    assert 0 <= again < pages / 4
    assert result["transport"]["reconnections"] >= 2


@pytest.mark.long
def test_a_channel_that_stalls_is_opened_again() -> None:
    with receiver() as here, proxy(here.port) as network:
        running = send(network.address, *PACED, "--dirty-rate", "0")
        network.wait_for(3, 1 << 20)
        network.pipes[1].stalled.set()
        ended = running.end()
        network.pipes[1].stalled.clear()
        assert ended.code == 0, ended.err
        assert ended.result["transport"]["reconnections"] >= 1
        assert ended.result["verified"] is True


@pytest.mark.long
def test_control_that_stays_away_ends_both_and_the_next_run_works(tmp_path: Path) -> None:
    output = tmp_path / "copy"
    with receiver("--reconnect", "1", "--output", str(output)) as here:
        with proxy(here.port) as network:
            running = send(network.address, *PACED, "--reconnect", "1")
            network.wait_for(3, 1 << 20)
            network.refusing.set()
            network.cut_all()
            ended = running.end(20)
        assert ended.code == 1
        assert len(ended.errors) == 1 and "no connection within 1 s" in ended.errors[0]
        assert "the sender is gone" in here.run.wait_for("error:")
        assert not output.exists()
        assert sent(here.address, *GUEST).code == 0
        assert here.end().code == 0
    assert output.stat().st_size == 64 << 20


def test_a_second_sender_is_refused_while_the_first_goes_on() -> None:
    with receiver() as here:
        first = send(here.address, *SLOW)
        here.run.wait_for("run of")
        second = sent(here.address, *GUEST, "--reconnect", "0.5")
        assert second.code == 1
        assert "busy with a run of" in second.errors[0]
        ended = first.end()
        assert ended.code == 0, ended.err


def test_a_sender_that_is_killed_frees_the_receiver() -> None:
    with receiver("--reconnect", "1") as here:
        running = send(here.address, *PACED)
        here.run.wait_for("run of")
        time.sleep(0.5)
        os.killpg(running.session, 9)
        running.end()
        ended = sent(here.address, *GUEST)
        assert ended.code == 0, ended.err


def test_a_cancelled_sender_says_so_to_the_receiver() -> None:
    with receiver() as here:
        running = send(here.address, *PACED)
        here.run.wait_for("run of")
        time.sleep(0.5)
        os.kill(running.process.pid, 2)
        assert running.end(10).code == 130
        assert "cancelled by SIGINT" in here.run.wait_for("error:")


def test_a_cancelled_receiver_says_so_to_the_sender() -> None:
    with receiver() as here:
        running = send(here.address, *PACED)
        here.run.wait_for("run of")
        time.sleep(0.5)
        assert here.stop().code == 130
        ended = running.end(10)
        assert ended.code == 1
        assert "recv side: cancelled by SIGINT" in ended.errors[0]


def test_what_does_not_fit_is_said_before_anything_is_sent() -> None:
    with receiver("--max-size", "32M", "--max-channels", "2") as here:
        ended = sent(here.address, *GUEST)
        assert (ended.code, len(ended.errors)) == (4, 1)
        assert "RAM of 64M is more than the 32M that the receiver has" in ended.errors[0]
        ended = sent(here.address, "--size", "16M", "--channels", "3")
        assert "3 channels are more than the 2" in ended.errors[0]
        assert sent(here.address, "--size", "16M").code == 0


class TestWhoMayCome:
    """TLS: who is not known is refused on both sides, and there is no way around."""

    def refused(self, here: Receiver, *arguments: str) -> str:
        ended = sent(here.address, "--size", "16M", "--reconnect", "1", *arguments)
        assert ended.code in (1, 4), ended.err
        assert len(ended.errors) == 1
        assert "Traceback" not in ended.err
        return ended.errors[0]

    def test_names_and_authorities(self, tls_dir: Path, tmp_path: Path) -> None:
        mine = ("--tls-dir", str(tls_dir))
        others = ("--tls-dir", str(certificates(tmp_path / "others", "127.0.0.1")))
        with receiver(*mine) as here:
            assert "does not speak TLS" not in self.refused(here, *others)
            assert "wants TLS" in self.refused(here)
            assert "not for elsewhere" in self.refused(here, *mine, "--tls-peer", "elsewhere")
            assert sent(here.address, "--size", "16M", *mine, "--tls-peer", "LAB").code == 0

    def test_a_sender_of_another_name(self, tls_dir: Path) -> None:
        mine = ("--tls-dir", str(tls_dir))
        with receiver(*mine, "--tls-peer", "somebody") as here:
            assert "not for somebody" in self.refused(here, *mine)

    def test_a_receiver_without_tls(self, tls_dir: Path) -> None:
        with receiver() as here:
            assert "does not speak TLS" in self.refused(here, "--tls-dir", str(tls_dir))

    @pytest.mark.parametrize("module", ["send", "recv"])
    def test_plain_tcp_needs_a_word(self, module: str) -> None:
        command, option = (send_command, "--to") if module == "send" else (recv_command, "--listen")
        with pytest.raises(UsageError, match="the network is untrusted"):
            read(command, option, "192.0.2.1:7000")
        read(command, option, "192.0.2.1:7000", "--insecure")

    def test_an_open_key_is_refused(self, tls_dir: Path, tmp_path: Path) -> None:
        folder = certificates(tmp_path / "open", "127.0.0.1")
        (folder / "client-key.pem").chmod(0o644)
        with pytest.raises(UsageError, match="chmod 600"):
            read(send_command, "--to", "192.0.2.1:7000", "--tls-dir", str(folder))


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("rf channel 1", "zstd"),
        ("rf control", "zstd"),
        ("rf guest", "zstd"),
        ("rf channel 1", "auto"),
        ("rf sender 1", "auto"),
    ],
)
def test_a_killed_worker_of_the_sender_ends_both(kind: str, method: str) -> None:
    with receiver() as here:
        running = send(here.address, *(method if word == "zstd" else word for word in PACED))
        here.run.wait_for("run of")
        time.sleep(0.3)
        os.kill(running.one(kind), 9)
        ended = running.end(10)
        assert ended.code == 1
        assert len(ended.errors) == 1 and "SIGKILL" in ended.errors[0]
        if kind != "rf control":
            assert "SIGKILL" in here.run.wait_for("error: send side")
            assert sent(here.address, *GUEST).code == 0


@pytest.mark.long
def test_a_killed_worker_of_the_receiver_costs_a_connection() -> None:
    with receiver() as here:
        running = send(here.address, *PACED)
        here.run.wait_for("run of")
        time.sleep(0.5)
        os.kill(here.run.one("rf receiver 0"), 9)
        assert "connection 0 broken: its process was killed" in here.run.wait_for("broken")
        os.kill(here.run.one("rf control"), 9)
        ended = running.end()
        assert ended.code == 0, ended.err
        assert ended.result["transport"]["reconnections"] == 1
        assert len(ended.result["transport"]["control"]["broken"]) == 1


@pytest.mark.long
def test_a_killed_session_is_followed_by_another() -> None:
    with receiver() as here:
        running = send(here.address, *PACED, "--reconnect", "1")
        here.run.wait_for("run of")
        os.kill(here.run.one("rf session"), 9)
        assert "the session was killed" in here.run.wait_for("error:")
        assert running.end(20).code in (1, 2)
        assert sent(here.address, *GUEST).code == 0


@pytest.mark.long
def test_a_stopped_receiving_worker_ends_both_by_name() -> None:
    """It reads nothing and says nothing."""
    with receiver() as here:
        running = send(here.address, *PACED, "--method", "none", "--dirty-rate", "0")
        here.run.wait_for("run of")
        time.sleep(0.7)
        os.kill(here.run.one("rf receiver 1"), 19)
        ended = running.end()
        assert ended.code == 1
        assert "receiver 1" in ended.errors[0] and "SIGSTOP" in ended.errors[0]
        here.run.wait_for("error:")


@pytest.mark.long
def test_a_visited_guest_runs_on_when_the_network_is_gone() -> None:
    name = f"net-{os.getpid()}"
    owner = Run(
        *("--create", name, "--size", "64M", "--dirty-rate", "2M"),
        module="tools.dirtyrate",
    )
    try:
        owner.wait_for(name)
        with receiver("--reconnect", "1", "--once") as here, proxy(here.port) as network:
            paced = ("--method", "zstd", "--max-bandwidth", "4M", "--reconnect", "1")
            running = send(network.address, "--attach", name, *paced)
            network.wait_for(3, 1 << 20)
            network.refusing.set()
            network.cut_all()
            assert running.end(20).code == 1
            assert here.end(10).code == 1
        with receiver() as here:
            ended = sent(here.address, "--attach", name, "--json", "-", "--downtime-limit", "1000")
            assert ended.code == 0, ended.err
            assert ended.result["guest"]["state"] == "running"
    finally:
        os.kill(owner.process.pid, 2)
        owner.end(10)


@pytest.mark.long
def test_a_break_while_the_guest_stands_still() -> None:
    """What is lost then goes again in a round more, of which the result tells."""
    slow = ("--method", "none", "--max-bandwidth", "8M", "--size", "32M", "--dirty-rate", "16M")
    switchover = ("--downtime-limit", "100000", "--json", "-")
    with receiver() as here, proxy(here.port) as network:
        running = send(network.address, *slow, *switchover, "--dirty-pattern", "hotspot:0.999,0.5")
        running.wait_for("switchover")
        network.pipes[1].stalled.set()
        time.sleep(0.5)
        network.pipes[1].cut(reset=True)  # what waits in it is lost
        ended = running.end()
        assert ended.code == 0, ended.err
        assert ended.result["verified"] is True
        rounds = ended.result["rounds"]
        assert "stands still" in rounds[-1]["reason"]
        assert rounds[-1]["decision"] is None
        assert rounds[-2]["decision"] == "switch over"


def test_members_are_cut_for_a_receiver_that_decodes_on_a_device() -> None:
    """In software too, at the size that the sender says in OPEN: there are 900 of 32 KiB at least."""
    requests = []
    for decode in ("cpu", "hardware"):
        with receiver("--qat-decode", decode) as here:
            qat = ("--method", "qatzip", "--qat-buffer", "32K", "--json", "-")
            ended = sent(here.address, "--size", "32M", "--dirty-rate", "0", *qat)
            assert ended.code == 0, ended.err
            requests.append(
                ended.result["qat"]["hardware_requests"] + ended.result["qat"]["software_requests"]
            )
    assert requests[1] >= 1800 > requests[0]


def test_the_largest_packets_of_the_smallest_members_are_taken() -> None:
    with receiver() as here:
        qat = ("--method", "qatzip", "--qat-buffer", "4K", "--packet-size", "4M")
        ended = sent(here.address, "--size", "32M", "--dirty-rate", "0", *qat)
        assert ended.code == 0, ended.err
