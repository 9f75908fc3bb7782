"""The section on two hosts: two network namespaces with a cable of a speed between them, and TLS."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from guestmem.units import show_rate
from pipeline.errors import HostError
from pipeline.options import AUTO
from pipeline.report.columns import method_of
from pipeline.report.markdown import table
from qat.scripts import SCRIPTS
from tools.bench.docs.methods import available
from tools.bench.docs.section import Section
from tools.bench.network import DESTINATION_ADDRESS, PORT, SOURCE_ADDRESS, Cable, cable, receiver, why_not
from tools.bench.request import BenchRequest
from tools.measuring.columns import spread_of
from tools.measuring.spread import Spread
from tools.measuring.trial import run_ours
from tools.measuring.turns import in_turn

LINKS = ((1000, "32M", ("none", "isal", "zstd", AUTO)), (100, "8M", ("zstd", AUTO)))
"""Mbit/s, the rate at which the guest writes, and the methods that are worth a run there."""


def _measure(request: BenchRequest) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="ramferry-bench-") as folder, cable() as wire:
        certificates = _certificates(Path(folder) / "certs")
        runs = {
            f"{mbit} {rate} {method}": partial(_migrate, request, wire, certificates, mbit, rate, method)
            for mbit, rate, methods in LINKS
            for method in available(methods)
        }
        return {"results": in_turn(request.repeat, runs)}


def _certificates(folder: Path) -> Path:
    """For both ends. Raises HostError."""
    script = SCRIPTS / "make_certs.sh"
    command = ["sh", str(script), str(folder), SOURCE_ADDRESS, DESTINATION_ADDRESS]
    made = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if made.returncode:
        raise HostError((made.stderr.strip().splitlines() or [f"{script} failed"])[-1])
    return folder


def _migrate(
    request: BenchRequest, wire: Cable, certificates: Path, mbit: int, rate: str, method: str
) -> dict[str, Any]:
    wire.speed(mbit)
    listen = ["--listen", f"{DESTINATION_ADDRESS}:{PORT}", "--tls-dir", str(certificates)]
    with receiver(wire, *listen, "--prealloc"):
        return run_ours(
            [
                *("--to", f"{DESTINATION_ADDRESS}:{PORT}", "--tls-dir", str(certificates)),
                *(*request.ram_arguments(), "--dirty-rate", rate),
                *("--method", method, "--channels", str(request.channels)),
            ],
            may_not_converge=True,
            module="pipeline.send",
            prefix=wire.source,
        ).result


def _tables(document: dict[str, Any]) -> str:
    rows = [
        [
            *("link", "guest writes", "method", "total ms", "downtime ms", "rounds", "wire Mbit/s", "ratio"),
            *("send CPU %", "recv CPU %", "retransmits"),
        ]
    ]
    for name, results in document["results"].items():
        mbit, rate, _ = name.split()
        rounds = Spread(tuple(float(len(result["rounds"])) for result in results))
        rows.append(
            [
                f"{int(mbit) // 1000} Gbit/s" if int(mbit) >= 1000 else f"{mbit} Mbit/s",
                show_rate(rate),
                method_of(results[0]),
                spread_of(results, "time", "total_ms").show(),
                spread_of(results, "time", "downtime_ms").show(),
                rounds.show(),
                f"{spread_of(results, 'traffic', 'throughput_mbps').median:.0f}",
                f"{spread_of(results, 'traffic', 'compression_ratio').median:.2f}",
                f"{spread_of(results, 'send', 'cpu_percent').median:.0f}",
                f"{spread_of(results, 'recv', 'cpu_percent').median:.0f}",
                spread_of(results, "transport", "retransmits").show(),
            ]
        )
    return table(rows)


def _why_not() -> str:
    return why_not() or ("" if shutil.which("openssl") else "openssl is missing: apt-get install openssl")


SECTIONS = (
    Section(
        "two-hosts",
        "Two hosts",
        "`pipeline.send` and `pipeline.recv` in two network namespaces of one host, with a cable (veth) "
        "between them that `tc tbf` limits in both directions; TLS 1.3, preallocated memory. Both "
        "ends share the CPUs.",
        _measure,
        _tables,
        share=0.5,
        why_not=_why_not,
    ),
)
