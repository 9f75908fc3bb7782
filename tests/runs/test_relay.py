"""A real VM's migration through two relays: it arrives, it survives breaks, and one guest runs in the end."""

from __future__ import annotations

import contextlib
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import ROOT
from tests.support.live_vm import GUEST, OutOfBand, Rig, goes_on, rig
from tests.support.two_hosts import Proxy, proxy

pytestmark = pytest.mark.usefixtures("live_guest_here")
SLOW = "12M"
"""With 48 MiB of files, rounds of a second and more."""


@pytest.fixture
def vms(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


@pytest.fixture
def quiet_vms(tmp_path: Path) -> Iterator[Rig]:
    """The guest counts and checks, and hardly writes: what is left at the end fits into any window."""
    with rig(tmp_path, replace(GUEST, rate_mib=0)) as made:
        yield made


@pytest.fixture
def waiting_vms(tmp_path: Path) -> Iterator[Rig]:
    """The same with QEMU's -S at the destination."""
    with rig(tmp_path, replace(GUEST, rate_mib=0), paused=True) as made:
        yield made


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def through_proxy(made: Rig, *options: str, source: tuple[str, ...] = ()) -> Iterator[Proxy]:
    """The relays, with a network between them that can be cut."""
    port = free_port()
    with proxy(port) as between:
        accept = ("--accept", f"127.0.0.1:{port}", "--insecure")
        made.start_relays(
            *options, source=("--to", between.address, "--insecure", *source), destination=accept
        )
        yield between


def under_way(made: Rig, *options: str, seconds: float = 1.0, **settings: Any) -> None:
    """A migration over a slow link, so many seconds after its start; `settings` are the QEMUs'."""
    made.start_relays(*options, source=("--max-bandwidth", SLOW))
    made.set(**settings)
    made.migrate()
    time.sleep(seconds)


def hold_the_last_word_back(made: Rig, between: Proxy) -> None:
    """The destination has all of it, and the source was not told. So little is left for the end that it needs
    no acknowledgement."""
    made.set(pause_before_switchover=True, downtime_limit=1)
    made.migrate()
    made.await_status("source", "pre-switchover")
    for pipe in between.pipes:
        pipe.stalled_back.set()
    made.source.qmp.run("migrate-continue", state="pre-switchover")
    made.await_status("destination", "completed")


def ends_well(made: Rig) -> None:
    """Both relays end with 0, the guest goes on at the destination, and only there."""
    assert made.await_status("source", "completed", "failed") == "completed"
    goes_on(made)
    assert made.running() == {"destination"}
    for side, relay in made.relays.items():
        assert relay.end() == 0, (side, relay.said)
        assert relay.result()["status"] == "completed"


@pytest.mark.parametrize(
    ("multifd", "method"),
    [
        (2, "auto"),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in ((0, "zstd"), (1, "none"), (8, "auto"), (0, "auto"), (2, "qatzip"))
        ),
    ],
)
def test_a_live_guest_arrives(vms: Rig, multifd: int, method: str) -> None:
    vms.start_relays(source=("--method", method))
    vms.set(multifd=multifd)
    vms.migrate()
    ends_well(vms)
    result = vms.relays["source"].result()
    assert [one["kind"] for one in result["streams"]] == ["main"] + ["multifd"] * multifd
    assert result["other_relay"]["cpu"]["seconds"] > 0
    assert result["streams"][0]["returned_bytes"] == 16


@pytest.mark.long
@pytest.mark.parametrize("method", ["zlib", "zstd"])
def test_auto_notices_what_qemu_has_compressed(vms: Rig, method: str) -> None:
    vms.start_relays()
    vms.set(multifd_compression=method)
    vms.migrate()
    ends_well(vms)
    assert vms.relays["source"].result()["methods"]["none"]["share"] > 0.8


@pytest.mark.long
def test_without_a_return_path_it_is_refused(vms: Rig) -> None:
    vms.start_relays()
    vms.set(return_path=False)
    vms.migrate()
    assert vms.await_status("source", "failed", "completed") == "failed"
    assert vms.relays["source"].end() == 1
    assert "no return path" in vms.relays["source"].said
    goes_on(vms, "source")


@pytest.mark.long
def test_without_a_return_path_it_goes_where_that_is_known(vms: Rig) -> None:
    vms.start_relays(source=("--without-return-path",))
    vms.set(return_path=False)
    vms.migrate()
    ends_well(vms)


