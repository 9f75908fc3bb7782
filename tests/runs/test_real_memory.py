"""Images that a real QEMU wrote of a real guest: each holds what the guest's RAM held."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guestmem.images import Layout, open_source, read_layout
from guestmem.ram import GuestRam
from tests.guestmem.images import files
from tests.support.harness import tool
from tools.qemu.guest.machine import GuestMachine, GuestOptions

pytestmark = pytest.mark.usefixtures("live_guest_here")
OPTIONS = GuestOptions(192 << 20, writer_mib=32, rate_mib=4)
ROMS_BELOW = 1 << 20
"""Below, what a physical address shows may be a ROM."""


@contextlib.contextmanager
def stopped_guest() -> Iterator[tuple[GuestMachine, GuestRam]]:
    ram = GuestRam.create(OPTIONS.size_bytes, "real-memory")
    machine = GuestMachine(ram, OPTIONS)
    try:
        machine.wait_for_line(1)
        machine.qmp.run("stop")
        yield machine, ram
    finally:
        machine.stop()
        os.close(ram.fd)


def read(path: Path) -> tuple[Layout, memoryview]:
    with open_source(path) as source:
        layout = read_layout(source)
        memory = memoryview(bytearray(layout.size_bytes))
        layout.fill(memory)
    return layout, memory


def migrated(machine: GuestMachine, path: Path, *, multifd: bool, offset: int = 0) -> None:
    machine.qmp.set_capabilities({"mapped-ram": True, "multifd": multifd})
    if machine.qmp.run("query-status")["status"] == "postmigrate":
        machine.qmp.run("cont")
        machine.qmp.run("stop")
    machine.qmp.run("migrate", uri=f"file:{path},offset={offset}")
    until = time.monotonic() + 60
    while (status := machine.qmp.run("query-migrate")["status"]) != "completed":
        assert status != "failed" and time.monotonic() < until, status
        time.sleep(0.05)


def dumped(machine: GuestMachine, path: Path, format_: str) -> None:
    machine.qmp.run("dump-guest-memory", paging=False, protocol=f"file:{path}", format=format_)


@pytest.mark.long
@pytest.mark.parametrize("multifd", [False, True])
def test_mapped_ram(multifd: bool, tmp_path: Path) -> None:
    with stopped_guest() as (machine, ram):
        xml = b"<domain type='qemu'/>" * 9
        header = files.libvirt(xml, [])[: 92 + len(xml)]
        for name, offset in (("plain", 0), ("libvirt", len(header))):
            path = tmp_path / name
            migrated(machine, path, multifd=multifd, offset=offset)
            if offset:
                with path.open("r+b") as file:
                    file.write(header)
            layout, memory = read(path)
            assert ("libvirt" in layout.format) == bool(offset)
            at = 0
            for one in layout.ranges:
                if one.name == "ram":
                    assert memory[at : at + one.size_bytes] == ram.memory
                at += one.size_bytes
            assert "ram" in [one.name for one in layout.ranges]


@pytest.mark.long
@pytest.mark.parametrize("format_", ["elf", "kdump-zlib", "kdump-snappy", "kdump-raw-zlib"])
def test_dumps(format_: str, tmp_path: Path) -> None:
    with stopped_guest() as (machine, ram):
        offered = machine.qmp.run("query-dump-guest-memory-capability")["formats"]
        if format_ not in offered:
            pytest.skip(f"this QEMU does not write {format_}")
        path = tmp_path / "dump"
        dumped(machine, path, format_)
        layout, memory = read(path)
        at = compared = 0
        for one in layout.ranges:
            assert one.address is not None
            begin, end = max(one.address, ROMS_BELOW), min(one.address + one.size_bytes, ram.size_bytes)
            if begin < end:
                place = at + begin - one.address
                assert memory[place : place + end - begin] == ram.memory[begin:end]
                compared += end - begin
            at += one.size_bytes
        assert compared == ram.size_bytes - ROMS_BELOW


@pytest.mark.long
def test_a_run_starts_from_a_dump_and_says_what_it_was(tmp_path: Path) -> None:
    with stopped_guest() as (machine, _):
        dumped(machine, tmp_path / "dump", "kdump-zlib")
    result = tmp_path / "result.json"
    ended = tool(
        *("pipeline.run", "--image", str(tmp_path / "dump"), "--method", "zstd", "--dirty-rate", "0"),
        *("--json", str(result), "--quiet"),
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(result.read_text())
    assert found["verified"]
    assert found["options"]["image_format"] == "flattened kdump"
    assert found["options"]["image_ranges"][0]["address"] == 0


@pytest.mark.long
def test_a_snapshot_of_a_running_vm(tmp_path: Path) -> None:
    ram = GuestRam.create(OPTIONS.size_bytes, "snapshot")
    machine = GuestMachine(ram, OPTIONS, monitor=tmp_path / "qmp")
    try:
        machine.wait_for_line(1)
        before = machine.qmp.run("query-migrate-capabilities")
        output = tmp_path / "snapshot"
        ended = tool(
            *("tools.snapshot", "--qmp", str(tmp_path / "qmp"), "--output", str(output)),
            *("--json", str(tmp_path / "json")),
        )
        assert ended.returncode == 0, ended.stderr
        found = json.loads((tmp_path / "json").read_text())
        assert output.stat().st_mode & 0o777 == 0o600
        assert 0 < found["stopped_ms"] < 5000
        assert machine.qmp.run("query-status")["running"]
        assert machine.qmp.run("query-migrate-capabilities") == before
        told = machine.wait_for_line(0, 20)
        assert machine.wait_for_line(told.count + 1, 20).bad == 0
        layout, memory = read(output)
        at = 0
        for one in layout.ranges:
            if one.name == "ram":
                held = memoryview(memory)[at : at + one.size_bytes]
                same = sum(
                    held[page : page + 4096] == ram.memory[page : page + 4096]
                    for page in range(0, one.size_bytes, 4096)
                )
                assert same > 0.8 * one.size_bytes / 4096
            at += one.size_bytes
        again = tool("tools.snapshot", "--qmp", str(tmp_path / "qmp"), "--output", str(output))
        assert again.returncode == 2
        assert "exists" in again.stderr
    finally:
        machine.stop()
        os.close(ram.fd)
