"""Check what a host needs to compress on QAT, from the hardware up. Nothing on the host is changed.

The order and the files are those of Intel's qatlib and of Linux (`Documentation/ABI/testing/
sysfs-driver-qat` and `debugfs-driver-qat`). All paths are taken below one root folder, so that tests
can use a recorded tree.
"""

from __future__ import annotations

import grp
import os
import re
import resource
import socket
import stat
from dataclasses import dataclass, field
from pathlib import Path

from qat.host import PHYSICAL_FUNCTIONS, VIRTUAL_FUNCTIONS, Device, devices
from qat.library import Library, load
from qat.processor import CARD, cpu_maker, how_to_turn_the_iommu_on, is_intels
from qat.qatlib import Qatlib
from qat.scripts import shipped_script
from qat.status import LibraryMissing

OK, WARNING, FAILS = "ok", "warning", "fails"

MAX_SOCKET_PATH = 108

FIRST_KERNEL = {"4xxx": (5, 17), "401xx": (5, 19), "402xx": (6, 4), "420xx": (6, 8), "6xxx": (6, 15)}
"""The first Linux version whose driver offers compression on the device."""

OUT_OF_TREE = ("c62x", "c3xxx", "dh895xcc", "d15xx")
"""Generations that the qatlib of distributions does not support."""

GEN6, GEN6_QATLIB = "6xxx", (26, 8)
"""The first qatlib that drives 8086:4948 (its README)."""

VFS_PER_PF = 16
MEMLOCK_BYTES_PER_WORKER = 64 << 20
WANTED_SYMBOLS = ("qzSetupSessionDeflateExt", "qzGetDeflateEndOfStream", "qzSetLogLevel")
CONFIGURATION = "etc/sysconfig/qat"
MANAGER = "run/qat/qatmgr.sock"
NOTHING = "no QAT device to look at"


@dataclass(frozen=True)
class Finding:
    """The result of one check: OK, WARNING or FAILS, what was read, and the command that mends it."""

    check: str
    status: str
    read: str
    mend: str = ""


@dataclass(frozen=True)
class Host:
    """A host to check: its root folder, its QAT functions, its qatlib, and who made its CPU."""

    root: Path
    found: tuple[Device, ...]
    qatlib: Qatlib = field(default_factory=Qatlib)
    cpu_maker: str = ""

    @classmethod
    def at(cls, root: Path) -> Host:
        return cls(root, tuple(devices(root / "sys")), Qatlib.of(root), cpu_maker(root / "proc"))

    @property
    def physical(self) -> list[Device]:
        return [device for device in self.found if device.kind in PHYSICAL_FUNCTIONS.values()]

    @property
    def virtual(self) -> list[Device]:
        return [device for device in self.found if device.kind in VIRTUAL_FUNCTIONS.values()]

    @property
    def guest(self) -> bool:
        """Whether this is a guest that has virtual functions assigned to it."""
        return bool(self.virtual) and not self.physical

    @property
    def compressing(self) -> list[Device]:
        """Physical functions that offer compression (service `dc`)."""
        return [device for device in self.physical if "dc" in device.services.split(";")]

    def text(self, path: str) -> str:
        """A file's content without surrounding white space; empty when it cannot be read."""
        try:
            return (self.root / path).read_text(errors="replace").strip()
        except OSError:
            return ""

    def configuration(self) -> dict[str, str]:
        """The settings in /etc/sysconfig/qat, by name."""
        lines = (line.split("=", 1) for line in self.text(CONFIGURATION).splitlines() if "=" in line)
        kept = ((name, value) for name, value in lines if not name.lstrip().startswith("#"))
        return {name.strip(): value.strip().strip("\"'") for name, value in kept}


def check_all(root: Path) -> list[Finding]:
    """All checks of what a host has, in order. Known faults, health and the real test are elsewhere."""
    host = Host.at(root)
    return [
        check_library(),
        check_devices(host),
        check_generation(host),
        check_driver(host),
        check_kernel(host),
        check_iommu(host),
        check_state(host),
        check_services(host),
        check_virtual_functions(host),
        check_access(host),
        check_manager(host),
        check_policy(host),
        check_memlock(host),
    ]


