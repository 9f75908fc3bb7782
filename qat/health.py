"""Is a device that is set up also well? Error counters, heartbeat, and what the firmware counted."""

from __future__ import annotations

from pathlib import Path

from qat.checkup import FAILS, NOTHING, OK, WARNING, Finding, Host


def check_health(host: Host) -> Finding:
    """Error counters and heartbeat."""
    if not host.physical:
        return Finding("health", WARNING if not host.guest else OK, "the lender's" if host.guest else NOTHING)
    bad = []
    for device in host.physical:
        for kind in ("nonfatal", "fatal"):
            count = host.text(f"sys/bus/pci/devices/{device.address}/qat_ras/errors_{kind}")
            if count not in ("", "0"):
                bad.append(f"{device.address}: {count} {kind} errors")
        for folder in (host.root / "sys/kernel/debug").glob(f"qat_*_{device.address}"):
            beat = host.text(str((folder / "heartbeat/status").relative_to(host.root)))
            if beat == "-1":
                bad.append(f"{device.address} does not answer its heartbeat")
    if bad:
        return Finding(
            "health",
            FAILS,
            ", ".join(bad),
            "dmesg | grep -i qat   # a Gen4 device must never be reset through sysfs",
        )
    return Finding("health", OK, "no errors counted")


def fw_counters(root: Path) -> int | None:
    """Requests that all devices' engines have counted; None where the kernel does not show them."""
    total, seen = 0, False
    for path in (root / "sys/kernel/debug").glob("qat_*/fw_counters"):
        try:
            text = path.read_text()
        except OSError:
            continue
        seen = True
        for word in text.replace("|", " ").split():
            if word.isdigit():
                total += int(word)
    return total if seen else None
