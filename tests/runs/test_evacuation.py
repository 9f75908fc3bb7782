"""A host is emptied for real: guests that run, moved by `send` and `recv`, or by two relays."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.dask_fleet import hand_fleet
from tests.support.harness import Ended, Run, assert_clean, leftovers, until
from tests.support.kept_guest import Kept
from tests.support.live_vm import goes_on, rig
from tests.tools.evacuate.plans import SOURCE, vm

pytest.importorskip("simpy")

NET = f"127.{os.getpid() // 250 % 250 + 1}.{os.getpid() % 250 + 1}"
"""Addresses of the loopback device that no other run of these tests uses."""

SECONDS = 120.0
TAKER = """
[[host]]
name = "{name}"
links = []
cpus = 2
memory = "{memory}"
address = "{address}"
{more}
"""


@contextmanager
def guests(*options: Sequence[str]) -> Iterator[list[Kept]]:
    """Guests that write until the end."""
    running: list[Kept] = []
    try:
        for number, more in enumerate(options):
            running.append(Kept(f"moving-{os.getpid()}-{number}", *more))
        yield running
    finally:
        for one in running:
            one.end()


def taker(name: str, number: int, *more: str, memory: str = "1G") -> str:
    return TAKER.format(name=name, address=f"{NET}.{number}", memory=memory, more="\n".join(more))


def write(folder: Path, *parts: str, limits: str = "", a: str = "") -> Path:
    path = folder / "plan.toml"
    path.write_text("\n".join(["[limits]", limits, SOURCE.format(cpus=2), a, *parts]))
    return path


def attached(*those: Kept, size: str = "32M") -> list[str]:
    return [vm(one.name, f'attach = "{one.name}"', size=size) for one in those]


def evacuation(plan: Path, *more: str) -> Run:
    secure = () if "--secret" in more else ("--insecure",)
    options = ("--execute", "--draws", "0", "--no-baselines", *secure)
    return Run(str(plan), *options, "--json", str(plan.parent / "done.json"), *more, module="tools.evacuate")


def ends(running: Run, seconds: float = SECONDS) -> Ended:
    """With nothing left behind."""
    ended = running.end(seconds)
    assert "Traceback" not in ended.err, ended.err
    assert_clean(running.session, leftovers())
    return ended


def done(plan: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((plan.parent / "done.json").read_text())
    return found


def moved_to(plan: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(Path(f"{plan}.state.json").read_text())["moved"]
    return found


def ends_of(address: str) -> list[int]:
    """Processes of ours that name this address: both ends of migrations to it, and the namespaces' doors."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.startswith(f"{address}:".encode()) for word in words):
            found.append(int(entry.name))
    return found


IDLE = ("--size", "32M", "--dirty-rate", "1M")


def test_three_guests_are_moved_here_and_a_second_time_there_is_nothing_to_do(tmp_path: Path) -> None:
    with guests(IDLE, IDLE, IDLE) as vms:
        plan = write(tmp_path, taker("b", 1), *attached(*vms))
        ended = ends(evacuation(plan))
        assert ended.code == 0, ended.err
        assert set(moved_to(plan)) == {one.name for one in vms}
        found = done(plan)
        assert found["status"] == "completed"
        assert found["execution"]["moved"] == 3
        assert {row["vm"] for row in found["execution"]["migrations"]} == {one.name for one in vms}
        again = ends(evacuation(plan))
        assert again.code == 0
        assert "All 3 VMs have moved" in again.out
        for one in vms:
            one.assert_runs_on()


