"""Forecasts held to their word: runs of several guests, methods and links, each forecast before it."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from guestmem.page import PAGE_BYTES
from pipeline.forecast.score import errors_of
from pipeline.report.markdown import table
from tools.bench.forecast_vm import RAM_BYTES, measure_vms
from tools.bench.request import BenchRequest, here
from tools.forecast.errors_table import errors_table
from tools.measuring.images import kinds_here, write_image
from tools.measuring.progress import say
from tools.measuring.trial import run_ours

GUESTS = {
    "idle": ("--dirty-rate", "0"),
    "idle-desktop": ("--preset", "idle-desktop"),
    "database": ("--preset", "database"),
    "build": ("--preset", "build"),
    "16 MiB/s": ("--dirty-rate", "16M"),
}
REAL_GUESTS = {
    "a real guest's RAM, idle": ("--dirty-rate", "0"),
    "a real guest's RAM, 16 MiB/s": ("--dirty-rate", "16M"),
}
EDGE_METHOD, EDGE_LINK, EDGE_LINK_BYTES = "zstd", "25M", 25 << 20
EDGE_RUNS, EDGE_WIDTH = 20, 0.2
EDGE_SHARE = 0.86
"""Of what the link carries of the guest's pages: there it just converges, since some are written twice."""

METHODS = ("none", "isal", "zstd", "auto")
LINKS = ("25M", "125M", "0")
KEPT = ("status", "forecast", "score")
TIMEOUT_SECONDS = "60"


@dataclass(frozen=True)
class Case:
    """A guest, which of `pipeline.run`'s options make it, and how it is sent."""

    guest: str
    options: tuple[str, ...]
    method: str
    link: str

    @property
    def name(self) -> str:
        return f"{self.guest}, {self.method}, {self.link}"


def measure(request: BenchRequest) -> dict[str, Any]:
    """Every guest by every method over every link, in turn. Raises FerryError."""
    with tempfile.TemporaryDirectory(prefix="ramferry-bench-") as folder:
        found = _measure(request, list(cases(request, Path(folder))))
    return {**found, "vms": measure_vms()}


def cases(request: BenchRequest, folder: Path) -> Iterator[Case]:
    """Presets, steady rates, a real guest's RAM where it can be made, and rates about what just converges.
    Raises FerryError."""
    ram = tuple(request.ram_arguments())
    guests = {name: (*ram, *options) for name, options in GUESTS.items()}
    if request.ram.image is None and kinds_here(None, request.ram.size_bytes).count("guest"):
        image = str(write_image("guest", request.ram.size_bytes, None, folder))
        guests |= {name: ("--image", image, *options) for name, options in REAL_GUESTS.items()}
    methods = [name for name in request.methods or METHODS if name == "auto" or here(name)]
    for (guest, options), method, link in product(guests.items(), methods, request.bandwidths or LINKS):
        yield Case(guest, options, method, link)
    if EDGE_METHOD in methods:
        edge = _edge(request, ram)
        for number in range(EDGE_RUNS):
            rate = round(edge * (1 + EDGE_WIDTH * (2 * number / (EDGE_RUNS - 1) - 1)))
            options = (*ram, "--dirty-rate", str(rate))
            yield Case(f"{rate / (1 << 20):.0f} MiB/s", options, EDGE_METHOD, EDGE_LINK)


def _edge(request: BenchRequest, ram: tuple[str, ...]) -> float:
    """Bytes a second that a guest may write for the link just to keep up."""
    first = _run(request, Case("idle", (*ram, "--dirty-rate", "0"), EDGE_METHOD, EDGE_LINK))["rounds"][0]
    return EDGE_SHARE * EDGE_LINK_BYTES * float(first["normal_pages"] * PAGE_BYTES / first["wire_bytes"])


