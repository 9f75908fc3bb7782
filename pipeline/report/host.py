"""What a run was made on."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from guestmem.all_cores import allowed_cpus
from pipeline.processes.cgroup import cpu_quota
from pipeline.processes.memory import memory_figure
from qat.host import device_records

LIBRARIES = ("numpy", "cffi", "zstandard", "posix_ipc", "isal", "rich")


def host_record(codec_libraries: dict[str, str]) -> dict[str, Any]:
    """CPU, memory, kernel, library versions, QAT devices. `codec_libraries`: versions of the C libraries that
    codecs call, by name."""
    return {
        "cpu_model": cpu_model(),
        "cpus": len(allowed_cpus()),
        "cpu_quota": cpu_quota(),
        "memory_bytes": memory_figure("MemTotal"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "libraries": {**{name: metadata.version(name) for name in LIBRARIES}, **codec_libraries},
        "qat_devices": device_records(),
    }


def cpu_model() -> str:
    """As /proc/cpuinfo names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []  # no /proc: the machine's kind is all that is known
    for line in lines:
        if line.startswith(("model name", "Model")):
            return line.split(":", 1)[1].strip()
    return platform.machine()
