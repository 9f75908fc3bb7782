"""A VM's memory and its monitor, with a QEMU and a virsh that are made up."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import Cancelled
from pipeline.forecast.vm.dirty_rate import curve_of_vm
from pipeline.forecast.vm.vm_memory import PIECE_BYTES, NoContent, memory_of, pieces
from pipeline.qemu.monitor import MonitorError
from tests.support.harness import tool

SIZE = 64 << 20
FILE = "memory-backend-file"


class MadeUp:
    """A QEMU with one backend, whose pmemsave copies out of its RAM."""

    def __init__(
        self, path: str | None = None, kind: str = "memory-backend-file", share: bool = True
    ) -> None:
        self.path, self.kind, self.share = path, kind, share
        self.asked: list[str] = []
        self.saved = b"\1" * PIECE_BYTES
        self.fails: str | None = None
        self.modes: set[int] = set()

    def run(self, command: str, **arguments: Any) -> Any:
        self.asked.append(command)
        if command == "query-memdev":
            return [{"id": "ram", "share": self.share, "size": SIZE}]
        if command == "qom-get":
            return self.kind if arguments["property"] == "type" else self.path
        assert command == "pmemsave"
        if self.fails is not None:
            raise MonitorError(self.fails)
        file = Path(arguments["filename"])
        self.modes |= {file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777}
        file.write_bytes(self.saved)
        return {}

    def capabilities(self) -> dict[str, bool]:
        return {}


@pytest.fixture
def ram(tmp_path: Path) -> Path:
    path = tmp_path / "ram"
    with path.open("wb") as file:
        file.truncate(SIZE)
        file.seek(0)
        file.write(b"\2" * PIECE_BYTES)
    return path


def test_a_shared_file_is_read_and_qemu_is_not_asked(ram: Path) -> None:
    made_up, before = MadeUp(str(ram)), ram.stat().st_blocks
    with memory_of(made_up, SIZE, None) as memory:
        found = pieces(memory)
        assert memory.cost.how == "file"
    assert "pmemsave" not in made_up.asked
    assert len(found) == SIZE // PIECE_BYTES
    assert (found[0].view(np.uint8) == 2).all()
    assert not found[PIECE_BYTES].any()
    assert ram.stat().st_blocks == before


def test_what_is_not_its_file_is_not_read(ram: Path, tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"x")
    os.mkfifo(tmp_path / "fifo")
    strange = [tmp_path / "none", tmp_path, tmp_path / "small", tmp_path / "fifo", "/dev/zero", "ram", "a\0b"]
    made_ups = [MadeUp(str(path)) for path in strange]
    made_ups += [MadeUp(str(ram), share=False), MadeUp(str(ram), kind="memory-backend-ram")]
    made_ups += [MadeUp("/proc/self/fd/0"), MadeUp(None, kind="memory-backend-memfd")]
    for made_up in made_ups:
        with memory_of(made_up, SIZE, None) as memory:
            assert memory.cost.how == "pmemsave", made_up.path


def test_a_memfd_is_found_by_who_holds_it() -> None:
    fd = os.memfd_create("memory-backend-memfd")
    try:
        os.ftruncate(fd, SIZE)
        with memory_of(MadeUp(None, kind="memory-backend-memfd"), SIZE, os.getpid()) as memory:
            assert memory.cost.how == "file"
            assert len(pieces(memory)) == SIZE // PIECE_BYTES
    finally:
        os.close(fd)


def test_pieces_go_through_a_file_of_this_users_alone_and_are_gone() -> None:
    made_up = MadeUp(share=False)
    with memory_of(made_up, SIZE, None) as memory:
        found = pieces(memory)
        assert memory.cost.calls == len(found) > 50
    assert made_up.modes == {0o600, 0o700}


@pytest.mark.parametrize(
    ("fails", "saved", "said"),
    [
        ("pmemsave: Could not open '/x': Permission denied", b"", "QEMU may not write to"),
        (None, b"", "it may see another /tmp"),
        ("pmemsave: Invalid addr", b"", "no piece of its memory"),
        (None, b"short", "no piece of its memory"),
    ],
)
def test_why_there_is_no_content(fails: str | None, saved: bytes, said: str) -> None:
    made_up = MadeUp(share=False)
    made_up.fails, made_up.saved = fails, saved
    with memory_of(made_up, SIZE, None) as memory, pytest.raises(NoContent, match=said):
        pieces(memory)


def test_a_look_that_is_cancelled_waits_until_nothing_is_measured() -> None:
    class Measuring(MadeUp):
        looks = 0

        def run(self, command: str, **arguments: Any) -> Any:
            if command == "query-kvm":
                return {"enabled": False}
            if command == "calc-dirty-rate":
                return {}
            self.looks += 1
            if self.looks == 1:
                raise Cancelled("cancelled by SIGINT")
            return {"status": "measuring" if self.looks < 4 else "measured", "dirty-rate": 1}

    made_up = Measuring()
    with pytest.raises(Cancelled):
        curve_of_vm(made_up, SIZE, [])
    assert made_up.looks == 4


# -------------------------------------------------------------------- virsh

FAKE = """#!{python}
import json, sys
words = sys.argv[1:]
asked = json.loads(words[words.index("--cmd") + 1])
domain = words[words.index("--domain") + 1]
if domain == "nosuch":
    sys.exit("error: failed to get domain 'nosuch'")
