"""How commands end when they do not end well: one line, the exit code, the document, the traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import ROOT, Run, run
from tests.support.two_hosts import certificates, receiver, sent

SMALL = ("--size", "16M", "--dirty-rate", "0")
NO_LIBRARY = {"QATZIP_LIBRARY": "/nowhere/libqatzip.so.3"}


def document(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text())
    assert isinstance(found, dict)
    return found


def test_a_method_that_cannot_be_had_leaves_a_document(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    ended = run(
        *SMALL, "--method", "qatzip", "--no-qat-fallback", "--json", str(path), environment=NO_LIBRARY
    )
    assert ended.code == 2
    assert len(ended.errors) == 1 and "Traceback" not in ended.err
    result = document(path)
    assert (result["status"], result["schema_version"]) == ("failed", 2)
    assert ended.errors[0] == f"error: {result['error']}"
    assert "HostError" in result["traceback"]


def test_a_workers_traceback_crosses_the_border(tmp_path: Path) -> None:
    """An image that shrinks while the guest reads it: the guest's process fails, in a place we can read."""
    image = tmp_path / "image"
    image.write_bytes(bytes(64 << 20))
    path = tmp_path / "run.json"
    program = (
        "import os, sys; from guestmem import content; "
        "real = content.Image.fill; "
        "cut = lambda self: os.truncate(self.path, 1 << 20); "
        "content.Image.fill = lambda self, ram, *more: (cut(self), real(self, ram, *more)); "
        "from pipeline.cli.main import execute; sys.exit(execute('pipeline.cli.run', sys.argv[1:]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, "--image", str(image), "--quiet", "--debug", "--json", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    result = document(path)
    assert "in fill" in result["traceback"] and "guestmem/content.py" in result["traceback"]
    assert "in fill" in ended.stderr, "--debug prints it"
    assert ended.stderr.strip().splitlines()[-1].startswith(f"error: --image {image} holds fewer than the ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("send", "--to", "[fe80::1%nosuch]:7000", "--insecure"), "no interface nosuch"),
        (("send", "--to", "[fe80::1]:7000", "--insecure"), "say on which interface"),
        (("send", "--to", "[1:2:3]:7000", "--insecure"), "no IPv6 address"),
        (("recv", "--listen", "[fe80::1%99]:0", "--insecure"), "no interface 99"),
        (("recv", "--listen", "127.0.0.1:0", "--insecure", "--output", "/proc/copy"), "no file can be made"),
        (("recv", "--listen", "127.0.0.1:0", "--insecure", "--output", "/dev/stdout"), "is an open stream"),
        (("run", "--json", "/dev/fd/1"), "is an open stream"),
        (("run", "--json", "/sys/kernel/mm/ksm/run"), "no file can be made there"),
    ],
)
def test_what_cannot_be_is_told_at_once(arguments: tuple[str, ...], words: str) -> None:
    command, *rest = arguments
    ended = Run(*rest, module=f"pipeline.{command}").end(10)
    assert ended.code == 2
    assert ended.err.count("\n") == 1 and words in ended.errors[0]


def test_a_result_that_nobody_takes_is_a_failure_with_a_line() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "pipeline.run", *SMALL, "--quiet"]
    ended = subprocess.run(
        command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, "error: standard output is closed: nobody reads it\n")


@pytest.mark.parametrize(("arguments", "environment"), [(("--debug",), {}), ((), {"RAMFERRY_DEBUG": "1"})])
def test_debug_logs_and_prints_tracebacks(arguments: tuple[str, ...], environment: dict[str, str]) -> None:
    ended = run("--attach", "nobody-of-this-name", *arguments, environment=environment)
    assert ended.code == 2
    assert "Traceback" in ended.err and "NoSuchGuest" in ended.err
    assert len(ended.errors) == 1
    ended = run(*SMALL, *arguments, environment=environment)
    assert ended.code == 0
    assert "ramferry.processes: started source side: guest" in ended.err


def test_without_debug_nothing_is_logged() -> None:
    ended = run(*SMALL, "--method", "qatzip", "--quiet", environment=NO_LIBRARY)
    assert ended.code == 0
    assert ended.err == ""


