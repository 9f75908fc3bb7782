"""A probe of the link: the one who waits goes on waiting, and no migration is disturbed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
from pathlib import Path
from statistics import median

import pytest

from pipeline.errors import HostError, PeerRefused
from pipeline.net.address import parse_address
from pipeline.transports.tcp.client.dial import Peer
from pipeline.transports.tcp.client.probe_client import probe_link, rate_of
from pipeline.transports.tcp.probe import Probed
from pipeline.transports.tcp.protocol import FrameType, Role, pack_frame, pack_json
from tests.support.harness import Run, tool
from tests.support.hostile import Conversation, Sender
from tests.support.two_hosts import Receiver, certificates

RESULT = {
    "status": "completed",
    "options": {"size_bytes": 64 << 20, "method": "none", "level": None},
    "host": {"cpus": 2, "cpu_quota": None},
    "transport": {"kind": "queue"},
    "downtime": None,
    "send": {"cpu_seconds": 0.1},
    "recv": {"cpu_seconds": 0.1},
    "rounds": [
        {
            "pages": 16384,
            "normal_pages": 16384,
            "zero_pages": 0,
            "wire_bytes": 64 << 20,
            "duration_ms": 100.0,
            "dirty_pages": 10,
            "paused": False,
            "throttle_percent": 0,
        }
    ],
}


def peer(address: str, secret: bytes | None = None) -> Peer:
    return Peer(parse_address(address), None, 0.0, 5.0, secret)


@pytest.fixture
def result(tmp_path: Path) -> str:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(RESULT))
    return str(path)


def send(address: str, *arguments: str) -> None:
    ended = tool(
        "pipeline.send", "--to", address, "--size", "16M", "--dirty-rate", "0", "--quiet", *arguments
    )
    assert ended.returncode == 0, ended.stderr


def test_a_receiver_is_probed_and_then_takes_its_one_run(result: str, tmp_path: Path) -> None:
    here = Receiver("--once")
    target = tmp_path / "json"
    arguments = ("--result", result, "--probe", here.address, "--insecure", "--channels", "1,3")
    ended = tool("tools.forecast", *arguments, "--json", str(target))
    assert ended.returncode == 0, ended.stderr
    assert "The link carried" in ended.stdout
    found = json.loads(target.read_text())
    assert found["probe"]["connections"] == 3
    assert len(found["probe"]["stretches"]) >= 4
    assert found["plan"]["link_bytes_per_second"] == median(found["probe"]["stretches"])
    assert found["plan"]["link_noise"] >= 0.01
    probe_link(peer(here.address), 1)
    send(here.address, "--insecure")
    assert here.end().code == 0


def test_with_certificates_and_with_a_secret(result: str, tmp_path: Path) -> None:
    folder = str(certificates(tmp_path / "certs", "127.0.0.1"))
    here = Receiver("--once", "--tls-dir", folder)
    ended = tool("tools.forecast", "--result", result, "--probe", here.address, "--tls-dir", folder)
    assert ended.returncode == 0, ended.stderr
    ended = tool("tools.forecast", "--result", result, "--probe", here.address, "--insecure")
    assert ended.returncode in (2, 4)
    here.stop()
    secret = tmp_path / "secret"
    secret.write_text("s3cret of some length, which both know\n")
    secret.chmod(0o600)
    here = Receiver("--once", "--secret", str(secret))
    ended = tool("tools.forecast", "--result", result, "--probe", here.address, "--secret", str(secret))
    assert ended.returncode == 0, ended.stderr
    ended = tool("tools.forecast", "--result", result, "--probe", here.address, "--insecure")
    assert ended.returncode == 4
    assert "asks for its shared secret" in ended.stderr
    send(here.address, "--secret", str(secret))
    assert here.end().code == 0


def test_a_relay_is_probed_and_waits_on(tmp_path: Path) -> None:
    relay = Run(
        *("--accept", "127.0.0.1:0", "--insecure", "--deliver", f"unix:{tmp_path / 'in'}"),
        module="pipeline.relay",
    )
    address = relay.wait_for("waiting for the source's relay at").split()[-1]
    for _ in range(2):
        assert probe_link(peer(address), 2).bytes_per_second > 1 << 20
    assert relay.process.poll() is None
    os.kill(relay.process.pid, signal.SIGINT)
    assert relay.end(10).code == 130


def test_none_while_a_migration_goes_on_and_one_that_begins_ends_it() -> None:
    here = Receiver()
    probing = Conversation(here.address).hello(Role.PROBE, bytes(range(16)))
    assert probing.answer()[0] is FrameType.WELCOME
    probing.raw(b"x")
    sender = Sender(here.address)
    with pytest.raises(PeerRefused, match="a migration goes on here"):
        probe_link(peer(here.address), 2)
    assert probing.over_within(1)
    sender.close()
    here.stop()


def answering(reply: bytes) -> tuple[str, threading.Thread]:
    """Somebody who answers a HELLO with these bytes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as sock:
            sock.recv(4096)
            sock.sendall(reply)
            with contextlib.suppress(ConnectionError):
                sock.recv(1 << 20)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return f"127.0.0.1:{listener.getsockname()[1]}", thread


def test_what_cannot_be_probed_is_said_in_a_line(result: str) -> None:
    refusal = pack_frame(FrameType.REFUSED, 1, pack_json({"text": "hello role: 5", "busy": False}))
    address, _ = answering(refusal)
    with pytest.raises(PeerRefused, match="older ramferry, which answers no probe"):
        probe_link(peer(address), 1)
    address, _ = answering(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b" " * 64)
    with pytest.raises(PeerRefused, match="no receiver of ours"):
        probe_link(peer(address), 1)
    with pytest.raises(HostError, match="refused"):
        probe_link(peer("127.0.0.1:1"), 2)
    for arguments, said in (
        (("--probe", "127.0.0.1:1"), "--secret"),
        (("--probe", "127.0.0.1:1", "--insecure", "--bandwidth", "1G"), "either this or --probe"),
        (("--probe", "127.0.0.1:1", "--insecure", "--reconnect", "1"), "calls once"),
        (("--probe", "nowhere", "--insecure"), "--probe nowhere"),
        (("--insecure",), "is for --probe"),
        (("--tls-dir", "x"), "is for --probe"),
        (("--probe", "127.0.0.1:1", "--insecure"), "refused"),
    ):
        ended = tool("tools.forecast", "--result", result, *arguments)
        assert ended.returncode == 2, (arguments, ended.stderr)
        assert said in ended.stderr
        assert sum(line.startswith("error: ") for line in ended.stderr.splitlines()) == 1


def test_all_connections_count_from_when_the_last_has_begun() -> None:
    slice_ns = 50_000_000
    one = Probed(0, slice_ns, [100] * 40)
    other = Probed(100_000_000, slice_ns, [0] * 18 + [300] * 22)
    found = rate_of([one, other])
    assert found.stretches == pytest.approx([400 / 0.05] * 7)
    assert found.noise == pytest.approx(0, abs=1e-9)
    with pytest.raises(HostError, match="too little"):
        rate_of([Probed(0, slice_ns, [0] * 40)])
    with pytest.raises(HostError, match="too little"):
        rate_of([Probed(0, slice_ns, [5])])