if domain == "babble":
    print("hello"); sys.exit(0)
name, arguments = asked["execute"], asked.get("arguments", {{}})
if domain == "moving" and name == "query-migrate":
    answer = {{"status": "active"}}
elif domain == "empty":
    print(json.dumps({{"error": {{"class": "GenericError", "desc": "nothing here"}}}})); sys.exit(0)
else:
    answer = {{
        "query-migrate": {{}},
        "query-memory-size-summary": {{"base-memory": 64 << 20}},
        "query-migrate-capabilities": [{{"capability": "multifd", "state": False}}],
        "query-migrate-parameters": {{"downtime-limit": 300}},
        "query-memdev": [],
        "query-kvm": {{"enabled": False}},
        "query-dirty-rate": {{"status": "measured", "dirty-rate": 2}},
    }}.get(name, {{}})
if name == "pmemsave":
    with open(arguments["filename"], "wb") as file:
        file.write(b"text and more of it, " .ljust(64, b".") * (arguments["size"] // 64))
print(json.dumps({{"return": answer, "id": "libvirt-1"}}))
"""


@pytest.fixture
def fake_virsh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "virsh").write_text(FAKE.format(python=sys.executable))
    (folder / "virsh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_a_vm_of_libvirts_is_asked_through_virsh(fake_virsh: Path, tmp_path: Path) -> None:
    target = tmp_path / "json"
    arguments = ("--libvirt", "web 1", "--connect", "qemu:///session", "--bandwidth", "1Gbit")
    ended = tool("tools.forecast", *arguments, "--json", str(target), "--html", str(tmp_path / "html"))
    assert ended.returncode == 0, ended.stderr
    assert "virsh -c qemu:///session migrate" in ended.stdout
    assert "'web 1' qemu+ssh://DESTINATION/system" in ended.stdout
    assert "virsh's own time with it" in ended.stdout
    found = json.loads(target.read_text())
    assert found["guest"]["capabilities"] == {"multifd": False}
    assert found["guest"]["cost"]["how"] == "pmemsave"
    assert found["forecast"]["method"]
    assert len({one["method"] for one in found["forecasts"]}) > 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--libvirt", "nosuch"), "failed to get domain 'nosuch'"),
        (("--libvirt", "babble"), "no JSON"),
        (("--libvirt", "empty"), "nothing here"),
        (("--libvirt", "moving"), "is being migrated (active)"),
        (("--libvirt", ""), "must be as virsh takes it"),
        (("--libvirt=-c",), "must be as virsh takes it"),
        (("--libvirt", "x", "--connect", ""), "must be as virsh takes it"),
        (("--connect", "qemu:///system"), "is for --libvirt"),
        (("--score", "/", "--connect", "x"), "is for --libvirt"),
        (("--libvirt", "x", "--qmp", "y"), "name one of"),
    ],
)
def test_what_virsh_says_is_said_in_a_line(arguments: tuple[str, ...], said: str, fake_virsh: Path) -> None:
    ended = tool("tools.forecast", *arguments)
    assert ended.returncode == 2, ended.stderr
    assert said in ended.stderr
    assert sum(line.startswith("error: ") for line in ended.stderr.splitlines()) == 1


def test_without_virsh_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = tool("tools.forecast", "--libvirt", "web")
    assert ended.returncode == 2
    assert "virsh is missing" in ended.stderr