class TestSeveralMethods:
    def test_one_document_with_the_documents_of_all(self, tmp_path: Path) -> None:
        path = tmp_path / "runs.json"
        ended = run(*SMALL, "--method", "none,zstd:3,auto", "--max-bandwidth", "64M", "--json", str(path))
        assert ended.code == 0, ended.err
        result = document(path)
        assert result["status"] == "completed"
        assert [one["options"]["method"] for one in result["runs"]] == ["none", "zstd", "auto"]
        assert all(one["verified"] for one in result["runs"])
        rows = [line for line in ended.out.splitlines() if line.startswith("| ")]
        assert [row.split("|")[1].strip() for row in rows[2:]] == ["none", "zstd 3", "auto"]
        assert "* the best of its column" in ended.out
        learnt, following = ended.out.strip().splitlines()[-2:]
        assert learnt.startswith("Learnt: ") and following.startswith("Next: ")

    def test_the_exit_code_is_that_of_the_first_that_failed(self, tmp_path: Path) -> None:
        path = tmp_path / "runs.json"
        listed = ("--method", "none,qatzip,zstd", "--no-qat-fallback", "--json", str(path))
        ended = run(*SMALL, *listed, environment=NO_LIBRARY)
        assert ended.code == 2
        statuses = [one["status"] for one in document(path)["runs"]]
        assert statuses == ["completed", "failed", "completed"]
        assert len(ended.errors) == 1
        assert "| zstd 1" in ended.out

    def test_not_converged_counts_only_when_none_completed(self) -> None:
        wild = ("--size", "32M", "--dirty-rate", "200M", "--max-bandwidth", "8M", "--downtime-limit", "20")
        assert run(*wild, "--method", "none,lz4", "--max-rounds", "2").code == 3

    def test_ctrl_c_ends_all_of_them(self) -> None:
        running = Run("--size", "64M", "--method", "none,zstd", "--max-bandwidth", "8M")
        running.wait_for("starting 2 channels")
        os.kill(running.process.pid, signal.SIGINT)
        ended = running.end(10)
        assert ended.code == 130
        assert "run 2/2" not in ended.err

    def test_debug_prints_the_traceback_of_one_that_fails(self) -> None:
        ended = run("--size", "900G", "--method", "none,zstd", "--debug")
        assert ended.code == 2 and "Traceback" in ended.err

    def test_what_was_not_measured_is_no_figure(self, tmp_path: Path) -> None:
        path = tmp_path / "runs.json"
        listed = ("--method", "none,qatzip", "--no-qat-fallback", "--json", str(path))
        ended = run(*SMALL, *listed, environment=NO_LIBRARY)
        failed = next(line for line in ended.out.splitlines() if line.startswith("| qatzip"))
        assert [cell.strip() for cell in failed.split("|")[3:-1]] == ["-"] * 7
        result = document(path)
        assert result["runs"][1]["send"]["cpu_percent"] is None and "HostError" in result["traceback"]
        assert "1 of 2 runs completed, verified byte for byte" in ended.out

    def test_nothing_is_learnt_of_what_could_not_run(self) -> None:
        ended = run("--attach", "nobody-of-this-name", "--method", "none,zstd")
        assert ended.code == 2 and "Learnt" not in ended.out and "Next" not in ended.out


class TestADocumentThatWasAskedFor:
    """It is there however the command ends, once the command line has been read."""

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        path = tmp_path / "run.json"
        ended = run("--image", "/no/such/image", "--json", str(path))
        assert ended.code == 2
        assert document(path)["error"] == "--image /no/such/image: no such file"

    @pytest.mark.parametrize("wait_seconds", [0.0, 0.05, 0.1, 0.2])
    def test_a_signal_while_it_starts(self, tmp_path: Path, wait_seconds: float) -> None:
        path = tmp_path / "run.json"
        # What it says first comes when the signals are caught, and before anything heavy is loaded.
        program = (
            "import sys, pipeline.cli.main as main; real = main.importlib.import_module; "
            "main.importlib.import_module = lambda name: (print('loading', flush=True), real(name))[1]; "
            "sys.exit(main.execute('pipeline.cli.run', sys.argv[1:]))"
        )
        command = [sys.executable, "-c", program, "--size", "64M", "--json", str(path), "--quiet"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(wait_seconds)
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=20)
        assert (process.returncode, said) == (130, b"error: cancelled by SIGTERM\n")
        assert document(path)["status"] == "cancelled"


