"""Sections on guests that write: a dirty curve, convergence, and two policies."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from guestmem.units import show_rate
from pipeline.errors import RunFailed
from pipeline.policy import POLICIES
from pipeline.processes.command import run_command
from pipeline.report.markdown import table
from tools import dirtyrate
from tools.bench.docs.section import Section
from tools.bench.request import BenchRequest
from tools.measuring.columns import spread_of
from tools.measuring.progress import say
from tools.measuring.sizes import size_argument
from tools.measuring.spread import Spread
from tools.measuring.trial import TIMEOUT_SECONDS, command_of, run_ours
from tools.measuring.turns import Results, in_turn

METHOD = "zstd"
CURVE_SECONDS = 10
PRESET = "database"
SHARES = (0.25, 0.5, 0.75, 1.5)
PATTERNS = ("uniform", "hotspot:0.9,0.05", "zipf:0.99")
RUN_SECONDS = 120
POLICY_BANDWIDTH = "60M"
POLICY_GUESTS = (("uniform", "64M"), ("hotspot:0.9,0.05", "128M"), ("hotspot:1,0.03", "256M"))


def _measure_curve(request: BenchRequest) -> dict[str, Any]:
    fill = [] if request.ram.fill is None else ["--fill", request.ram.fill]
    size = ["--size", size_argument(request.ram.size_bytes)]
    command = command_of("tools.dirtyrate", "--measure", "--preset", PRESET, "--for", str(CURVE_SECONDS))
    command += [*size, *fill, "--quiet", "--json", "-"]
    say(f"a guest of preset {PRESET} for {CURVE_SECONDS} s")
    ended = run_command(command, TIMEOUT_SECONDS)
    if ended.returncode:
        raise RunFailed(f"tools.dirtyrate: {(ended.stderr.strip().splitlines() or ['it failed'])[-1]}")
    return {"curve": json.loads(ended.stdout)}


def _curve_tables(document: dict[str, Any]) -> str:
    return f"Guest of {size_argument(document['guest_bytes'])}.\n\n{dirtyrate.render(document['curve'])}"


def _arguments(request: BenchRequest, pattern: str, rate: str) -> list[str]:
    return [
        *request.ram_arguments(),
        *("--prealloc", "--method", METHOD, "--channels", str(request.channels)),
        *("--dirty-pattern", pattern, "--dirty-rate", rate, "--timeout", str(RUN_SECONDS)),
    ]


def _writing(request: BenchRequest, pattern: str, rate: str, *more: str) -> dict[str, Any]:
    return run_ours([*_arguments(request, pattern, rate), *more], may_not_converge=True).result


def _measure_convergence(request: BenchRequest) -> dict[str, Any]:
    idle = in_turn(request.repeat, {"idle": partial(_writing, request, "uniform", "0")})["idle"]
    speed = spread_of(idle, "traffic", "guest_megabytes_per_second").median * 1e6
    rates = {share: str(int(speed * share)) for share in SHARES}
    runs = {
        f"{share:.0%} {pattern}": partial(_writing, request, pattern, rate)
        for share, rate in rates.items()
        for pattern in PATTERNS
    }
    return {
        "guest_bytes_per_second": speed,
        "rates": {f"{share:.0%}": rate for share, rate in rates.items()},
        "results": in_turn(request.repeat, runs),
    }


def _convergence_tables(document: dict[str, Any]) -> str:
    rows = [["dirty rate", "MB/s", "pattern", "rounds", "total s", "downtime ms", "converged"]]
    for name, results in document["results"].items():
        share, pattern = name.split(" ", 1)
        rows.append([share, f"{int(document['rates'][share]) / 1e6:.0f}", pattern, *_outcome(results)])
    speed = document["guest_bytes_per_second"] / 1e6
    return (
        f"{table(rows)}\n\nGuest of {size_argument(document['guest_bytes'])}, {METHOD}; an idle guest moves "
        f"at {speed:.0f} MB/s of guest bytes, and the dirty rate is a share of that."
    )


def _outcome(results: list[dict[str, Any]]) -> list[str]:
    """Rounds, total s, downtime ms, and how many runs converged."""
    ended = [result for result in results if result["status"] == "completed"]
    rounds = Spread(tuple(float(len(result["rounds"])) for result in results))
    seconds = Spread(tuple(result["time"]["total_ms"] / 1e3 for result in results))
    downtime = spread_of(ended, "time", "downtime_ms").show() if ended else "-"
    return [rounds.show(), seconds.show(1), downtime, f"{len(ended)} of {len(results)}"]


def _measure_policies(request: BenchRequest) -> dict[str, Any]:
    runs = {
        f"{pattern} {rate} {policy}": partial(
            _writing, request, pattern, rate, "--policy", policy, "--max-bandwidth", POLICY_BANDWIDTH
        )
        for pattern, rate in POLICY_GUESTS
        for policy in POLICIES
    }
    return {"results": in_turn(request.repeat, runs)}


def _policy_tables(document: dict[str, Any]) -> str:
    results: Results = document["results"]
    rows = [["guest writes", "pattern", "policy", "rounds", "total s", "downtime ms", "converged", "wire MB"]]
    for name, found in results.items():
        pattern, rate, policy = name.split()
        wire = Spread(tuple(result["traffic"]["wire_bytes"] / 1e6 for result in found))
        rows.append([show_rate(rate), pattern, policy, *_outcome(found), wire.show()])
    limit_ms = next(iter(results.values()))[0]["options"]["downtime_limit_ms"]
    return (
        f"{table(rows)}\n\nGuest of {size_argument(document['guest_bytes'])}, {METHOD}, a wire of "
        f"{show_rate(POLICY_BANDWIDTH)}, a downtime limit of {limit_ms:g} ms."
    )


SECTIONS = (
    Section(
        "dirty-curve",
        "A dirty curve",
        f"The number of distinct pages that a guest of `--preset {PRESET}` writes within a time, since a "
        "moment when none was dirty. The curve, not the rate, decides how large the next round is.",
        _measure_curve,
        _curve_tables,
    ),
    Section(
        "convergence",
        "Which guests converge",
        "The guest writes while it is migrated. A run that sees no end stops by itself; the guest then runs "
        "on at the source.",
        _measure_convergence,
        _convergence_tables,
        share=0.5,
    ),
    Section(
        "policies",
        "Two policies",
        "When to switch over: `guest-rate` compares the bytes of dirty pages with the measured rate of guest "
        "bytes, `qemu` compares them with the bandwidth of the wire, as QEMU does. An earlier switchover "
        "means a longer downtime, within the limit.",
        _measure_policies,
        _policy_tables,
        share=0.5,
    ),
)