def test_by_a_scheduler_and_workers_that_were_started_by_hand(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    secret = tmp_path / "secret"
    secret.write_text("no other run knows this\n" * 2)
    secret.chmod(0o600)
    with hand_fleet(tmp_path) as fleet, guests(IDLE, IDLE) as vms:
        for name in ("host-a", "host-b"):
            fleet.add(name, "--nthreads", "8")
        plan = write(tmp_path, taker("b", 1, 'worker = "host-b"'), *attached(*vms), a='worker = "host-a"')
        ended = ends(evacuation(plan, "--cluster", fleet.address, "--secret", str(secret)))
        assert ended.code == 0, ended.err
        assert moved_to(plan) == {one.name: "b" for one in vms}
        until(lambda: not ends_of(f"{NET}.1"), 60.0)


def test_a_destination_that_is_killed_is_replaced_by_another(tmp_path: Path) -> None:
    slow = ("--size", "256M", "--dirty-rate", "1M", "--filled", "1")
    with guests(slow) as vms:
        plan = write(
            tmp_path, taker("b", 1), taker("c", 2), *attached(*vms, size="256M"), limits="streams_a_host = 1"
        )
        running = evacuation(plan)
        line = running.wait_for(" -> ")
        first = line.split()[-1]
        address = f"{NET}.{1 if first == 'b' else 2}"
        until(lambda: len(ends_of(address)) >= 2, 60.0)
        for pid in ends_of(address):
            if b"pipeline.recv" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
        ended = ends(running)
        assert ended.code == 0, ended.err
        assert moved_to(plan) == {vms[0].name: "c" if first == "b" else "b"}
        assert done(plan)["execution"]["migrations"][0]["attempts"] == 2
        vms[0].assert_runs_on()


def test_ctrl_c_leaves_guests_where_they_were_and_the_same_command_goes_on(tmp_path: Path) -> None:
    big = ("--size", "512M", "--dirty-rate", "1M", "--filled", "1")
    with guests(IDLE, big) as vms:
        before = leftovers()
        parts = [*attached(vms[0]), *attached(vms[1], size="512M")]
        plan = write(tmp_path, taker("b", 1), *parts, limits="streams_a_host = 1")
        running = evacuation(plan)
        running.wait_for(": a -> b")
        until(lambda: len(ends_of(f"{NET}.1")) >= 2, 60.0)
        running.process.send_signal(signal.SIGINT)
        ended = ends(running)
        assert ended.code == 130, ended.err
        assert ends_of(f"{NET}.1") == []
        assert leftovers() == before
        for one in vms:
            one.assert_runs_on()
        ended = ends(evacuation(plan))
        assert ended.code == 0, ended.err
        assert set(moved_to(plan)) == {one.name for one in vms}


def test_a_guest_that_writes_more_than_was_said_is_tried_again_alone_and_throttled(tmp_path: Path) -> None:
    wild = ("--size", "128M", "--dirty-rate", "2G", "--filled", "1")
    with guests(IDLE, wild) as vms:
        parts = [*attached(vms[0]), *attached(vms[1], size="128M")]
        plan = write(tmp_path, taker("b", 1), *parts, limits="downtime = 15")
        ended = ends(evacuation(plan))
        assert ended.code == 0, ended.err
        assert "not-converged" in ended.err
        rows = {row["vm"]: row for row in done(plan)["execution"]["migrations"]}
        assert rows[vms[0].name]["attempts"] == 1
        assert rows[vms[1].name]["attempts"] == 2


@pytest.mark.usefixtures("live_guest_here")
def test_a_vm_of_qemus_goes_by_two_relays(tmp_path: Path) -> None:
    with rig(tmp_path) as made:
        monitors = {side: made.monitor(side) for side in ("source", "destination")}
        keys = (
            *(f'qmp = "{monitors["source"]}"', f'socket = "{made.out_path}"'),
            *(f'incoming = "{made.in_path}"', f'incoming_qmp = "{monitors["destination"]}"'),
        )
        plan = write(tmp_path, taker("b", 1), vm("guest", *keys, size="192M"))
        ended = ends(evacuation(plan))
        assert ended.code == 0, ended.err
        assert moved_to(plan) == {"guest": "b"}
        goes_on(made, "destination")
        assert made.running() == {"destination"}
