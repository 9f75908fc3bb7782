"""Forecasts held to their word: runs of several guests, methods and links, each forecast before it."""

from __future__ import annotations

from itertools import product
from typing import Any

from pipeline.forecast.score import errors_of
from tools.bench.request import BenchRequest, here
from tools.forecast.errors_table import errors_table
from tools.measuring.progress import say
from tools.measuring.trial import run_ours

GUESTS = {
    "idle": ("--dirty-rate", "0"),
    "idle-desktop": ("--preset", "idle-desktop"),
    "database": ("--preset", "database"),
    "build": ("--preset", "build"),
    "16 MiB/s": ("--dirty-rate", "16M"),
}
EDGE_METHOD, EDGE_LINK = "zstd", "25M"
EDGE_RATES = ("40M", "48M", "56M", "64M", "72M", "80M")
"""About what zstd 1 carries over EDGE_LINK of what a guest writes: some converge, some do not."""

METHODS = ("none", "isal", "zstd", "auto")
LINKS = ("25M", "125M", "0")
KEPT = ("status", "forecast", "score")
TIMEOUT_SECONDS = "60"


def measure(request: BenchRequest) -> dict[str, Any]:
    """Every guest by every method over every link, in turn. Raises FerryError."""
    methods = [name for name in request.methods or METHODS if name == "auto" or here(name)]
    cases = [
        (f"{guest}, {method}, {link}", options, method, link)
        for (guest, options), method, link in product(GUESTS.items(), methods, request.bandwidths or LINKS)
    ]
    cases += [
        (f"{rate}/s, {EDGE_METHOD}, {EDGE_LINK}", ("--dirty-rate", rate), EDGE_METHOD, EDGE_LINK)
        for rate in EDGE_RATES
    ]
    found = []
    for turn in range(1, request.repeat + 1):
        say(f"turn {turn} of {request.repeat}")
        for name, options, method, link in cases:
            result = _run(request, options, method, link)
            found.append({"case": name, **{key: result[key] for key in KEPT}})
            score = result["score"].get("total_ms")
            say(f"  {name}: " + (f"{score['error']:+.0%}" if score else result["status"]))
    return {"results": found, "size_bytes": request.ram.size_bytes}


def _run(request: BenchRequest, options: tuple[str, ...], method: str, link: str) -> dict[str, Any]:
    arguments = [
        *(*request.ram_arguments(), *options, "--method", method, "--channels", str(request.channels)),
        *("--max-bandwidth", link, "--prealloc", "--forecast", "--timeout", TIMEOUT_SECONDS),
    ]
    return run_ours(arguments, may_not_converge=True).result


def tables(document: dict[str, Any]) -> str:
    """The errors by quantity, the chance to converge, and the worst cases."""
    results = document["results"]
    errors, brier, always = errors_of(results)
    scored = [one for one in results if one["score"].get("total_ms")]
    worst = sorted(scored, key=lambda one: -abs(one["score"]["total_ms"]["error"]))[:6]
    lines = [f"- {one['case']}: total {one['score']['total_ms']['error']:+.0%}" for one in worst]
    wrong = [
        f"- {one['case']}: {one['score']['chance_to_converge']:.0%} of the draws converged; {one['status']}"
        for one in results
        if abs(one["score"]["chance_to_converge"] - one["score"]["converged"]) > 0.5
    ]
    stuck = sum(not one["score"]["converged"] for one in results)
    return "\n".join(
        [
            errors_table(errors),
            "",
            f"Chance to converge: Brier score {brier:.3f}, always yes {always:.3f}; "
            f"{stuck} of {len(results)} runs did not converge.",
            "",
            "Farthest off:",
            *lines,
            *(["", "Convergence foreseen wrongly:", *wrong] if wrong else []),
        ]
    )
