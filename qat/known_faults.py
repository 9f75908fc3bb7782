"""Faults of certain qatlib releases that this host would meet, by the numbers in qatlib's README.

A check of a fault that does not apply says nothing. Where nothing says which qatlib a host has, only those
are told that most hosts may meet.
"""

from __future__ import annotations

import re
from pathlib import Path

from qat.checkup import CONFIGURATION, FAILS, MANAGER, OK, WARNING, Finding, Host
from qat.qatlib import Qatlib

FIXED_KERNEL = (6, 1, 149)
BROKEN_ON_OLD_KERNELS = ((24, 9), (25, 8))
GCC_THAT_BREAKS_VFS = 16


def check_known_faults(host: Host) -> list[Finding]:
    """The release, and each fault that applies to it here."""
    if not host.found:
        return []
    faults = (
        _old_kernel(host),
        _hugepages(host),
        _compression_alone(host),
        _manager_is_older(host),
        _concurrent_start(host),
        _compiler(host),
    )
    return [_release(host.qatlib), *(fault for fault in faults if fault is not None)]


def _release(qatlib: Qatlib) -> Finding:
    if qatlib.release is None:
        return Finding(
            "qatlib", WARNING, "which release is installed is not known: its faults are not looked for"
        )
    return Finding("qatlib", OK, qatlib.version)


def kernel_version(host: Host) -> tuple[tuple[int, ...], bool]:
    """(major, minor, patch), and whether the patch level is known.

    Debian's release is 6.1.0-18-amd64 for a Linux 6.1.76, which only the build's line says.
    """
    release = host.text("proc/sys/kernel/osrelease")
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)
    if found is None:
        return (), False
    major, minor, patch = int(found[1]), int(found[2]), int(found[3] or 0)
    if patch:
        return (major, minor, patch), True
    for path in ("proc/sys/kernel/version", "proc/version_signature", "proc/version"):
        exact = re.search(rf"\b{major}\.{minor}\.([1-9]\d*)\b", host.text(path))
        if exact:
            return (major, minor, int(exact[1])), True
    return (major, minor, 0), "-" not in release


def _old_kernel(host: Host) -> Finding | None:
    """QATE-106085. The README names Linux 6.1 alone; older ones lack the same change. A guest's own kernel
    does not drive the physical function."""
    on_4xxx = any(device.kind == "4xxx" for device in host.physical)
    version, known = kernel_version(host)
    if (
        not on_4xxx
        or host.qatlib.release not in BROKEN_ON_OLD_KERNELS
        or not version
        or version >= FIXED_KERNEL
    ):
        return None
    linux = ".".join(map(str, version)) + ("" if known else " (its patch level is not known)")
    return Finding(
        "QATE-106085",
        FAILS if known and version[:2] == FIXED_KERNEL[:2] else WARNING,
        f"qatlib {host.qatlib.version} does not compress on 4xxx with Linux 6.1 before 6.1.149; "
        f"this is Linux {linux}",
        "boot Linux 6.1.149 or later   # or qatlib 24.02, or 26.02 or later",
    )


def _hugepages(host: Host) -> Finding | None:
    release = host.qatlib.release
    if release is None or not (25, 8) <= release < (26, 8):
        return None
    pools = (host.root / "sys/kernel/mm/hugepages").glob("hugepages-*/nr_hugepages")
    paths = ["proc/sys/vm/nr_hugepages", *sorted(str(path.relative_to(host.root)) for path in pools)]
    counted = {path: host.text(path) for path in paths}
    reserved = [path for path, count in counted.items() if count not in ("", "0")]
    if not reserved:
        return None
    return Finding(
        "QAT20-42018",
        FAILS,
        f"qatlib {host.qatlib.version} does not start where hugepages are reserved: "
        f"/{reserved[0]} is {counted[reserved[0]]}",
        f"echo 0 > /{reserved[0]}   # or qatlib 26.08 or later",
    )


def _compression_alone(host: Host) -> Finding | None:
    alone = [device.address for device in host.physical if device.services == "dc"]
    if not alone or not host.qatlib.before(26, 2):
        return None
    return Finding(
        "QAT20-41747",
        WARNING,
        f"qatlib {host.qatlib.version} may not start on a device with the service dc alone "
        f'("Error parsing enabled services from ADF"): {", ".join(alone)}',
        f"qatlib 26.02 or later   # or ServicesEnabled=sym;dc in /{CONFIGURATION} (Linux 6.5; half as fast)",
    )


def _manager_is_older(host: Host) -> Finding | None:
    """QATE-76073. qatmgr reads the devices' configuration once, when it makes its socket.

    A physical function is down while it is configured, and loses its virtual functions. So the nodes of
    their groups in /dev/vfio are as old as the configuration.
    """
    started = _changed(host.root / MANAGER)
    if started is None:
        return None
    mend = "systemctl restart qat"
    links = [host.root / f"sys/bus/pci/devices/{device.address}/iommu_group" for device in host.virtual]
    groups = {link.resolve().name for link in links if link.exists()}
    times = [_changed(host.root / "dev/vfio" / group) for group in groups]
    if any(made is not None and made > started for made in times):
        return Finding(
            "QATE-76073",
            FAILS,
            "the devices were configured after qatmgr had started: what it does then is undefined",
            mend,
        )
    configured = _changed(host.root / CONFIGURATION)
    if configured is not None and configured > started:
        read = f"/{CONFIGURATION} was changed after qatmgr had started, and is not in effect"
        return Finding("QATE-76073", WARNING, read, mend)
    return None


def _changed(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _concurrent_start(host: Host) -> Finding | None:
    release = host.qatlib.release
    if (host.root / MANAGER).exists() or (release is not None and release >= (26, 8)):
        return None
    which = f"qatlib {host.qatlib.version}" if release else "qatlib before 26.08"
    return Finding(
        "QATE-105912",
        WARNING,
        f'without a manager, processes of {which} that start at once may fail ("Open vfio file ... failed!")',
        "systemctl start qat   # or qatlib 26.08 or later; in a container: --channels 1",
    )


def _compiler(host: Host) -> Finding | None:
    qatlib = host.qatlib
    if qatlib.gcc is None or qatlib.gcc < GCC_THAT_BREAKS_VFS:
        return None
    if qatlib.release is not None and not qatlib.before(26, 8):
        return None
    which = f"qatlib {qatlib.version}" if qatlib.release else "qatlib before 26.08"
    return Finding(
        "QAT20-42511",
        FAILS if qatlib.release else WARNING,
        f"{which}, built by GCC {qatlib.gcc} with -O2, misreads virtual functions: they seem to have no "
        "compression",
        "build it with GCC 15 or earlier   # or qatlib 26.08 or later",
    )