@pytest.mark.long
@pytest.mark.parametrize("multifd", [0, 2])
def test_twenty_resets_in_one_migration(vms: Rig, multifd: int) -> None:
    chance = random.Random(multifd)
    with through_proxy(vms, source=("--max-bandwidth", SLOW)) as between:
        vms.set(multifd=multifd)
        vms.migrate()
        for _ in range(20):
            time.sleep(chance.uniform(0.05, 0.4))
            between.cut_all()
        ends_well(vms)
        assert vms.relays["source"].result()["reconnections"] >= 20


@pytest.mark.long
@pytest.mark.parametrize("multifd", [0, 2])
def test_a_link_that_is_down_for_five_seconds_is_a_stall(vms: Rig, multifd: int) -> None:
    with through_proxy(vms, source=("--max-bandwidth", SLOW)) as between:
        vms.set(multifd=multifd)
        vms.migrate()
        time.sleep(1)
        between.refusing.set()
        between.cut_all()
        until, worst = time.monotonic() + 5, 0.0
        while time.monotonic() < until:
            for machine in (vms.source, vms.destination):
                began = time.monotonic()
                machine.qmp.run("query-migrate")
                worst = max(worst, time.monotonic() - began)
            time.sleep(0.05)
        assert worst < 4.0, "a monitor was dead while the link was down"
        between.refusing.clear()
        ends_well(vms)
        assert vms.relays["source"].result()["stalls"] >= 1


@pytest.mark.long
def test_a_link_that_is_gone_for_good_leaves_the_sources_guest(vms: Rig) -> None:
    with through_proxy(vms, "--reconnect", "2", source=("--max-bandwidth", SLOW)) as between:
        vms.set()
        vms.migrate()
        time.sleep(1)
        between.refusing.set()
        between.cut_all()
        assert vms.await_status("source", "failed") == "failed"
        assert vms.running() == {"source"}
        goes_on(vms, "source")
        for side in ("source", "destination"):
            assert vms.relays[side].end() == 1
            assert "gone for 2 s" in vms.relays[side].said
        assert vms.status("destination")[0] == "gone"


@pytest.mark.long
@pytest.mark.parametrize("multifd", [0, 2])
def test_a_cancelled_migration_leaves_the_sources_guest(vms: Rig, multifd: int) -> None:
    under_way(vms, multifd=multifd)
    vms.source.qmp.run("migrate_cancel")
    # QEMU shuts its socket down before it says "cancelling", and its thread may call that a failure.
    assert vms.await_status("source", "cancelled", "failed")
    for relay in vms.relays.values():
        assert relay.end() == 1
        assert "ended the migration" in relay.said
    goes_on(vms, "source")
    assert vms.status("destination")[0] == "gone"


@pytest.mark.long
@pytest.mark.parametrize("who", ["source relay", "destination relay", "destination QEMU"])
def test_a_death_in_a_round_leaves_the_sources_guest(vms: Rig, who: str) -> None:
    under_way(vms, "--reconnect", "2")
    side, _, what = who.partition(" ")
    if what == "relay":
        vms.relays.pop(side).kill()
    else:
        vms.destination.process.kill()
    assert vms.await_status("source", "failed") == "failed"
    goes_on(vms, "source")
    for relay in vms.relays.values():
        assert relay.end() == 1
    if what == "relay":
        assert vms.status("destination")[0] == "gone"


@pytest.mark.long
def test_the_sources_qemu_dies_in_a_round(vms: Rig) -> None:
    under_way(vms)
    vms.source.process.kill()
    for relay in vms.relays.values():
        assert relay.end() == 1
    assert vms.status("destination")[0] == "gone"


@pytest.mark.long
@pytest.mark.parametrize("preempt", [False, True])
def test_postcopy(vms: Rig, preempt: bool) -> None:
    under_way(vms, seconds=1.5, multifd=0, postcopy_ram=True, postcopy_preempt=preempt)
    vms.source.qmp.run("migrate-start-postcopy")
    ends_well(vms)
    kinds = [one["kind"] for one in vms.relays["source"].result()["streams"]]
    assert kinds == ["main", "late"] if preempt else ["main"]


@pytest.mark.long
@pytest.mark.parametrize("preempt", [False, True])
def test_postcopy_survives_resets(vms: Rig, preempt: bool) -> None:
    with through_proxy(vms, source=("--max-bandwidth", SLOW)) as between:
        vms.set(multifd=0, postcopy_ram=True, postcopy_preempt=preempt)
        vms.migrate()
        time.sleep(1.5)
        vms.source.qmp.run("migrate-start-postcopy")
        for _ in range(4):
            time.sleep(0.4)
            between.cut_all()
        ends_well(vms)


