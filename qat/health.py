"""Whether a configured device is healthy: its error counters, heartbeat and firmware counters."""

from __future__ import annotations

from pathlib import Path

from qat.checkup import FAILS, OK, Finding, Host, without_physical


def check_health(host: Host) -> Finding:
    """Whether any device has counted errors or misses its heartbeat."""
    if not host.physical:
        return without_physical("health", host)
    problems = []
    for device in host.physical:
        for kind in ("nonfatal", "fatal"):
            count = host.text(f"sys/bus/pci/devices/{device.address}/qat_ras/errors_{kind}")
            if count not in ("", "0"):
                problems.append(f"{device.address}: {count} {kind} errors")
        for folder in (host.root / "sys/kernel/debug").glob(f"qat_*_{device.address}"):
            beat = host.text(str((folder / "heartbeat/status").relative_to(host.root)))
            if beat == "-1":
                problems.append(f"{device.address} does not answer its heartbeat")
    if problems:
        return Finding(
            "health",
            FAILS,
            ", ".join(problems),
            "dmesg | grep -i qat   # a Gen4 device must never be reset through sysfs",
        )
    return Finding("health", OK, "no errors counted")


def fw_counters(root: Path) -> int | None:
    """The sum of the firmware counters of all devices: requests and responses.

    None where the kernel does not show it (before Linux 6.6, or without access to debugfs).
    """
    total, seen = 0, False
    for path in (root / "sys/kernel/debug").glob("qat_*/fw_counters"):
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        seen = True
        for word in text.replace("|", " ").split():
            if word.isdigit():
                total += int(word)
    return total if seen else None
