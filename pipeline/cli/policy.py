"""The part of a command line about when to stop: policy, limits, help for a guest that writes too fast."""

from __future__ import annotations

import argparse
import math

from pipeline.cli.values import Given
from pipeline.errors import UsageError
from pipeline.options import DOWNTIME_RAMP_FACTOR, MAX_DOWNTIME_LIMIT_MS
from pipeline.policy import CONVERGE, OWN_POLICY, POLICIES, PolicySettings

DEFAULTS = PolicySettings()
THROTTLE = (
    ("trigger", "per cent of the bytes moved that the guest must dirty in a round, 1 to 100", 100),
    ("initial", "per cent of its speed taken at first, 1 to 99", 99),
    ("increment", "per cent more at each further step, 1 to 99", 99),
    ("max", "per cent at most, 1 to 99", 99),
)
RENAMED = {"ferry": OWN_POLICY}


def add_policy_arguments(parser: argparse.ArgumentParser) -> None:
    """When to go on, when to switch over, when to give up."""
    add = parser.add_argument_group("when to stop").add_argument
    add(
        "--policy",
        metavar="NAME",
        help=f"{OWN_POLICY} (compares guest bytes with the rate of guest bytes) or qemu (compares them with "
        f"wire bandwidth, as QEMU does) (default {DEFAULTS.policy})",
    )
    add(
        "--max-bandwidth",
        metavar="RATE",
        help="wire bytes per second over all channels, 0 is no limit (default 0)",
    )
    add(
        "--downtime-limit",
        metavar="MS",
        help="milliseconds that the guest may stand still at switchover "
        f"(default {DEFAULTS.downtime_limit_ms:g})",
    )
    add(
        "--max-rounds",
        metavar="N",
        help="rounds with the guest running, then exit code 3; 0 is no limit "
        f"(default {DEFAULTS.max_rounds})",
    )
    add(
        "--timeout",
        metavar="SECONDS",
        help="seconds from the first packet, then exit code 3; 0 is no limit (default 0)",
    )
    add(
        "--converge",
        metavar="HOW",
        help="what to do for a guest that writes too fast: none (end with exit code 3), throttle (slow "
        f"it down), downtime-ramp (allow a longer downtime, step by step) (default {DEFAULTS.converge})",
    )
    for name, what, _ in THROTTLE:
        default = getattr(DEFAULTS, f"throttle_{name}")
        add(f"--throttle-{name}", metavar="PERCENT", help=f"{what} (default {default}, as QEMU's)")
    add(
        "--downtime-max",
        metavar="MS",
        help="milliseconds that downtime-ramp may go up to "
        f"(default {DOWNTIME_RAMP_FACTOR:g} times --downtime-limit)",
    )


def read_policy(given: Given) -> PolicySettings:
    """Raises UsageError, also for an option that does not apply to the policy."""
    wanted = given.text("policy")
    if wanted in RENAMED:
        raise UsageError(f"--policy {wanted}: is now called {RENAMED[wanted]}")
    policy = given.choice("policy", tuple(POLICIES), DEFAULTS.policy)
    converge = given.choice("converge", CONVERGE, DEFAULTS.converge)
    limit = given.above_zero("downtime_limit", MAX_DOWNTIME_LIMIT_MS, "ms", DEFAULTS.downtime_limit_ms)
    longest = given.above_zero("downtime_max", MAX_DOWNTIME_LIMIT_MS, "ms", limit * DOWNTIME_RAMP_FACTOR)
    if longest < limit:
        raise UsageError(f"--downtime-max {longest:g}: must be at least --downtime-limit, {limit:g} ms")
    throttle = {
        f"throttle_{name}": given.whole(f"throttle_{name}", 1, most, getattr(DEFAULTS, f"throttle_{name}"))
        for name, _, most in THROTTLE
    }
    if throttle["throttle_initial"] > throttle["throttle_max"]:
        raise UsageError(
            f"--throttle-initial {throttle['throttle_initial']}: must be at most --throttle-max, "
            f"{throttle['throttle_max']}"
        )
    if converge != "throttle":
        given.refuse((f"throttle_{name}" for name, _, _ in THROTTLE), "is for --converge throttle")
    if converge != "downtime-ramp":
        given.refuse(("downtime_max",), "is for --converge downtime-ramp")
    elif policy != OWN_POLICY:
        raise UsageError(f"--converge downtime-ramp: is for --policy {OWN_POLICY}")
    return PolicySettings(
        policy=policy,
        downtime_limit_ms=limit,
        downtime_max_ms=longest,
        max_rounds=given.whole("max_rounds", 0, 10**9, DEFAULTS.max_rounds),
        converge=converge,
        **throttle,
    )


def read_max_bandwidth(given: Given) -> int:
    """Wire bytes per second, 0 without a limit. Raises UsageError."""
    return given.rate("max_bandwidth")


def read_timeout(given: Given) -> float:
    """Seconds, 0 without a limit. Raises UsageError."""
    return given.number("timeout", 0, math.inf, "seconds", 0.0)
