"""Guests that keep running: made and measured by tools.dirtyrate, migrated by --attach."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guestmem.dirty_log.write_protect import NoKernelLog, register
from guestmem.ram import GuestRam
from tests.support.harness import ROOT, Ended, Run, assert_clean, in_process, leftovers, migrate, run
from tests.support.kept_guest import Kept


def has_kernel_log() -> bool:
    ram = GuestRam.create(1 << 20, "test")
    try:
        os.close(register(ram.words.ctypes.data, ram.size_bytes))
    except NoKernelLog:
        return False
    return True


LOGS = [
    "shared",
    pytest.param(
        "kernel",
        marks=pytest.mark.skipif(not has_kernel_log(), reason="this kernel has no write-protect log (6.7)"),
    ),
]
PATTERNS = ["uniform", "sequential", "hotspot", "zipf"]
THROTTLED = pytest.param("throttled", marks=pytest.mark.long)


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_arrives_with_either_log(pattern: str, log: str) -> None:
    result = migrate(
        *("--size", "32M", "--dirty-rate", "64M", "--dirty-pattern", pattern, "--dirty-log", log),
        *("--downtime-limit", "20"),
    )
    assert result["options"]["dirty_log"] == log
    assert len(result["rounds"]) >= 2


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("content", ["random", "zero", "constant", "delta"])
def test_every_content_arrives(content: str, log: str) -> None:
    migrate(
        *("--size", "16M", "--dirty-rate", "16M", "--dirty-content", content, "--dirty-log", log),
        *("--downtime-limit", "60", "--write-bytes", "1000"),
    )


@pytest.mark.parametrize("log", LOGS)
def test_the_self_check_guest_arrives_verified_both_ways(log: str) -> None:
    result = migrate(
        *("--size", "32M", "--dirty-rate", "60M", "--verify=both", "--dirty-log", log),
        *("--downtime-limit", "100", "--method", "qatzip"),
    )
    assert result["verification"] == {"invariant": True, "images": True}
    assert result["options"]["preset"] == "self-check"
    alone = migrate("--size", "8M", "--verify=invariant", "--dirty-log", log)
    assert alone["verification"] == {"invariant": True}


@pytest.mark.parametrize("preset", ["idle-desktop", "database", "build"])
def test_presets_migrate(preset: str) -> None:
    assert migrate("--size", "64M", "--preset", preset)["options"]["preset"] == preset


def test_phases_migrate(tmp_path: Path) -> None:
    path = tmp_path / "phases.toml"
    path.write_text(
        '[[phase]]\nrate = "16M"\npattern = "zipf"\nseconds = 0.2\n[[phase]]\nrate = 0\nseconds = 0.1\n'
    )
    migrate("--size", "16M", "--phases", str(path))


def test_every_round_says_what_was_expected_and_what_came_true() -> None:
    result = migrate("--size", "64M", "--dirty-rate", "60M", "--downtime-limit", "40", "--prealloc")
    rounds = result["rounds"]
    assert rounds[0]["decision"] is None
    assert [one["decision"] for one in rounds[1:-1]] == ["continue"] * (len(rounds) - 2)
    assert rounds[-1]["decision"] == "switch over"
    for one in rounds[1:]:
        assert one["expected_downtime_ms"] > 0
        assert "pages are dirty" in one["reason"]
    assert rounds[-1]["came_true_ms"] == result["time"]["downtime_ms"]
    parts = result["downtime"]
    assert set(parts) == {"last_sync_ms", "last_send_ms", "last_apply_ms", "hand_over_ms"}
    assert sum(parts.values()) == pytest.approx(result["time"]["downtime_ms"])
    assert min(parts.values()) >= 0


def test_a_hopeless_guest_is_given_up_by_stall_detection() -> None:
    ended = run(
        *("--size", "64M", "--method", "zlib", "--dirty-rate", "400M", "--downtime-limit", "20"),
        *("--json", "-"),
    )
    assert ended.code == 3
    assert "no end" in ended.errors[0]
    assert ended.result["verdict"]["wasted_rounds"] > 80
    assert ended.result["guest"]["state"] == "running"


def test_throttle_brings_it_home() -> None:
    result = migrate(
        # A wire that this guest outruns on any host.
        *("--size", "16M", "--method", "none", "--max-bandwidth", "20M", "--dirty-rate", "60M"),
        *("--downtime-limit", "100"),
        *("--converge", "throttle", "--throttle-initial", "40", "--throttle-increment", "20"),
    )
    assert max(one["throttle_percent"] for one in result["rounds"]) >= 40


def test_the_downtime_ramp_brings_it_home() -> None:
    result = migrate(
        *("--size", "32M", "--method", "zlib", "--dirty-rate", "1G", "--downtime-limit", "20"),
        *("--converge", "downtime-ramp", "--downtime-max", "20000"),
    )
    assert result["verdict"]["downtime_limit_ms"] > 20


def test_policy_qemu_waits_for_ever_where_the_ratio_matters() -> None:
    """A hot set of 10 MB over a wire of 24 MB/s at a ratio of about 3: some 140 ms when compressed,
    which QEMU takes for 400."""
    arguments = (
        *("--size", "64M", "--max-bandwidth", "24M", "--prealloc", "--downtime-limit", "300"),
        *("--dirty-rate", "300M", "--dirty-pattern", "hotspot:1,0.15", "--max-rounds", "8"),
    )
    ours = migrate(*arguments)
    assert ours["traffic"]["compression_ratio"] > 2
    theirs = run(*arguments, "--policy", "qemu", "--json", "-")
    assert theirs.code == 3
    assert len(theirs.result["rounds"]) == 8
    assert "the wire carries" in theirs.errors[0]


@pytest.fixture
def kept() -> Iterator[Kept]:
    before = leftovers()
    guest = Kept(f"test-{os.getpid()}", "--size", "64M", "--dirty-rate", "30M")
    yield guest
    ended = guest.end()
    assert ended.code == 130
    assert ended.err.count("error:") == 1
    assert_clean(guest.process.pid, before)


@pytest.mark.parametrize("log", LOGS)
def test_a_kept_guest_is_migrated_and_runs_on(kept: Kept, log: str) -> None:
    for _ in range(2):
        result = migrate("--attach", kept.name, "--prealloc", "--dirty-log", log)
        assert result["options"]["size_bytes"] == 64 << 20
        assert result["guest"]["state"] == "running"
        slowest = result["guest"]["slowest_second_bytes"]
        assert slowest["after"] is not None
        kept.assert_runs_on()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("phase", ["starting", THROTTLED, "switchover"])
def test_a_run_that_ends_badly_leaves_the_guest_at_full_speed(
    kept: Kept, number: signal.Signals, phase: str
) -> None:
    arguments = {
        "starting": ("--max-bandwidth", "2M"),
        "throttled": ("--max-bandwidth", "12M", "--converge", "throttle", "--downtime-limit", "1"),
        "switchover": ("--max-bandwidth", "8M", "--downtime-limit", "1000000"),
    }[phase]
    running = Run("--attach", kept.name, *arguments)
    running.wait_for(phase)
    time.sleep(0.1)
    os.killpg(running.session, number)
    ended = running.end(timeout=5)
    assert ended.code == (130 if number == signal.SIGINT else -number)
    kept.assert_runs_on()


def test_a_time_out_leaves_the_guest_at_full_speed(kept: Kept) -> None:
    ended = run("--attach", kept.name, "--max-bandwidth", "2M", "--timeout", "1", "--json", "-")
    assert ended.code == 3
    assert ended.result["guest"]["state"] == "running"
    kept.assert_runs_on()


def test_a_killed_kept_guest_ends_the_run_in_one_line(kept: Kept) -> None:
    other = Kept(kept.name + "-other", "--size", "64M")
    running = Run("--attach", other.name, "--max-bandwidth", "2M")
    running.wait_for("starting")
    os.killpg(other.process.pid, signal.SIGKILL)
    ended = running.end(timeout=5)
    other.process.communicate(timeout=5)
    assert ended.code == 1
    assert len(ended.errors) == 1
    assert "is gone" in ended.errors[0]


def test_one_visitor_at_a_time_and_one_guest_of_a_name(kept: Kept) -> None:
    connection = kept.visit()
    ended = run("--attach", kept.name)
    assert ended.code == 2
    assert "busy" in ended.errors[0]
    connection.close()
    second = dirtyrate("--create", kept.name, "--size", "1M")
    assert second.code == 2
    assert "exists already" in second.errors[0]


def test_the_curve_of_a_kept_guest_is_measured(kept: Kept) -> None:
    ended = dirtyrate("--attach", kept.name, "--measure", "--for", "1.2", "--json", "-")
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    points = document["curve"]
    assert [row["seconds"] for row in points] == [0.125, 0.25, 0.5, 1.0]
    medians = [row["pages_median"] for row in points]
    assert medians == sorted(medians)
    assert 0 < medians[0] < medians[-1] <= 16384
    assert document["bytes_per_second_asked"] == 30 << 20
    kept.assert_runs_on()


def test_a_visitor_that_talks_nonsense_is_sent_away(kept: Kept) -> None:
    for nonsense in (b"hello", b"[]", b'{"kind": "throttle"}', b'{"kind": "throttle", "percent": [1]}'):
        connection = kept.visit()
        connection.socket.send(nonsense)
        assert connection.socket.recv(100) == b""
        connection.close()
    kept.assert_runs_on()


def test_a_guest_is_watched_by_one_at_a_time(kept: Kept) -> None:
    with_measure = subprocess.Popen(
        [sys.executable, "-m", "tools.dirtyrate", "--attach", kept.name, "--measure", "--for", "2"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert with_measure.stderr is not None
    for line in with_measure.stderr:
        if "measuring" in line:
            break
    assert run("--attach", kept.name).code == 2
    with_measure.communicate(timeout=10)
    assert with_measure.returncode == 0


def dirtyrate(*arguments: str) -> Ended:
    done = subprocess.run(
        [sys.executable, "-m", "tools.dirtyrate", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def test_a_curve_without_a_name_as_a_table() -> None:
    ended = dirtyrate("--measure", "--for", "0.6", "--size", "32M", "--dirty-pattern", "zipf")
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert "distinct pages" in lines[0]
    assert len([line for line in lines if line.startswith("|")]) == 2 + 3
    assert "bytes/s" in lines[-1]


def test_a_rate_that_cannot_be_held_is_said() -> None:
    ended = dirtyrate(
        "--create", f"fast-{os.getpid()}", "--size", "32M", "--dirty-rate", "1T", "--for", "1.5"
    )
    assert ended.code == 0, ended.err
    assert "cannot hold" in ended.err
    assert "asked for" in ended.out


BAD_USAGE = [
    ((), "--create"),
    (("--create", "a b"), "letters"),
    (("--attach", "x"), "--measure"),
    (("--attach", "x", "--create", "y"), "either"),
    (("--attach", "x", "--measure", "--size", "1G"), "--size"),
    (("--measure", "--for", "0.01"), "0.125"),
    (("--create", "x", "--for", "-1"), "0 or more"),
    (("--create", "x", "--dirty-pattern", "spiral"), "uniform"),
    (("--create", "x", "--dirty-content", "silk"), "corpus"),
    (("--create", "x", "--write-bytes", "5000"), "4096"),
    (("--create", "x", "--preset", "cloud"), "database"),
    (("--create", "x", "--preset", "build", "--dirty-rate", "1M"), "--dirty-rate"),
    (("--create", "x", "--phases", "/no/such.toml"), "No such file"),
    (("--create", "x", "--dirty-log", "paper"), "kernel"),
    (("--attach", "nobody-of-this-name", "--measure"), "no guest named"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD_USAGE)
def test_bad_usage_of_dirtyrate(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_process("tools.dirtyrate", *arguments, "--quiet") == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert words in captured.err


BAD_POLICY = [
    (("--attach", "x", "--size", "1G"), "--size"),
    (("--attach", "bad name"), "letters"),
    (("--policy", "xen"), "guest-rate, qemu"),
    (("--converge", "magic"), "throttle"),
    (("--throttle-initial", "0"), "1 to 99"),
    (("--throttle-max", "100"), "1 to 99"),
    (("--throttle-trigger", "101"), "1 to 100"),
    (("--downtime-max", "10"), "--downtime-limit"),
    (("--verify", "hope"), "invariant"),
    (("--verify", "invariant", "--dirty-pattern", "zipf"), "self-check"),
    (("--dirty-pattern", "zipf:-1"), "EXPONENT"),
    (("--dirty-log", "paper"), "kernel"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD_POLICY)
def test_bad_usage_of_the_policy(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_process("pipeline.cli.run", *arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert words in captured.err


def test_a_guest_that_does_not_check_itself_cannot_be_verified_so(kept: Kept) -> None:
    ended = run("--attach", kept.name, "--verify=invariant")
    assert ended.code == 2
    assert "self-check" in ended.errors[0]
    kept.assert_runs_on()
