"""SIGSTOP for each kind of process in each state, over both transports: the run ends by name, by itself.

A whole job that is stopped (Ctrl-Z) is something else: it goes on later (`test_downtime`).
"""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.runs.test_failures import LONG_DOWNTIME, SLOW
from tests.support.harness import Run, assert_clean, leftovers

QUEUE, TCP = ("--transport", "queue"), ("--transport", "tcp")
KINDS = {
    QUEUE: ("rf guest", "rf channel 1", "rf receiver 0"),
    TCP: ("rf guest", "rf channel 1", "rf control", "rf receiver", "rf receiver 1"),
}
STATES = ("set-up", "round", "switchover", "verification")
LARGE = ("--size", "2G", "--filled", "0.9", "--method", "none", "--preset", "self-check", "--verify", "both")
"""Its verification takes a second and more: that of the guest's invariant is by one thread."""

QUICK = {(QUEUE, "rf channel 1", "round"), (TCP, "rf channel 1", "round"), (QUEUE, "rf guest", "switchover")}
"""The rest of the matrix is for CI."""


def matrix() -> list[object]:
    """All of it, each with what it takes."""
    return [
        pytest.param(
            transport,
            kind,
            state,
            marks=() if (transport, kind, state) in QUICK else pytest.mark.long,
            id=f"{transport[1]}-{kind}-{state}",
        )
        for transport, kinds in KINDS.items()
        for kind in kinds
        for state in STATES
    ]


def stop_in(state: str, kind: str, transport: tuple[str, str]) -> Run:
    """A run in which one process stands still since it was in a state."""
    options = {"switchover": LONG_DOWNTIME, "verification": LARGE}.get(state, SLOW)
    running = Run(*options, *transport, *(("--prealloc",) if state == "set-up" else ()))
    if state == "set-up":
        victim = running.one(kind)
    else:
        running.wait_for({"round": "starting", "switchover": "switchover"}.get(state, "round 1"))
        if state == "verification" and not running.pids(kind):
            return running  # it had done its part, and has ended
        victim = running.one(kind)
        if state == "round":
            time.sleep(0.5)
        elif state == "verification":
            running.wait_for("checking the copy")
    try:
        os.kill(victim, signal.SIGSTOP)
    except ProcessLookupError:
        assert state == "verification"  # it had done its part, and has ended
    return running


@pytest.mark.parametrize(("transport", "kind", "state"), matrix())
def test_a_stopped_process_ends_the_run_by_name(transport: tuple[str, str], kind: str, state: str) -> None:
    before = leftovers()
    running = stop_in(state, kind, transport)
    ended = running.end(40)
    assert "Traceback" not in ended.err
    assert_clean(running.session, before)
    if ended.code == 0:
        # What was stopped had no part in what was left: another one did it, and the copy is whole.
        assert "completed, verified" in ended.out
        return
    assert ended.code == 1 and len(ended.errors) == 1, ended.err
    assert kind.removeprefix("rf ").split()[0] in ended.errors[0] or "recv side" in ended.errors[0]
