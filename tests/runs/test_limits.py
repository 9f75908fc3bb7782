"""Limits of the host: each is named in one line, with what to do, before anything is half done."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys

import pytest

from tests.support.harness import Ended, Run, assert_clean, leftovers

SMALL = ("--size", "16M", "--dirty-rate", "0", "--method", "zstd", "--quiet")


def limited(setting: str, *arguments: str) -> Ended:
    """A run in a shell that sets a limit first; nothing may be left."""
    before = leftovers()
    running = Run(*SMALL, *arguments, prefix=("bash", "-c", f'{setting}; exec "$@"', "limits"))
    ended = running.end(30)
    assert_clean(running.session, before)
    return ended


@pytest.mark.parametrize(
    ("setting", "arguments", "words"),
    [
        ("ulimit -n 12", (), "ulimit -n"),
        ("ulimit -n 20", (), "ulimit -n"),
        ("ulimit -n 30", (), "ulimit -n"),
        ("ulimit -f 100", (), "ulimit -f"),
        ("ulimit -v 100000", (), "ulimit -v"),
        ("ulimit -v 150000", (), "ulimit -v"),
        ("ulimit -d 30000", (), "ulimit -d"),
    ],
)
def test_a_limit_is_named(setting: str, arguments: tuple[str, ...], words: str) -> None:
    ended = limited(setting, *arguments)
    assert ended.code == 2, ended.err
    assert ended.err.count("\n") == 1
    assert words in ended.err and "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("mount -t tmpfs -o ro none /dev/shm", "read-only"),
        ("mount -t tmpfs -o size=8M none /dev/shm", "not enough shared memory"),
        ("umount -l /proc", "/proc is not mounted"),
        ("mount -t tmpfs -o nr_inodes=1 none /dev/shm", "no inodes left"),
        ("mount -t tmpfs -o mode=0755,uid=4242 none /dev/shm", "mode 0755 and belongs to user 4242"),
    ],
)
@pytest.mark.parametrize("command", ["run", "recv"])
def test_a_place_that_cannot_be_used_is_named(setting: str, words: str, command: str) -> None:
    """A receiver says so when it starts, not when somebody has come to send."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("mounts of one's own need root and unshare")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here")
    if command == "recv" and "size=8M" in setting:
        pytest.skip("how much a sender wants is not known when a receiver starts")
    # Without this capability root is held by modes as everybody is.
    held = "setpriv --bounding-set=-dac_override,-dac_read_search --inh-caps=-dac_override,-dac_read_search"
    prefix = ("unshare", "-m", "bash", "-c", f'{setting} && exec {held} "$@"', "limits")
    arguments = SMALL if command == "run" else ("--listen", "127.0.0.1:0", "--insecure")
    ended = Run(*arguments, module=f"pipeline.{command}", prefix=prefix).end(30)
    assert ended.code == 2, ended.err
    assert len(ended.errors) == 1 and ended.err.splitlines()[-1] == ended.errors[0]
    assert words in ended.err


SANDBOXES = {
    "madvise": "",
    "sched_setscheduler,sched_getaffinity": "",
    "pidfd_send_signal": "",
    "pidfd_open": "pidfd_open is refused",
}
"""Calls that a seccomp profile may forbid, and what is said of it; nothing where the run goes on."""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter names calls by x86_64's numbers")
@pytest.mark.parametrize("number", ["EPERM", "ENOSYS"])
@pytest.mark.parametrize("calls", SANDBOXES)
def test_a_sandbox_is_told_by_what_it_forbids(calls: str, number: str) -> None:
    before = leftovers()
    prefix = (sys.executable, "-m", "tests.support.sandbox", number, calls, "--")
    running = Run(*SMALL, "--prealloc", prefix=prefix)
    ended = running.end(30)
    assert_clean(running.session, before)
    if not SANDBOXES[calls]:
        assert ended.code == 0, ended.err
        return
    assert ended.code == 2
    assert ended.err.count("\n") == 1 and SANDBOXES[calls] in ended.err


class TestOutputOnlyForEyes:
    def test_progress_that_cannot_be_written_fails_nothing(self) -> None:
        running = Run(*SMALL[:-1], prefix=("bash", "-c", 'exec "$@" 2>/dev/full', "eyes"))
        ended = running.end()
        assert ended.code == 0
        assert "completed" in ended.out

    def test_a_reader_that_stands_still_holds_nothing_up(self) -> None:
        """Standard error is a pipe that is full and that nobody reads."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        try:
            while True:
                os.write(writing, b"x" * 65536)
        except BlockingIOError:
            pass
        os.set_blocking(writing, True)
        running = Run(
            *SMALL[:-1], prefix=("bash", "-c", f'exec "$@" 2>&{writing}', "eyes"), pass_fds=(writing,)
        )
        ended = running.end(20)
        os.close(reading)
        os.close(writing)
        assert ended.code == 0

    @pytest.mark.parametrize("more", [(), ("--json", "-")])
    def test_a_result_that_cannot_be_written_is_a_failure(self, more: tuple[str, ...]) -> None:
        running = Run(*SMALL, *more, prefix=("bash", "-c", 'exec "$@" >/dev/full', "eyes"))
        ended = running.end()
        assert ended.code == 1
        assert ended.err.count("\n") == 1 and "No space left" in ended.err