class TestStandardStreamsThatAreClosed:
    """As those of a daemon are."""

    def start(self, redirected: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        line = f'exec "$@" {redirected}'
        command = ["bash", "-c", line, "start", sys.executable, "-m", "tools.ramferry", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    def test_all_of_them(self, tmp_path: Path) -> None:
        path = tmp_path / "run.json"
        assert self.start("<&- >&- 2>&-", "run", *SMALL, "--json", str(path)).returncode == 1
        assert document(path)["verified"] is True, "the table could not be written; the document was"
        assert self.start("<&- 2>&-", "run", *SMALL, "--json", str(path)).returncode == 0

    @pytest.mark.parametrize(
        "arguments", [("--help",), ("--version",), ("run", *SMALL, "--quiet"), ("doctor", "--json", "-")]
    )
    @pytest.mark.parametrize("where", [">&-", ">/dev/full"])
    def test_a_result_that_cannot_be_written_is_an_error(
        self, where: str, arguments: tuple[str, ...]
    ) -> None:
        ended = self.start(where, *arguments)
        assert ended.returncode == 1
        assert ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1

    def test_a_reader_that_leaves(self) -> None:
        ended = self.start("| true", "--help")
        assert "Traceback" not in ended.stderr


class TestAPeerThatRefuses:
    def test_ram_that_does_not_fit(self) -> None:
        with receiver("--max-size", "8M") as here:
            ended = sent(here.address, *SMALL)
            assert ended.code == 4
            assert "that the receiver has" in ended.errors[0]
            here.run.wait_for("the run does not fit: RAM of 16M is more than the 8M that the receiver has")

    def test_a_certificate_of_another_authority(self, tmp_path: Path) -> None:
        ours = certificates(tmp_path / "ours", "127.0.0.1")
        theirs = certificates(tmp_path / "theirs", "127.0.0.1")
        with receiver("--tls-dir", str(theirs)) as here:
            ended = sent(here.address, *SMALL, "--tls-dir", str(ours), "--reconnect", "1")
            assert ended.code == 4, ended.err

    def test_nobody_there_is_no_refusal(self) -> None:
        ended = sent("127.0.0.1:9", *SMALL, "--reconnect", "0.2")
        assert ended.code == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_cleanly(number: signal.Signals) -> None:
    running = Run("--size", "64M", "--max-bandwidth", "8M")
    running.wait_for("starting 2 channels")
    os.kill(running.process.pid, number)
    ended = running.end(10)
    assert ended.code == 130
    assert ended.errors == [f"error: cancelled by {number.name}"]


def test_a_hangup_that_was_ignored_at_the_start_stays_ignored() -> None:
    running = Run("--size", "32M", "--max-bandwidth", "16M", "--dirty-rate", "0", prefix=("nohup",))
    running.wait_for("starting 2 channels")
    time.sleep(0.2)
    os.kill(running.process.pid, signal.SIGHUP)
    assert running.end(20).code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 0, "usage: ramferry COMMAND"),
        (("--version",), 0, "ramferry 0."),
        (("no-such",), 2, "no such command"),
        (("run", "--help"), 0, "usage: ramferry run"),
        (("run", "--channels", "0"), 2, "1 to 64"),
        (("doctor", "--help"), 0, "usage: ramferry doctor"),
        (("qat-throughput", "--help"), 0, "usage: ramferry qat-throughput"),
        (("compare", "--help"), 0, "SCENARIO"),
        (("emulator", "--help"), 0, "usage: ramferry emulator"),
        (("emulator", "--version"), 0, "ramferry 0."),
        (("emulator", "--bogus"), 2, "error: unrecognized arguments: --bogus (see --help)\n"),
        (("no\nsuch\x1b[31m",), 2, "error: no such\\x1b[31m: no such command"),
    ],
)
def test_one_name_for_all_commands(arguments: tuple[str, ...], code: int, words: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tools.ramferry", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == code
    assert words in ended.stdout + ended.stderr


def test_a_version_needs_nothing_heavy() -> None:
    """`ramferry --help` imports neither numpy nor a command."""
    program = (
        "import sys; from tools.ramferry import dispatch; dispatch(['--help']); print(sorted(sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    for module in ("numpy", "rich", "pipeline.cli.run"):
        assert f"'{module}'" not in ended.stdout
