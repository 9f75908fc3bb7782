"""Kill, interrupt, starve: one line, the right exit code, within two seconds, nothing left."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.harness import ROOT, Run, assert_clean, in_process, leftovers, run

SLOW = ("--size", "64M", "--method", "zlib", "--max-bandwidth", "4M", "--dirty-rate", "1M")
"""A first round of some seconds."""

LONG_DOWNTIME = (
    *("--size", "64M", "--filled", "0.001", "--method", "none", "--max-bandwidth", "2M", "--delta", "0"),
    *("--dirty-rate", "12M", "--dirty-pattern", "hotspot:0.999,0.1", "--downtime-limit", "100000"),
)
"""A switchover of many seconds: the guest has written much while a short first round was sent."""

KINDS = ("rf guest", "rf channel", "rf receiver")


def await_phase(running: Run, phase: str) -> None:
    if phase == "round":
        running.wait_for("starting")
        time.sleep(0.5)
    elif phase == "switchover":
        running.wait_for("switchover")
        time.sleep(0.05)


def assert_fails_in_time(running: Run, began: float, code: int, before: set[str]) -> str:
    ended = running.end(timeout=10)
    assert time.monotonic() - began < 2.0
    assert ended.code == code, ended.err
    assert len(ended.errors) == 1, ended.err
    assert "Traceback" not in ended.err
    assert_clean(running.session, before)
    return ended.errors[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("phase", ["set-up", "round", "switchover"])
def test_a_killed_worker_ends_the_run(kind: str, phase: str) -> None:
    before = leftovers()
    running = Run(*(LONG_DOWNTIME if phase == "switchover" else SLOW))
    await_phase(running, phase)
    victim = running.one(kind)
    began = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    line = assert_fails_in_time(running, began, 1, before)
    assert kind.removeprefix("rf ") in line
    assert "SIGKILL" in line


@pytest.mark.parametrize("phase", ["set-up", "round", "switchover"])
def test_a_killed_coordinator_takes_all_with_it(phase: str) -> None:
    before = leftovers()
    running = Run(*(LONG_DOWNTIME if phase == "switchover" else SLOW))
    await_phase(running, phase)
    running.one("rf guest")
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.communicate(timeout=5)
    assert_clean(running.session, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("phase", ["set-up", "round", "switchover"])
def test_a_signal_cancels(number: signal.Signals, phase: str, tmp_path: Path) -> None:
    before = leftovers()
    path = tmp_path / "result.json"
    running = Run(*(LONG_DOWNTIME if phase == "switchover" else SLOW), "--json", str(path))
    await_phase(running, phase)
    running.one("rf guest")
    began = time.monotonic()
    os.killpg(running.session, number)
    line = assert_fails_in_time(running, began, 130, before)
    assert "cancelled" in line
    assert json.loads(path.read_text())["status"] == "cancelled"


def test_ctrl_c_while_python_starts() -> None:
    for wait in (0.06, 0.12, 0.25, 0.4):
        before = leftovers()
        running = Run(*SLOW)
        time.sleep(wait)
        os.killpg(running.session, signal.SIGTERM)
        ended = running.end(timeout=5)
        assert ended.code in (130, -signal.SIGTERM)
        assert "Traceback" not in ended.err
        assert_clean(running.session, before)


def test_kill_all_at_any_moment_leaves_nothing() -> None:
    """`kill -9` of the process group, many times (FERRY_KILLS), at a random moment."""
    chosen = random.Random(6)
    for _ in range(int(os.environ.get("FERRY_KILLS", "10"))):
        before = leftovers()
        running = Run("--size", "32M", "--method", "zlib", "--prealloc")
        time.sleep(chosen.uniform(0.0, 1.4))
        try:
            os.killpg(running.session, signal.SIGKILL)
        except ProcessLookupError:
            pass
        running.process.communicate(timeout=5)
        assert_clean(running.session, before)


def test_a_worker_that_gets_a_term_signal_is_named() -> None:
    before = leftovers()
    running = Run(*SLOW)
    await_phase(running, "round")
    began = time.monotonic()
    os.kill(running.one("rf receiver 1"), signal.SIGTERM)
    assert "SIGTERM" in assert_fails_in_time(running, began, 1, before)


def test_a_stopped_receiver_stops_the_channels_and_not_for_good() -> None:
    before = leftovers()
    running = Run(
        *("--size", "64M", "--method", "none", "--receivers", "1", "--json", "-"),
        *("--max-bandwidth", "40M", "--dirty-rate", "0"),
    )
    running.wait_for("starting")
    time.sleep(0.6)
    receiver = running.one("rf receiver")
    os.kill(receiver, signal.SIGSTOP)
    time.sleep(1.5)
    channel = running.one("rf channel")
    used = Path(f"/proc/{channel}/stat").read_text().split()[13:15]
    time.sleep(0.5)
    assert Path(f"/proc/{channel}/stat").read_text().split()[13:15] == used  # waits, and burns nothing
    os.kill(receiver, signal.SIGCONT)
    ended = running.end()
    assert ended.code == 0
    assert ended.result["verified"] is True
    assert_clean(running.session, before)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--timeout", "1"), "--timeout 1"),
        (("--max-rounds", "2", "--dirty-rate", "1G", "--max-bandwidth", "0"), "2 rounds"),
    ],
)
def test_a_run_that_cannot_converge_ends_with_3(arguments: tuple[str, ...], words: str) -> None:
    ended = run(*SLOW, "--downtime-limit", "1", *arguments, "--json", "-")
    assert ended.code == 3
    assert len(ended.errors) == 1
    assert words in ended.errors[0]
    assert ended.result["status"] == "not-converged"
    assert ended.result["guest"]["state"] == "running"


def test_a_time_out_at_switchover_lets_the_guest_run_on() -> None:
    slower = ("--dirty-pattern", "uniform", "--dirty-rate", "6M")
    ended = run(*LONG_DOWNTIME, *slower, "--timeout", "2", "--json", "-")
    assert ended.code == 3
    assert "switchover" in ended.err
    assert ended.result["guest"]["state"] == "running"


def test_the_guests_source_is_mapped_read_only_by_the_migration() -> None:
    running = Run(*SLOW)
    await_phase(running, "round")
    for kind in ("rf channel", "rf receiver"):
        maps = Path(f"/proc/{running.one(kind)}/maps").read_text().splitlines()
        sources = [line for line in maps if "ramferry" in line and "-source-" in line]
        assert sources
        assert all(line.split()[1] == "r--s" for line in sources)
    os.killpg(running.session, signal.SIGKILL)
    running.process.communicate(timeout=5)


def in_small_shm(size: str, arguments: str, meanwhile: str = "") -> subprocess.CompletedProcess[str]:
    """Run in a mount namespace of its own, where /dev/shm has this size."""
    command = (
        f"mount -t tmpfs -o size={size} none /dev/shm && {meanwhile} "
        f"exec {sys.executable} -m pipeline.run {arguments}"
    )
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def can_unshare() -> bool:
    try:
        probe = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return probe.returncode == 0


needs_namespaces = pytest.mark.skipif(not can_unshare(), reason="needs root and mount namespaces")


@needs_namespaces
def test_too_little_shared_memory_is_found_before_anything_is_allocated() -> None:
    ended = in_small_shm("20M", "--size 64M")
    assert ended.returncode == 2
    assert "/dev/shm" in ended.stderr
    assert "filling" not in ended.stderr


@needs_namespaces
@pytest.mark.parametrize("prealloc", ["--prealloc", ""])
def test_a_shared_memory_that_fills_up_meanwhile(prealloc: str) -> None:
    fill = "(sleep 0.1; head -c 100M /dev/zero > /dev/shm/other) & "
    arguments = f"--size 64M --method zlib --dirty-rate 0 {prealloc}"
    ended = in_small_shm("150M", arguments, meanwhile=fill)
    lines = [line for line in ended.stderr.splitlines() if line.startswith("error:")]
    assert ended.returncode in (1, 2), ended.stderr
    assert len(lines) == 1
    assert "/dev/shm" in lines[0]
    assert "Traceback" not in ended.stderr


def test_more_memory_than_the_host_has() -> None:
    ended = run("--size", "8000G")
    assert ended.code == 2
    assert len(ended.errors) == 1


BAD_USAGE = [
    (("--method", "lz5"), "lz5"),
    (("--level", "99", "--method", "zstd"), "-50 to 22"),
    (("--level", "0", "--method", "qatzip"), "1 to 9"),
    (("--level", "1", "--method", "none"), "no levels"),
    (("--level", "x"), "whole number"),
    (("--size", "0"), "1M"),
    (("--size", "-1G"), "1M"),
    (("--size", "1000001"), "4096"),
    (("--size", "512K"), "1M"),
    (("--size", "big"), "not a size"),
    (("--image", "/no/such/file"), "no such file"),
    (("--image", "/dev/null"), "neither a file nor a block device"),
    (("--fill", "/no/such/file"), "no such file"),
    (("--fill", "/dev/null"), "neither"),
    (("--filled", "1.5"), "0 to 1"),
    (("--filled", "nan"), "finite"),
    (("--dirty-rate", "-1M"), "-1M"),
    (("--max-bandwidth", "-1"), "-1"),
    (("--channels", "0"), "1 to 64"),
    (("--channels", "65"), "1 to 64"),
    (("--receivers", "65"), "1 to 64"),
    (("--packet-size", "2K"), "4K to 4M"),
    (("--packet-size", "8M"), "4K to 4M"),
    (("--packet-size", "5000"), "multiple of 4K"),
    (("--qat-buffer", "48K"), "power of two"),
    (("--qat-buffer", "1M"), "4K to 512K"),
    (("--qat-decode", "gpu"), "hardware"),
    (("--queue-depth", "0"), "1 to"),
    (("--downtime-limit", "0"), "above 0"),
    (("--timeout", "-1"), "0 or more"),
    (("--max-rounds", "-1"), "0 to"),
    (("--json", "/no/such/folder/x"), "cannot be written"),
    (("--no-such-option",), "--no-such-option"),
    (("--channels",), "expected one argument"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD_USAGE)
def test_bad_usage_is_one_line_and_exit_2(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_process("pipeline.cli.run", *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: ")
    assert words in captured.err
    assert arguments[-1] in captured.err


def test_an_image_of_odd_length_and_an_empty_corpus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / "odd"
    odd.write_bytes(bytes((1 << 20) + 1))
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments in (["--image", str(odd)], ["--fill", str(empty)], ["--image", str(odd), "--fill", "x"]):
        assert in_process("pipeline.cli.run", *arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_help_gives_units_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        in_process("pipeline.cli.run", "--help")
    assert raised.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in ("default 2M", "bytes per second", "milliseconds", "130 cancelled", "zlib 0 to 9"):
        assert words in text
