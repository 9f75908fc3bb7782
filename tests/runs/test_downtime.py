"""Downtime is the guest's: what is done while it stands still, and how it gets free."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.support.harness import Run, assert_clean, leftovers, migrate
from tests.support.two_hosts import Proxy, proxy, receiver, send

GUEST = ("--size", "64M", "--method", "zstd", "--dirty-rate", "8M", "--json", "-")


def order_of(text: str, *lines: str) -> list[int]:
    return [text.index(line) for line in lines]


def test_the_parts_add_up_and_there_is_one_figure() -> None:
    result = migrate("--size", "32M", "--dirty-rate", "8M")
    assert result["time"]["stood_still_ms"] == result["time"]["downtime_ms"]
    assert sum(result["downtime"].values()) == pytest.approx(result["time"]["downtime_ms"])
    assert result["time"]["switchovers"] == 1


class Keeper:
    """`tools.dirtyrate --create`, and what the guest says of itself."""

    def __init__(self, name: str, *more: str) -> None:
        self.name = name
        self.run = Run(
            "--create", name, "--size", "64M", "--dirty-rate", "30M", *more, module="tools.dirtyrate"
        )
        self.run.wait_for("runs")


@pytest.fixture
def keeper() -> Keeper:  # type: ignore[misc]
    before = leftovers()
    found = Keeper(f"downtime-{os.getpid()}")
    yield found
    os.kill(found.run.process.pid, signal.SIGINT)
    assert found.run.end(10).code == 130
    assert_clean(found.run.session, before)


def test_a_visited_guest_runs_before_anything_is_verified(keeper: Keeper) -> None:
    running = Run("--attach", keeper.name, "--debug", "--json", "-")
    ended = running.end()
    assert ended.code == 0, ended.err
    paused, runs, checks = order_of(
        ended.err, "switchover: the guest is paused", "the guest runs again", "checking the copy"
    )
    assert paused < runs < checks
    assert ended.result["verified"] is True


def test_a_visited_guest_runs_before_a_failure_is_told(keeper: Keeper) -> None:
    running = Run("--attach", keeper.name, "--debug", "--max-bandwidth", "4M", "--downtime-limit", "100000")
    running.wait_for("switchover: the guest is paused")
    os.kill(running.one("rf channel 0"), signal.SIGKILL)
    ended = running.end(10)
    assert ended.code == 1
    let_go, abandoned = order_of(ended.err, "the guest is let go", "abandoned: ")
    assert let_go < abandoned


def stalled_at_switchover(running: Run, network: Proxy, times: int, seconds: float) -> threading.Thread:
    """Stall every connection for a while at each of the first so many switchovers."""

    def stall() -> None:
        for _ in range(times):
            try:
                running.wait_for("switchover: the guest is paused")
            except AssertionError:
                return
            for pipe in network.pipes:
                pipe.stalled.set()
            time.sleep(seconds)
            for pipe in network.pipes:
                pipe.stalled.clear()

    thread = threading.Thread(target=stall)
    thread.start()
    return thread


def test_past_the_limit_the_guest_runs_again_and_precopy_goes_on() -> None:
    with receiver() as here, proxy(here.port) as network:
        running = send(network.address, *GUEST, "--max-bandwidth", "16M")
        thread = stalled_at_switchover(running, network, times=1, seconds=2.0)
        thread.join()
        ended = running.end()
        assert ended.code == 0, ended.err
        result = ended.result
        assert result["verified"] is True
        assert result["time"]["switchovers"] >= 2
        assert "switchover 1 took longer than 300 ms" in ended.err
        assert [one["paused"] for one in result["rounds"]].count(True) >= 2
        assert any("ran again" in one["reason"] for one in result["rounds"])
        (returned,) = result["time"]["returned_switchovers_ms"]
        assert 300 <= returned < 2000, "the connections stood for longer, the guest did not"
        assert result["time"]["stood_still_ms"] == pytest.approx(returned + result["time"]["downtime_ms"])
        assert here.end().code == 0


def test_after_three_slow_switchovers_the_run_is_given_up() -> None:
    with receiver() as here, proxy(here.port) as network:
        running = send(network.address, *GUEST, "--max-bandwidth", "16M")
        thread = stalled_at_switchover(running, network, times=3, seconds=1.5)
        thread.join()
        ended = running.end()
        assert ended.code == 3, ended.err
        assert "3 switchovers took longer than the limit of 300 ms" in ended.errors[0]
        assert "mostly by last " in ended.errors[0]
        assert ended.result["guest"]["state"] == "running"


@pytest.mark.parametrize("kind", ["rf channel 1", "rf receiver 0", "rf guest"])
def test_a_worker_that_is_stopped_alone_ends_the_run_by_name(kind: str) -> None:
    before = leftovers()
    running = Run("--size", "64M", "--max-bandwidth", "2M")
    running.wait_for("starting 2 channels")
    time.sleep(0.3)
    os.kill(running.one(kind), signal.SIGSTOP)
    ended = running.end(30)
    assert ended.code == 1
    assert len(ended.errors) == 1
    assert kind.removeprefix("rf ") in ended.errors[0]
    assert_clean(running.session, before)


def test_a_whole_job_that_is_stopped_goes_on_later() -> None:
    running = Run("--size", "64M", "--max-bandwidth", "16M", "--json", "-")
    running.wait_for("starting 2 channels")
    time.sleep(0.3)
    os.killpg(running.session, signal.SIGSTOP)
    time.sleep(7)
    os.killpg(running.session, signal.SIGCONT)
    ended = running.end()
    assert ended.code == 0, ended.err
    assert ended.result["verified"] is True


def test_a_coordinator_that_slept_through_its_guests_lease_does_not_commit_what_it_sent(
    tmp_path: Path,
) -> None:
    """The guest runs again by itself; the copy is of one moment all the same, or there is none."""
    target = tmp_path / "copy"
    with receiver("--output", str(target)) as here:
        running = send(
            here.address, *GUEST, "--max-bandwidth", "4M", "--downtime-limit", "100000", "--reconnect", "60"
        )
        running.wait_for("switchover: the guest is paused")
        time.sleep(0.5)  # said right before
        os.kill(running.process.pid, signal.SIGSTOP)
        time.sleep(6)
        os.kill(running.process.pid, signal.SIGCONT)
        ended = running.end()
        assert ended.code == 0, ended.err
        assert ended.result["verified"] is True
        assert ended.result["time"]["switchovers"] >= 2
        assert here.end().code == 0
    assert target.stat().st_size == 64 << 20
