"""A look at a real VM: out of its memory file, by pmemsave, cancelled in the middle, and through libvirt."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guestmem.ram import GuestRam
from tests.support.harness import ROOT, Run, tool
from tools.qemu.guest.initramfs import write_initramfs
from tools.qemu.guest.machine import GuestMachine, GuestOptions, guest_folder
from tools.qemu.peer import find_qemu

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("live_guest_here")]

OPTIONS = GuestOptions(192 << 20, writer_mib=64, rate_mib=8)
THROUGH = """#!{python}
import json, sys
sys.path.insert(0, {root!r})
from pipeline.qemu.connect import monitor_at
from pipeline.qemu.monitor import MonitorError
asked = json.loads(sys.argv[sys.argv.index("--cmd") + 1])
with monitor_at({socket!r}) as monitor:
    try:
        print(json.dumps({{"return": monitor.run(asked["execute"], **asked.get("arguments", {{}}))}}))
    except MonitorError as error:
        print(json.dumps({{"error": {{"desc": str(error)}}}}))
"""
"""A virsh whose libvirt is a QEMU of ours: so its pid is not known, and memory is read by pmemsave."""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[GuestMachine]:
    ram = GuestRam.create(OPTIONS.size_bytes, "forecast-look")
    made = GuestMachine(ram, OPTIONS, monitor=tmp_path / "qmp")
    try:
        made.wait_for_line(2)
        yield made
    finally:
        made.stop()
        os.close(ram.fd)


@pytest.fixture
def virsh(tmp_path: Path) -> dict[str, str]:
    """The environment of a command that finds it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "virsh").write_text(
        THROUGH.format(python=sys.executable, root=str(ROOT), socket=str(tmp_path / "qmp"))
    )
    (folder / "virsh").chmod(0o755)
    (tmp_path / "pieces").mkdir()
    return {"PATH": f"{folder}:{os.environ['PATH']}", "TMPDIR": str(tmp_path / "pieces")}


def still_runs(machine: GuestMachine) -> None:
    """The guest goes on and has no wrong page; QEMU measures nothing."""
    told = machine.wait_for_line(0, 20)
    assert machine.wait_for_line(told.count + 1, 20).bad == 0
    assert machine.qmp.run("query-dirty-rate")["status"] != "measuring"
    assert machine.qmp.run("query-status")["running"]


def test_by_file_and_by_pmemsave_it_is_the_same_guest(
    machine: GuestMachine, virsh: dict[str, str], tmp_path: Path
) -> None:
    found = {}
    for how, arguments in (("file", ("--qmp", str(tmp_path / "qmp"))), ("pmemsave", ("--libvirt", "made"))):
        target = tmp_path / how
        run = Run(
            *arguments, "--channels", "1", "--json", str(target), module="tools.forecast", environment=virsh
        )
        ended = run.end(120)
        assert ended.code == 0, ended.err
        found[how] = json.loads(target.read_text())
        assert found[how]["guest"]["cost"]["how"] == how
    shares = [one["guest"]["zero_share"] for one in found.values()]
    assert abs(shares[0] - shares[1]) < 0.15
    wires = [
        next(one["wire_bytes"]["expected"] for one in document["forecasts"] if one["method"] == "none")
        for document in found.values()
    ]
    assert wires[0] == pytest.approx(wires[1], rel=0.3)
    assert not list((tmp_path / "pieces").iterdir())
    still_runs(machine)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("part", ["pieces", "curve"])