def _measure(request: BenchRequest, every: list[Case]) -> dict[str, Any]:
    found = []
    for turn in range(1, request.repeat + 1):
        say(f"turn {turn} of {request.repeat}")
        for case in every:
            result = _run(request, case)
            score = result["score"].get("total_ms")
            where = {"guest": case.guest, "method": case.method, "link": case.link, "turn": turn}
            found.append({"case": case.name, **where, **{key: result[key] for key in KEPT}})
            say(f"  {case.name}: " + (f"{score['error']:+.0%}" if score else result["status"]))
    return {"results": found, "size_bytes": request.ram.size_bytes}


def _run(request: BenchRequest, case: Case) -> dict[str, Any]:
    arguments = [
        *(*case.options, "--method", case.method, "--channels", str(request.channels)),
        *("--max-bandwidth", case.link, "--prealloc", "--forecast", "--timeout", TIMEOUT_SECONDS),
    ]
    return run_ours(arguments, may_not_converge=True).result


def slower_than_best(results: list[dict[str, Any]]) -> dict[str, float]:
    """By guest and link, of the methods that were run there in one turn: by how much the one with the best
    forecast took longer than the one that was the shortest, as a share. Left out where none converged."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in results:
        groups[f"{one['guest']}, {one['link']}, turn {one['turn']}"].append(one)
    found = {}
    for name, group in groups.items():
        done = [one for one in group if one["score"].get("total_ms")]
        if len(group) < 2 or not done:
            continue
        sure = max(one["forecast"]["chance_to_converge"] for one in group)
        good = [one for one in group if one["forecast"]["chance_to_converge"] >= sure - 0.05]
        chosen = min(good, key=lambda one: float(one["forecast"]["total_ms"]["expected"]))
        best = min(one["score"]["total_ms"]["came_true"] for one in done)
        took = chosen["score"].get("total_ms")
        found[name] = took["came_true"] / best - 1 if took else float("inf")
    return found


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
    slower = slower_than_best(results)
    stuck = sum(not one["score"]["converged"] for one in results)
    return "\n".join(
        [
            errors_table(errors),
            "",
            _by_link(results),
            "",
            f"Chance to converge: Brier score {brier:.3f}, always yes {always:.3f}; "
            f"{stuck} of {len(results)} runs did not converge.",
            "",
            f"The method with the best forecast was within 5 % of the shortest in "
            f"{sum(share <= 0.05 for share in slower.values())} of {len(slower)} cases"
            + (f"; {max(slower.values()):.0%} slower at worst." if slower else "."),
            "",
            "Farthest off:",
            *lines,
            *(["", "Convergence foreseen wrongly:", *wrong] if wrong else []),
            *_vm_lines(document["vms"]),
        ]
    )


def _by_link(results: list[dict[str, Any]]) -> str:
    """How far off total times were where a link limited the run, and where only the CPUs did."""
    rows = [["total ms, by link", "runs", "median error", "close", "in the 80 % band"]]
    for link in dict.fromkeys(one["link"] for one in results):
        errors = errors_of(one for one in results if one["link"] == link)[0].get("total_ms")
        if errors is not None:
            name = "no limit" if link == "0" else f"{link}iB/s"
            shares = f"{errors.close} of {errors.runs}", f"{errors.in_band / errors.runs:.0%}"
            rows.append([name, str(errors.runs), f"{errors.median_error:.1%}", *shares])
    return table(rows)


def _vm_lines(vms: list[dict[str, Any]]) -> list[str]:
    if not vms:
        return []
    lines = [
        f"- {one['method']}, {one['link_bytes_per_second'] / 1e6:g} MB/s: "
        f"{one['forecast']['total_ms']['expected'] / 1e3:.1f} s foreseen, {one['total_ms'] / 1e3:.1f} s real "
        f"({one['error']:+.0%})"
        for one in vms
    ]
    return ["", f"A live VM of {RAM_BYTES >> 20} MiB by its monitor, moved by QEMU itself:", *lines]