def without_physical(check: str, host: Host) -> Finding:
    """The finding of a check of physical functions where there are none: in a guest, or without QAT."""
    if host.guest:
        return Finding(check, OK, "a matter of the host, not of this guest")
    return Finding(check, WARNING, NOTHING)


def check_library() -> Finding:
    """Whether libqatzip can be loaded, and which version it is."""
    try:
        library: Library = load()
    except LibraryMissing as error:
        return Finding(
            "library", FAILS, str(error).split(":")[0], error.mend or shipped_script("get_qatzip.sh")
        )
    missing = [name for name in WANTED_SYMBOLS if not library.has(name)]
    if library.simulated:
        return Finding(
            "library",
            WARNING,
            f"{library.path} is the emulator: everything is simulated",
            "unset QATZIP_LIBRARY",
        )
    if missing:
        return Finding(
            "library",
            WARNING,
            f"{library.path} is version 1.2, which lacks {', '.join(missing)}",
            shipped_script("get_qatzip.sh"),
        )
    version = "2.0 or later" if library.has("qzSetupSessionZstd") else "1.3"
    return Finding("library", OK, f"{library.path}, {version}")


def check_devices(host: Host) -> Finding:
    """Whether there are QAT functions on the PCI bus."""
    if not host.found and not is_intels(host.cpu_maker):
        return Finding(
            "PCI devices",
            FAILS,
            f"no QAT function on the PCI bus; this CPU ({host.cpu_maker}) has none, so QAT would be a card",
            f"use a host whose Xeon has QAT, or a card ({CARD}) with Intel's out-of-tree driver",
        )
    if not host.found:
        return Finding(
            "PCI devices",
            FAILS,
            "no QAT function on the PCI bus (8086: 4940, 4942, 4944, 4946, 4948 and their VFs)",
            "lspci -nd 8086: | grep 494   # nothing? turn QAT on in the BIOS, or use a host that has it",
        )
    kinds = ", ".join(f"{device.address} {device.kind}" for device in host.found[:4])
    more = f" and {len(host.found) - 4} more" if len(host.found) > 4 else ""
    where = "this is a guest with virtual functions: " if host.guest else ""
    if host.physical and not is_intels(host.cpu_maker):
        where = f"on a card, beside a CPU that is not Intel's ({host.cpu_maker}): "
    return Finding("PCI devices", OK, f"{where}{kinds}{more}")


def check_generation(host: Host) -> Finding:
    """Whether the qatlib of distributions supports this generation."""
    if not host.found:
        return Finding("generation", WARNING, NOTHING)
    kinds = {device.kind for device in host.found}
    old = sorted(kinds & set(OUT_OF_TREE))
    if old and not kinds - set(OUT_OF_TREE):
        return Finding(
            "generation",
            FAILS,
            f"{', '.join(old)}: not supported by the qatlib of distributions",
            "build Intel's out-of-tree driver for QAT 1.x, and QATzip against it",
        )
    if any(kind.startswith(GEN6) for kind in kinds) and host.qatlib.before(*GEN6_QATLIB):
        return Finding(
            "generation",
            FAILS,
            f"{GEN6} needs qatlib 26.08 and libqatzip 2.0; qatlib is {host.qatlib.version}",
            "install qatlib 26.08 or later",
        )
    return Finding("generation", OK, ", ".join(sorted(kinds)))


def check_driver(host: Host) -> Finding:
    """Whether a kernel driver is bound to the physical functions."""
    if not host.physical:
        return without_physical("driver", host)
    unbound = [device.address for device in host.physical if not device.driver]
    if unbound:
        kind = host.physical[0].kind
        module = {"401xx": "qat_4xxx", "402xx": "qat_4xxx"}.get(kind, f"qat_{kind}")
        return Finding(
            "driver",
            FAILS,
            f"no driver is bound to {', '.join(unbound)}",
            f"modprobe {module}   # then: dmesg | grep -i qat (firmware?)",
        )
    return Finding("driver", OK, ", ".join(sorted({device.driver for device in host.physical})))