@pytest.mark.long
@pytest.mark.parametrize("preempt", [False, True])
def test_a_postcopy_that_was_cut_for_too_long_is_recovered(vms: Rig, preempt: bool) -> None:
    monitor = OutOfBand(vms.monitor("destination"))
    with through_proxy(vms, "--reconnect", "1", source=("--max-bandwidth", SLOW)) as between:
        vms.set(multifd=0, postcopy_ram=True, postcopy_preempt=preempt)
        vms.migrate()
        time.sleep(1.0)
        vms.source.qmp.run("migrate-start-postcopy")
        vms.await_status("source", "postcopy-active")
        time.sleep(0.5)
        between.refusing.set()
        between.cut_all()
        for relay in vms.relays.values():
            assert relay.end() == 1
            assert "migrate-recover" in relay.said
        vms.await_status("source", "postcopy-paused")
    recover = vms.folder / "recover"
    recover.mkdir()
    vms.folder = recover
    vms.start_relays()
    # Without preempt its main thread may wait for a page, so another monitor would not answer.
    monitor.run("migrate-recover", uri=f"unix:{vms.in_path}")
    monitor.close()
    vms.source.qmp.run("migrate", uri=f"unix:{vms.out_path}", resume=True)
    ends_well(vms)


@pytest.mark.long
def test_the_end_of_a_migration_comes_after_the_last_word_was_cut(quiet_vms: Rig) -> None:
    """SHUT is on its way when the link breaks: the source stands, and neither side gives up."""
    vms = quiet_vms
    with through_proxy(vms, "--reconnect", "1") as between:
        hold_the_last_word_back(vms, between)
        between.refusing.set()
        assert vms.running() == {"destination"}
        between.cut_all()
        time.sleep(4)
        # Longer than --reconnect: undecided, and the source's guest is not let go.
        assert vms.running() == {"destination"}
        assert vms.relays["source"].process.poll() is None, vms.relays["source"].process.communicate()[1]
        between.refusing.clear()
        ends_well(vms)
        for relay in vms.relays.values():
            assert "undecided" in relay.said


@pytest.mark.long
@pytest.mark.parametrize(
    ("who", "runs"),
    [("source relay", {"source"}), ("destination relay", set()), ("destination QEMU", set())],
)
def test_with_s_a_death_after_the_last_byte_never_leaves_two(
    waiting_vms: Rig, who: str, runs: set[str]
) -> None:
    vms = waiting_vms
    with through_proxy(vms, "--reconnect", "1") as between:
        hold_the_last_word_back(vms, between)
        assert vms.running() == set()
        side, _, what = who.partition(" ")
        if what == "relay":
            vms.relays[side].kill()
        else:
            vms.destination.process.kill()
            for pipe in between.pipes:
                pipe.stalled_back.clear()
        until = time.monotonic() + 20
        while vms.running() != runs:
            assert time.monotonic() < until, vms.running()
            time.sleep(0.1)
        time.sleep(2)
        assert vms.running() == runs
        if who == "destination relay":
            assert vms.relays["source"].process.poll() is None, "it must not give up"
        elif who == "destination QEMU":
            # It had said that it is done: the guest was its own.
            assert vms.status("source")[1] == "completed"


@pytest.mark.long
@pytest.mark.parametrize("multifd", [0, 2])
def test_both_monitors_answer_while_the_link_is_down(vms: Rig, multifd: int) -> None:
    with through_proxy(vms, source=("--max-bandwidth", SLOW)) as between:
        vms.set(multifd=multifd)
        vms.migrate()
        time.sleep(1)
        between.refusing.set()
        between.cut_all()
        slowest = 0.0
        for _ in range(15):
            for side in ("source", "destination"):
                began = time.monotonic()
                assert vms.status(side)[1] == "active"
                slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.1)
        assert slowest < 5, "a monitor that hangs says nothing for as long as the stall"
        between.refusing.clear()
        ends_well(vms)


@pytest.mark.long
def test_whoever_answers_in_the_other_relays_place_decides_nothing(quiet_vms: Rig) -> None:
    """The destination runs, the source was not told, and at its relay's port there is now something else."""
    vms = quiet_vms
    with through_proxy(vms, "--reconnect", "1") as between:
        hold_the_last_word_back(vms, between)
        vms.relays.pop("destination").kill()
        port = str(between.port)
        receiver = subprocess.Popen(
            [sys.executable, "-m", "pipeline.recv", "--listen", f"127.0.0.1:{port}", "--insecure"],
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
        )
        try:
            time.sleep(5)
            assert vms.running() == {"destination"}
            assert vms.relays["source"].process.poll() is None
        finally:
            receiver.kill()
            receiver.wait()
        vms.source.process.kill()
        assert vms.relays["source"].end() == 1
        assert "undecided" in vms.relays["source"].said


