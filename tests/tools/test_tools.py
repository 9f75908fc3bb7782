"""The measuring tools: spreads, images, rooflines, QEMU, the bench, as a user runs them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestmem.ram import GuestRam
from guestmem.zero import normal_mask
from pipeline.codecs import METHODS
from pipeline.codecs.method import CodecSettings
from pipeline.qemu.monitor import Monitor, MonitorError, why_not
from tests.support.harness import tool
from tools.bench.roofline import packets, roofline
from tools.measuring.images import KINDS, thinned
from tools.measuring.spread import Comparison, Spread
from tools.qemu.peer import BINARY


@pytest.fixture
def qemu() -> None:
    """Skips where there is no QEMU."""
    if shutil.which(BINARY) is None:
        pytest.skip(f"{BINARY} is not here: tools/get_qemu.sh")
    if why := why_not():
        pytest.skip(why)


@given(
    st.lists(st.floats(1, 1e6), min_size=1, max_size=9), st.lists(st.floats(1, 1e6), min_size=1, max_size=9)
)
def test_two_spreads_are_a_tie_when_they_overlap(ours: list[float], theirs: list[float]) -> None:
    one, other = Spread(tuple(ours)), Spread(tuple(theirs))
    apart = max(ours) < min(theirs) or max(theirs) < min(ours)
    assert Comparison(one, other).tie is not apart
    assert one.overlaps(other) == other.overlaps(one)
    assert one.overlaps(one)
    assert ("(tie)" in Comparison(one, other).show()) is not apart


@pytest.mark.parametrize("kind", ["corpus", "zero-rich", "incompressible", "mixed"])
def test_images_are_what_their_name_says(kind: str, corpus: Path) -> None:
    ram = GuestRam.create(96 << 20, "test-image")
    KINDS[kind](ram, corpus)
    normal = float(normal_mask(ram.words).mean())
    expected = {"corpus": 0.94, "zero-rich": 0.25, "incompressible": 1.0, "mixed": 0.67}[kind]
    assert abs(normal - expected) < 0.06
    again = GuestRam.create(96 << 20, "test-image")
    KINDS[kind](again, corpus)
    assert np.array_equal(ram.words, again.words)


def test_a_part_of_an_image_has_every_so_manyth_block(tmp_path: Path) -> None:
    image = tmp_path / "image.raw"
    image.write_bytes(b"".join(bytes([number]) * (2 << 20) for number in range(6)))
    assert thinned(image, 1) == image
    part = thinned(image, 4)
    assert part.read_bytes() == bytes(2 << 20) + b"\4" * (2 << 20)


def test_a_roofline_does_the_whole_image(corpus: Path) -> None:
    source, destination = GuestRam.create(8 << 20, "roof"), GuestRam.create(8 << 20, "roof")
    KINDS["zero-rich"](source, corpus)
    normal = int(normal_mask(source.words).sum())
    assert sum(len(plain) for plain in packets(source, 128)) == normal * 4096
    for name in ("zstd", "isal", "none"):
        settings = CodecSettings(level=METHODS[name].default_level)
        found = roofline(source, destination, name, settings, 128)
        assert found.guest_bytes == normal * 4096
        assert found.compress_seconds > 0
        assert found.decompress_seconds > 0
        assert (found.wire_bytes < found.guest_bytes) == (name != "none")


def test_qemu_gives_our_row(qemu: None, corpus: Path) -> None:
    arguments = ("--size", "32M", "--fill", str(corpus), "--method", "zstd", "--prealloc", "--json", "-")
    ended = tool("tools.qemu.peer", *arguments)
    assert ended.returncode == 0, ended.stderr
    row = json.loads(ended.stdout)
    assert row["verified"] is True
    assert row["guest_bytes"] > 20 << 20
    assert 1 < row["compression_ratio"] == row["guest_bytes"] / row["wire_bytes"]


def test_a_missing_qemu_is_said() -> None:
    ended = tool("tools.qemu.peer", "--size", "2M", environment={"PATH": "/nowhere"})
    assert ended.returncode == 2
    assert ended.stderr.startswith("error:")
    assert "get_qemu.sh" in ended.stderr


def test_a_missing_package_for_the_monitor_is_said(qemu: None, tmp_path: Path) -> None:
    (tmp_path / "qemu.py").write_text("")
    ended = tool("tools.qemu.peer", "--size", "2M", environment={"PYTHONPATH": str(tmp_path)})
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "pip install" in ended.stderr


def test_a_qemu_that_dies_early_gives_its_last_line(qemu: None, tmp_path: Path) -> None:
    broken = tmp_path / BINARY
    broken.write_text("#!/bin/sh\necho first >&2\necho no such machine >&2\nexit 1\n")
    broken.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ended = tool("tools.qemu.peer", "--size", "2M", environment=environment)
    assert ended.returncode == 2
    assert ended.stderr == f"error: {BINARY}: no such machine\n"


@pytest.fixture
def monitored(qemu: None) -> Iterator[tuple[subprocess.Popen[bytes], Monitor]]:
    """A QEMU without a guest, and its monitor."""
    ours, theirs = socket.socketpair()
    command = [BINARY, "-S", "-nodefaults", "-no-user-config", "-display", "none", "-machine", "none"]
    command += ["-chardev", f"socket,id=m,fd={theirs.fileno()}", "-mon", "m,mode=control"]
    process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL)
    theirs.close()
    monitor = Monitor(ours)
    yield process, monitor
    monitor.close()
    process.kill()
    process.wait()


def test_a_monitor_gives_results_and_refusals(monitored: tuple[subprocess.Popen[bytes], Monitor]) -> None:
    _, monitor = monitored
    assert monitor.run("query-status")["status"] == "prelaunch"
    assert int(monitor.version.split(".")[0]) >= 8
    with pytest.raises(MonitorError, match=r"no-such-command.*not been found"):
        monitor.run("no-such-command")
    with pytest.raises(MonitorError, match="nothing more"):
        monitor.wait_for_migration(0.05)
    assert monitor.run("query-status")["running"] is False


def test_a_qemu_that_dies_ends_the_wait(monitored: tuple[subprocess.Popen[bytes], Monitor]) -> None:
    process, monitor = monitored
    threading.Timer(0.2, process.kill).start()
    with pytest.raises(MonitorError, match="QEMU is gone"):
        monitor.wait_for_migration(30)
    with pytest.raises(MonitorError):
        monitor.run("query-status")


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("tools.qemu.peer", ("--method", "lz4"), "--method lz4"),
        ("tools.qemu.peer", ("--method", "zstd", "--level", "99"), "--level 99"),
        ("tools.bench", ("--suite", "nothing"), "--suite nothing"),
        ("tools.bench", ("--methods", "gzip"), "--methods gzip"),
        ("tools.bench", ("--suite", "auto", "--bandwidths", "fast"), "--bandwidths fast"),
        ("tools.bench", ("--suite", "auto", "--images", "cats"), "--images cats"),
        (
            "tools.bench",
            ("--images", "corpus"),
            "--images: --suite peers does not take it; --suite auto or auto-links or auto-device does",
        ),
        ("tools.bench", ("--bandwidths", "25M"), "--bandwidths"),
        (
            "tools.bench",
            ("--suite", "auto", "--methods", "none"),
            "--suite peers or transports or forecast does",
        ),
        ("tools.bench", ("--suite", "scale", "--no-qemu"), "--no-qemu"),
        ("tools.bench", ("--suite", "scale", "--no-prealloc"), "--no-prealloc"),
        ("tools.bench", ("--suite", "auto", "--filled", "0.5"), "--filled"),
        ("tools.bench", ("--suite", "docs", "--image", "x"), "--image"),
        ("tools.bench", ("--sections", "peers"), "--sections"),
        ("tools.bench", ("--output", "x"), "--output"),
        ("tools.bench", ("--suite", "docs", "--sections", "cats"), "--sections cats"),
        ("tools.bench", ("--suite", "docs", "--output", "/dev/null"), "--output /dev/null"),
    ],
)
def test_wrong_options_are_one_line(name: str, arguments: tuple[str, ...], words: str) -> None:
    ended = tool(name, *arguments)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert words in ended.stderr


def test_the_bench_puts_ours_beside_the_roofline(tmp_path: Path, corpus: Path) -> None:
    target, markdown = tmp_path / "bench.json", tmp_path / "bench.md"
    options = ("--size", "32M", "--fill", str(corpus), "--repeat", "2", "--methods", "none,zstd", "--no-qemu")
    ended = tool("tools.bench", *options, "--json", str(target), "--markdown", str(markdown))
    assert ended.returncode == 0, ended.stderr
    document = json.loads(target.read_text())
    assert {len(values) for values in document["rows"].values()} == {2}
    assert "pipeline / alone" in markdown.read_text()
    assert "--no-qemu" in ended.stdout


def test_the_bench_stands_beside_qemu(qemu: None, corpus: Path) -> None:
    options = ("--size", "32M", "--fill", str(corpus), "--repeat", "1", "--methods", "isal", "--no-prealloc")
    ended = tool("tools.bench", *options)
    assert ended.returncode == 0, ended.stderr
    assert "isal / zlib" in ended.stdout


def test_auto_is_held_against_fixed_methods(corpus: Path) -> None:
    options = ("--suite", "auto", "--size", "16M", "--fill", str(corpus), "--repeat", "1")
    ended = tool("tools.bench", *options, "--images", "corpus", "--bandwidths", "0")
    assert ended.returncode == 0, ended.stderr
    assert "auto / best" in ended.stdout