def check_kernel(host: Host) -> Finding:
    """Whether this Linux is new enough for the generation."""
    release = host.text("proc/sys/kernel/osrelease")
    numbers = release.replace("-", ".").split(".")
    version = tuple(int(part) for part in numbers[:2] if part.isdigit())
    kinds = {device.kind.removesuffix(" VF") for device in host.found} & set(FIRST_KERNEL)
    if not kinds:
        return Finding("kernel", WARNING, f"Linux {release}; {NOTHING}")
    needed = max(FIRST_KERNEL[kind] for kind in kinds)
    wanted = f"{needed[0]}.{needed[1]}"
    if not host.guest and version < needed:
        return Finding(
            "kernel",
            FAILS,
            f"Linux {release}; compression on {', '.join(sorted(kinds))} needs {wanted}",
            f"boot Linux {wanted} or later",
        )
    if version < (6, 6):
        return Finding(
            "kernel",
            WARNING,
            f"Linux {release}: no fw_counters or heartbeat before 6.6",
            "boot Linux 6.6 or later",
        )
    return Finding("kernel", OK, f"Linux {release}")


def check_iommu(host: Host) -> Finding:
    """Whether there is an IOMMU, which virtual functions need."""
    groups = list((host.root / "sys/kernel/iommu_groups").glob("[0-9]*"))
    if groups:
        return Finding("IOMMU", OK, f"{len(groups)} groups")
    read = "no IOMMU group"
    if is_intels(host.cpu_maker):
        word = "has" if "intel_iommu=on" in host.text("proc/cmdline") else "lacks"
        read += f"; the kernel's command line {word} intel_iommu=on"
    mend = how_to_turn_the_iommu_on(host.cpu_maker)
    return Finding("IOMMU", FAILS if host.found else WARNING, read, mend)


def check_state(host: Host) -> Finding:
    """Whether the physical functions are up."""
    if not host.physical:
        return without_physical("state", host)
    down = [device.address for device in host.physical if device.state != "up"]
    if down:
        return Finding(
            "state",
            FAILS,
            ", ".join(f"{d.address} is {d.state or 'unknown'}" for d in host.physical if d.state != "up"),
            f"echo up > /sys/bus/pci/devices/{down[0]}/qat/state   # or: systemctl restart qat",
        )
    return Finding("state", OK, f"{len(host.physical)} up")


def check_services(host: Host) -> Finding:
    """Whether the devices offer compression."""
    if not host.physical:
        return without_physical("services", host)
    services = ", ".join(f"{device.address} {device.services or 'unknown'}" for device in host.physical)
    mend = _compression_alone(host)
    if not host.compressing:
        return Finding("services", FAILS, f"no device offers compression (dc): {services}", mend)
    if len(host.compressing) < len(host.physical):
        return Finding("services", WARNING, f"only some devices offer compression (dc): {services}", mend)
    return Finding("services", OK, services)


def _compression_alone(host: Host) -> str:
    mend = f"put ServicesEnabled=dc and POLICY=1 into /{CONFIGURATION}, then: systemctl restart qat"
    if host.qatlib.before(26, 2):
        mend += f"   # qatlib {host.qatlib.version} may not start with dc alone (QAT20-41747): take 26.02"
    return mend


def check_virtual_functions(host: Host) -> Finding:
    """Whether there are virtual functions, and all are bound to vfio-pci."""
    if host.guest:
        unbound = [device.address for device in host.virtual if device.driver != "vfio-pci"]
        if unbound:
            return Finding(
                "virtual functions",
                FAILS,
                f"{len(unbound)} of {len(host.virtual)} are not bound to vfio-pci",
                "systemctl start qat",
            )
        return Finding("virtual functions", OK, f"{len(host.virtual)} assigned to this guest")
    if not host.physical:
        return Finding("virtual functions", WARNING, NOTHING)
    without = [device.address for device in host.physical if device.virtual_functions in ("", "0")]
    if without:
        return Finding(
            "virtual functions",
            FAILS,
            f"none on {', '.join(without)}",
            "apt-get install qatlib-service && systemctl start qat",
        )
    unbound = [device.address for device in host.virtual if device.driver != "vfio-pci"]
    if unbound:
        return Finding(
            "virtual functions", FAILS, f"{len(unbound)} are not bound to vfio-pci", "systemctl restart qat"
        )
    return Finding("virtual functions", OK, f"{len(host.virtual)} bound to vfio-pci")


