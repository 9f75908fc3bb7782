"""Connections that are made again: what they cost the receiver."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.two_hosts import Proxy, certificates, proxy, receiver, send

PACED = ("--size", "64M", "--method", "zstd", "--dirty-rate", "2M", "--max-bandwidth", "16M", "--json", "-")


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return ("--tls-dir", str(certificates(tmp_path_factory.mktemp("tls") / "certs", "127.0.0.1")))


def faults(pid: int) -> int:
    """Minor page faults of a process (proc(5))."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


def cut(network: Proxy, number: int, connections: int) -> None:
    """A connection that carries packets, and wait until it is carried on."""
    network.pipes[number].cut(reset=True)
    network.wait_for(connections, 1 << 18)


@pytest.mark.parametrize("secure", [False, True])
def test_a_worker_keeps_its_mapping_over_a_connection_made_again(secure: bool, tls: tuple[str, ...]) -> None:
    """With --prealloc its 16384 pages are populated once, whatever the link does."""
    more = tls if secure else ()
    with receiver("--prealloc", *more) as here, proxy(here.port) as network:
        running = send(network.address, *PACED, *more)
        network.wait_for(3, 1 << 18)
        workers = set(here.run.pids("rf receiver"))
        assert len(workers) == 2
        before = {pid: faults(pid) for pid in workers}
        cut(network, 1, 4)
        cut(network, 2, 5)
        cut(network, 3, 6)
        assert set(here.run.pids("rf receiver")) == workers
        assert len(here.run.pids("rf tls")) == (2 if secure else 0)
        assert all(faults(pid) - before[pid] < 4000 for pid in workers)
        ended = running.end()
        assert ended.code == 0, ended.err
        assert ended.result["verified"] is True
        assert ended.result["transport"]["reconnections"] == 3
        assert here.end().code == 0


def test_a_worker_that_was_killed_is_followed_by_one_that_leaves_prealloc_out() -> None:
    with receiver("--prealloc") as here, proxy(here.port) as network:
        running = send(network.address, *PACED)
        network.wait_for(3, 1 << 18)
        killed = here.run.one("rf receiver 0")
        os.kill(killed, signal.SIGKILL)
        network.wait_for(4, 1 << 18)
        assert faults(here.run.one("rf receiver 0")) < 16000
        ended = running.end()
        assert ended.code == 0, ended.err
        assert ended.result["transport"]["reconnections"] == 1
        assert "connection 0 broken: its process was killed" in here.end().err


def test_a_connection_that_breaks_during_prealloc_waits_for_its_worker() -> None:
    """The worker that gives RAM its pages is not begun anew."""
    with receiver("--prealloc") as here, proxy(here.port) as network:
        running = send(network.address, *PACED, "--size", "256M", "--max-bandwidth", "64M")
        worker = here.run.one("rf receiver 0")
        os.kill(worker, signal.SIGSTOP)
        network.wait_for(3)
        network.pipes[1].cut(reset=True)
        network.pipes[2].cut(reset=True)
        network.wait_for(5)
        os.kill(worker, signal.SIGCONT)
        network.wait_for(5, 1 << 18)
        assert here.run.pids("rf receiver 0") == [worker]
        ended = running.end()
        assert ended.code == 0, ended.err