@pytest.mark.long
def test_a_connection_that_is_closed_in_the_tls_handshake_is_a_stall(vms: Rig, tmp_path: Path) -> None:
    certificates = tmp_path / "certs"
    subprocess.run([ROOT / "tools/make_certs.sh", certificates, "127.0.0.1"], check=True, capture_output=True)
    port = free_port()
    tls = "--tls-dir", str(certificates)
    with proxy(port) as between:
        vms.start_relays(
            source=("--to", between.address, *tls, "--max-bandwidth", SLOW),
            destination=("--accept", f"127.0.0.1:{port}", *tls),
        )
        vms.set()
        vms.migrate()
        time.sleep(1)
        between.refusing.set()
        between.cut_all()
        time.sleep(1)
        between.refusing.clear()
        ends_well(vms)
    assert vms.relays["source"].result()["reconnections"] >= 1


@pytest.mark.long
def test_the_destinations_qemu_dies_after_the_last_byte(vms: Rig) -> None:
    """Its guest is gone with it, so the source's may go on."""
    with through_proxy(vms, "--reconnect", "1") as between:
        vms.set(pause_before_switchover=True)
        vms.migrate()
        vms.await_status("source", "pre-switchover")
        vms.destination.process.kill()
        vms.await_status("source", "failed", "pre-switchover")
        assert vms.relays["source"].end() == 1
        del between
    vms.source.qmp.run("migrate-continue", state="pre-switchover")
    assert vms.await_status("source", "failed") == "failed"
    goes_on(vms, "source")


@pytest.mark.long
def test_a_second_migration_on_a_socket_is_refused_and_the_first_goes_on(vms: Rig) -> None:
    under_way(vms, seconds=0.5)
    with socket.socket(socket.AF_UNIX) as another:
        another.connect(str(vms.out_path))
        another.sendall(b"QEVM\0\0\0\3")
        another.settimeout(10)
        assert another.recv(1) == b""
    ends_well(vms)
    assert "refused a connection" in vms.relays["source"].said


@pytest.mark.long
@pytest.mark.parametrize("multifd", [0, 2])
def test_a_stray_connection_harms_nothing(vms: Rig, multifd: int) -> None:
    vms.start_relays(source=("--max-bandwidth", SLOW))
    with socket.socket(socket.AF_UNIX) as stray:
        stray.connect(str(vms.out_path))
    vms.set(multifd=multifd)
    vms.migrate()
    time.sleep(1)
    with socket.socket(socket.AF_UNIX) as stray:
        stray.connect(str(vms.out_path))
    ends_well(vms)


@pytest.mark.long
@pytest.mark.parametrize("side", ["source", "destination"])
def test_an_end_by_hand_after_the_source_is_done_harms_no_guest(vms: Rig, side: str) -> None:
    with_qmp(vms, source=("--max-bandwidth", SLOW))
    vms.await_status("source", "completed")
    if vms.relays[side].process.poll() is None:
        vms.relays[side].process.send_signal(signal.SIGINT)
    for relay in vms.relays.values():
        relay.end()
    status, _ = vms.status("destination")
    if status != "running":
        assert status == "paused", "the guest was thrown away"
        assert any('"cont"' in relay.said for relay in vms.relays.values())
        vms.destination.qmp.run("cont")
    goes_on(vms)


@pytest.mark.long
def test_a_reset_when_the_source_is_done_is_a_stall(vms: Rig) -> None:
    port = free_port()
    with proxy(port) as between:
        qmp = {side: ("--qmp", str(vms.monitor(side))) for side in ("source", "destination")}
        accept = ("--accept", f"127.0.0.1:{port}", "--insecure", *qmp["destination"])
        to = ("--to", between.address, "--insecure", *qmp["source"], "--migrate")
        vms.start_relays(source=(*to, "--max-bandwidth", SLOW), destination=accept)
        vms.await_status("source", "device", "completed")
        between.cut_all()
        ends_well(vms)


@pytest.mark.long
def test_sigterm_lets_a_migration_end(vms: Rig) -> None:
    under_way(vms, seconds=0.5)
    for relay in vms.relays.values():
        relay.process.send_signal(signal.SIGTERM)
    ends_well(vms)