def check_access(host: Host) -> Finding:
    """Whether this user may open the groups in /dev/vfio."""
    folder = host.root / "dev/vfio"
    groups = sorted(folder.glob("[0-9]*"))
    if not groups:
        return Finding(
            "access rights",
            FAILS if host.found else WARNING,
            "there is no group in /dev/vfio",
            "systemctl start qat",
        )
    closed = [path.name for path in [folder / "vfio", *groups] if not os.access(path, os.R_OK | os.W_OK)]
    if closed:
        return Finding(
            "access rights",
            FAILS,
            f"this user may not open /dev/vfio/{closed[0]}"
            + (f" and {len(closed) - 1} more" if closed[1:] else ""),
            "usermod -aG qat $USER   # and log in again",
        )
    return Finding("access rights", OK, f"this user may open all {len(groups)} groups" + _membership())


def _membership() -> str:
    try:
        member = grp.getgrnam("qat").gr_gid in os.getgroups()
    except KeyError:
        return ""
    return ", as a member of group qat" if member else ""


def check_manager(host: Host) -> Finding:
    """Whether qatmgr answers. Without it libqat manages the devices in each process by itself."""
    path = host.root / MANAGER
    try:
        is_socket = stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        is_socket = False
    if not is_socket:
        return Finding(
            "manager",
            WARNING,
            f"no qatmgr at /{MANAGER}: each process takes devices for itself (QAT_POLICY)",
            "systemctl start qat   # in a container: export QAT_POLICY=1",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(2.0)
        try:
            client.connect(_short(path))
        except OSError as error:
            return Finding(
                "manager",
                FAILS,
                f"qatmgr does not answer: {error.strerror or error}",
                "systemctl restart qat",
            )
    return Finding("manager", OK, f"qatmgr answers at /{MANAGER}")


def _short(path: Path) -> str:
    """A path that fits a socket's address (108 bytes, unix(7)), by way of its folder where it does not."""
    if len(str(path)) < MAX_SOCKET_PATH:
        return str(path)
    folder = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
    return f"/proc/self/fd/{folder}/{path.name}"


def check_policy(host: Host) -> Finding:
    """How many worker processes may use the devices at once."""
    policy = host.configuration().get("POLICY", "0")
    if not re.fullmatch(r"[0-9]{1,6}", policy):
        return Finding(
            "policy",
            FAILS,
            f"POLICY={policy} in /{CONFIGURATION} is not a number",
            f"put POLICY=1 into /{CONFIGURATION}",
        )
    if host.guest:
        return Finding("policy", OK, f"POLICY={policy}; at most {len(host.virtual)} worker processes here")
    if not host.physical:
        return Finding("policy", WARNING, NOTHING)
    wanted = int(policy)
    most = VFS_PER_PF * len(host.compressing) // wanted if wanted else VFS_PER_PF * bool(host.compressing)
    limit = f"POLICY={policy}: at most {most} worker processes, channels and hardware receivers together"
    if not most:
        return Finding("policy", FAILS, limit, _compression_alone(host))
    if wanted != 1 and len(host.compressing) > 1:
        return Finding(
            "policy",
            WARNING,
            f"{limit}; each single-threaded worker uses only one device",
            f"put POLICY=1 into /{CONFIGURATION}, then: systemctl restart qat",
        )
    return Finding("policy", OK, limit)


def check_memlock(host: Host) -> Finding:
    """Whether a worker may lock the memory that it needs for DMA."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY or os.geteuid() == 0:
        return Finding("memlock", OK, "no limit" if soft == resource.RLIM_INFINITY else "root is exempt")
    limit = f"{soft >> 20} MiB a process"
    if soft < MEMLOCK_BYTES_PER_WORKER:
        return Finding(
            "memlock",
            FAILS if host.found else WARNING,
            f"{limit}; a worker needs {MEMLOCK_BYTES_PER_WORKER >> 20} MiB",
            "echo '@qat - memlock 65536' >> /etc/security/limits.d/qat.conf   # and log in again",
        )
    return Finding("memlock", OK, limit)
