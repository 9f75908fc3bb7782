"""What the coordinator does while the guest stands: each line that holds it is watched by a test here.

The product runs as a user starts it, with one thing made slow or loud in the process.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.harness import ROOT, Run
from tests.support.two_hosts import proxy, receiver, send

START = "from pipeline.cli.main import execute; sys.exit(execute('pipeline.cli.run', sys.argv[1:]))"
LIVE = ("--size", "32M", "--dirty-rate", "16M", "--method", "zstd", "--json", "-")


def run_with(change: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A run in which `change` (Python) was done first."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys, time\n{change}\n{START}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


SLOW_SYNC = """
from guestmem.dirty_log.shared import SharedDirtyLog
sync = SharedDirtyLog.sync
SharedDirtyLog.sync = lambda self, into: (time.sleep(0.4), sync(self, into))[1]
"""


def test_a_sync_that_takes_longer_than_the_limit_is_expected_to() -> None:
    """Without the measured time of a sync the few pages would fit, and the guest would stand for 400 ms."""
    ended = run_with(SLOW_SYNC, *LIVE, "--dirty-log", "shared", "--max-rounds", "3")
    assert ended.returncode == 3, ended.stderr
    assert "switchover: the guest is paused" not in ended.stderr


LOUD_COUNT = """
from guestmem.dirty_log.shared import SharedDirtyLog
count = SharedDirtyLog.count
SharedDirtyLog.count = lambda self: (print("COUNTED", file=sys.stderr, flush=True), count(self))[1]
"""


def test_dirty_pages_are_not_counted_while_the_guest_stands() -> None:
    ended = run_with(LOUD_COUNT, *LIVE, "--dirty-log", "shared", "--max-bandwidth", "64M")
    assert ended.returncode == 0, ended.stderr
    before, _, standing = ended.stderr.partition("switchover: the guest is paused")
    standing, _, _ = standing.partition("switchover: ")
    assert "COUNTED" in before and "COUNTED" not in standing


SLEPT_AT_HAND_OVER = """
from pipeline import migration
from pipeline.source import guest_client
guest_client.LEASE_SECONDS = 0.5
hand_over, slept = migration.Migration._hand_over, []
def sleeping(self):
    if not slept:
        slept.append(time.sleep(1.0))
    return hand_over(self)
migration.Migration._hand_over = sleeping
"""


def test_the_guests_own_word_decides_whether_it_stood_still() -> None:
    """Its lease ran out between the last page and the hand-over: it ran, and that copy is of two moments."""
    ended = run_with(SLEPT_AT_HAND_OVER, *LIVE, "--dirty-log", "shared", "--downtime-limit", "100000")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("switchover: the guest is paused") == 2


@pytest.mark.parametrize("method", ["none", "zstd"])
def test_what_a_broken_connection_lost_while_the_guest_stood_goes_again(method: str) -> None:
    guest = ("--size", "32M", "--dirty-rate", "64M", "--method", method)
    paced = ("--max-bandwidth", "8M", "--downtime-limit", "60000", "--json", "-")
    with receiver() as here, proxy(here.port) as network:
        running: Run = send(network.address, *guest, *paced)
        running.wait_for("switchover: the guest is paused")
        for pipe in network.pipes[1:]:
            pipe.cut(reset=True)
        ended = running.end()
        assert ended.code == 0, ended.err
        result = ended.result
        assert result["verified"] is True and result["transport"]["reconnections"] >= 1
        assert sum(one["paused"] for one in result["rounds"]) >= 2
        assert here.end().code == 0