def test_a_look_that_is_cancelled_leaves_nothing(
    number: int, part: str, machine: GuestMachine, virsh: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "pieces"
    looking = Run("--libvirt", "made", module="tools.forecast", environment=virsh)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        measuring = machine.qmp.run("query-dirty-rate")["status"] == "measuring"
        if measuring if part == "curve" else list(folder.glob("*/piece")):
            break
        time.sleep(0.005)
    for file in folder.glob("*/piece"):
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.parent.stat().st_mode & 0o777 == 0o700
    os.kill(looking.process.pid, number)
    ended = looking.end()
    assert ended.code == 130, ended.err
    assert len(ended.errors) == 1
    assert not list(folder.iterdir())
    still_runs(machine)


# -------------------------------------------------------------------- libvirt itself

DOMAIN = """<domain type='qemu'>
  <name>ferry</name><memory unit='b'>{size}</memory><vcpu>1</vcpu><features><acpi/></features>{backing}
  <os><type arch='x86_64' machine='pc'>hvm</type><kernel>{home}/vmlinuz</kernel><initrd>{home}/initrd</initrd>
    <cmdline>console=ttyS0 quiet panic=-1 FERRY_WORK=writer FERRY_MIB=64 FERRY_RATE=8</cmdline></os>
  <devices><emulator>{qemu}</emulator><memballoon model='none'/>
    <serial type='file'><source path='{home}/console'/></serial></devices>
</domain>"""
SHARED = "<memoryBacking><source type='file'/><access mode='shared'/></memoryBacking>"
URI = "qemu:///session"
AS_USER = """#!/bin/sh
export HOME={home} XDG_RUNTIME_DIR={home}/run XDG_CONFIG_HOME={home}/c XDG_CACHE_HOME={home}/k
exec {user} {virsh} "$@"
"""


@pytest.fixture
def libvirt() -> Iterator[Path]:
    """A folder with a virsh for a session of libvirt's of its own, of another user where this one is root."""
    found = shutil.which("virsh")
    if found is None or shutil.which("libvirtd") is None:
        pytest.skip("no libvirt: apt-get install libvirt-clients libvirt-daemon libvirt-daemon-driver-qemu")
    home = Path(tempfile.mkdtemp(prefix="ferry-libvirt-"))
    try:
        for name in ("run", "bin"):
            (home / name).mkdir(0o700)
        parts = guest_folder()
        shutil.copy(parts / "vmlinuz", home / "vmlinuz")
        with (home / "initrd").open("wb") as file:
            write_initramfs(file, parts / "busybox", parts / "writer", with_files=False)
        user = ""
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            user = f"setpriv --reuid {nobody.pw_uid} --regid {nobody.pw_gid} --clear-groups"
            for path in (home, *home.iterdir()):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        (home / "bin" / "virsh").write_text(AS_USER.format(user=user, home=home, virsh=found))
        (home / "bin" / "virsh").chmod(0o755)
        yield home
    finally:
        if (home / "bin" / "virsh").exists():
            domain(home, "destroy", "ferry")
            for daemon in (home / "run" / "libvirt").glob("*.pid"):
                os.kill(int(daemon.read_text()), signal.SIGTERM)
        shutil.rmtree(home, ignore_errors=True)


def domain(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(home / "bin" / "virsh"), "--connect", URI, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("backing", ["", SHARED])
def test_a_domain_of_libvirts(backing: str, libvirt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = DOMAIN.format(size=192 << 20, home=libvirt, qemu=find_qemu(), backing=backing)
    (libvirt / "domain.xml").write_text(described)
    made = domain(libvirt, "create", str(libvirt / "domain.xml"))
    if made.returncode:
        pytest.skip(f"libvirt makes no domain here: {made.stderr.strip()}")
    until = time.monotonic() + 60
    while b"count=1 " not in (libvirt / "console").read_bytes():
        assert time.monotonic() < until
        time.sleep(0.1)
    monkeypatch.setenv("PATH", f"{libvirt / 'bin'}:{os.environ['PATH']}")
    ended = tool("tools.forecast", "--libvirt", "ferry", "--connect", URI, "--channels", "1", "--json", "-")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert max(found["guest"]["curve"]["pages"][-1]) > 1000
    if backing:
        assert found["guest"]["cost"]["how"] == "file"
        assert 0 < found["guest"]["zero_share"] < 1
    elif os.geteuid() == 0:  # its QEMU is another user's, who may not write into a folder of ours
        assert "QEMU may not write to" in found["notes"][-1]
        assert {one["method"] for one in found["forecasts"]} == {"none"}
    else:
        assert found["guest"]["cost"]["calls"] > 50
    assert domain(libvirt, "domstate", "ferry").stdout.strip() == "running"