@pytest.mark.long
def test_ctrl_c_leaves_the_sources_guest(vms: Rig) -> None:
    under_way(vms, seconds=0.5)
    vms.relays["source"].process.send_signal(signal.SIGINT)
    assert vms.relays["source"].end() == 130
    assert vms.relays["destination"].end() == 1
    assert vms.await_status("source", "failed") == "failed"
    goes_on(vms, "source")


def with_qmp(made: Rig, *options: str, multifd: int = 2, source: tuple[str, ...] = ()) -> None:
    """The relays as the controller: the source's starts the migration."""
    made.start_relays(
        *options,
        source=("--qmp", str(made.monitor("source")), "--migrate", "--multifd", str(multifd), *source),
        destination=("--qmp", str(made.monitor("destination"))),
    )


@pytest.mark.parametrize("multifd", [2, pytest.param(0, marks=pytest.mark.long)])
def test_one_command_a_side(vms: Rig, multifd: int) -> None:
    with_qmp(vms, multifd=multifd)
    ends_well(vms)
    result = vms.relays["source"].result()
    assert result["qemu"]["status"] == "completed"
    assert result["qemu"]["rounds"] >= 1
    assert 0 < result["blackout_ms"] < 5000
    assert "the source's guest: has left" in vms.relays["source"].said
    assert "the destination's guest: runs" in vms.relays["destination"].said


@pytest.mark.long
@pytest.mark.parametrize("who", ["source relay", "destination relay"])
def test_a_relay_that_dies_leaves_one_guest(vms: Rig, who: str) -> None:
    with_qmp(vms, "--reconnect", "2", source=("--max-bandwidth", SLOW))
    vms.await_status("source", "active")
    time.sleep(1)
    side = who.split()[0]
    vms.relays.pop(side).kill()
    assert vms.await_status("source", "failed", "cancelled")
    for relay in vms.relays.values():
        assert relay.end() == 1
    assert vms.running() == {"source"}
    goes_on(vms, "source")


@pytest.mark.long
def test_ctrl_c_of_the_controller_leaves_the_sources_guest_and_says_so(vms: Rig) -> None:
    with_qmp(vms, source=("--max-bandwidth", SLOW))
    vms.await_status("source", "active")
    time.sleep(1)
    vms.relays["source"].process.send_signal(signal.SIGINT)
    assert vms.relays["source"].end() == 130
    assert "the source's guest: runs" in vms.relays["source"].said
    assert vms.relays["destination"].end() == 1
    assert vms.running() == {"source"}
    goes_on(vms, "source")


@pytest.mark.long
def test_the_last_word_lost_for_good_leaves_one_guest_with_qmp(vms: Rig) -> None:
    """SHUT never comes: the destination has the whole guest, paused, and the source's relay is killed."""
    port = free_port()
    with proxy(port) as between:
        accept = ("--accept", f"127.0.0.1:{port}", "--insecure", "--qmp", str(vms.monitor("destination")))
        to = ("--to", between.address, "--insecure", "--qmp", str(vms.monitor("source")), "--migrate")
        vms.start_relays("--reconnect", "1", source=(*to, "--max-bandwidth", SLOW), destination=accept)
        vms.await_status("source", "active")
        # From now on nothing comes back: acknowledgements neither, but the last bytes fit into the window.
        vms.await_status("source", "device", "pre-switchover", "completed")
        for pipe in between.pipes:
            pipe.stalled_back.set()
        time.sleep(2)
        if vms.status("source")[1] == "completed":
            pytest.skip("the last word was quicker than this test")
        vms.relays.pop("source").kill()
        vms.await_status("source", "failed")
        assert vms.running() == {"source"}
        goes_on(vms, "source")


@pytest.mark.long
def test_metrics_and_the_service_manager(vms: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(vms.folder / "notify"))
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(vms.folder / "notify"))
        vms.start_relays(source=("--max-bandwidth", SLOW, "--metrics", f"127.0.0.1:{port}"))
        for _ in vms.relays:
            assert manager.recv(100) == b"READY=1"
        vms.set()
        vms.migrate()
        until, sent, text = time.monotonic() + 30, 0.0, ""
        while sent < 1 << 20:
            assert time.monotonic() < until, text
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                text = answer.read().decode()
            found = re.search(r'ramferry_relay_guest_bytes_total\{side="source"\} (\S+)', text)
            assert found is not None, text
            sent = float(found[1])
            time.sleep(0.1)
        ends_well(vms)
    assert 'ramferry_relay_migrations_active{side="source"} 1.0' in text
