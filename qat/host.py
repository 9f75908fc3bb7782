"""The QAT devices of this host and their services, read from sysfs.

PCI ids and files: Intel's qatlib documentation and Linux `Documentation/ABI/testing/sysfs-*-qat`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from qat.processor import CARD, cpu_maker, how_to_turn_the_iommu_on, is_intels

INTEL = "0x8086"

PHYSICAL_FUNCTIONS = {
    "0x4940": "4xxx",
    "0x4942": "401xx",
    "0x4944": "402xx",
    "0x4946": "420xx",
    "0x4948": "6xxx",
    "0x37c8": "c62x",
    "0x19e2": "c3xxx",
    "0x0435": "dh895xcc",
    "0x6f54": "d15xx",
}
VIRTUAL_FUNCTIONS = {
    "0x4941": "4xxx VF",
    "0x4943": "401xx VF",
    "0x4945": "402xx VF",
    "0x4947": "420xx VF",
    "0x4949": "6xxx VF",
}


@dataclass(frozen=True)
class Device:
    """One QAT function on the PCI bus. A field is empty when sysfs has no such file."""

    address: str
    kind: str
    driver: str
    state: str
    services: str
    numa_node: str
    virtual_functions: str


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def devices(sysfs: Path = Path("/sys")) -> list[Device]:
    """All QAT functions on this host's PCI bus."""
    kinds = PHYSICAL_FUNCTIONS | VIRTUAL_FUNCTIONS
    found = []
    for entry in sorted((sysfs / "bus/pci/devices").glob("*")):
        kind = kinds.get(_text(entry / "device"))
        if kind is None or _text(entry / "vendor") != INTEL:
            continue
        driver = entry / "driver"
        found.append(
            Device(
                address=entry.name,
                kind=kind,
                driver=driver.resolve().name if driver.exists() else "",
                state=_text(entry / "qat/state"),
                services=_text(entry / "qat/cfg_services"),
                numa_node=_text(entry / "numa_node"),
                virtual_functions=_text(entry / "sriov_numvfs"),
            )
        )
    return found


def device_records() -> list[dict[str, str]]:
    """`devices` as dictionaries, for the JSON result."""
    return [asdict(device) for device in devices()]


def what_to_check(sysfs: Path = Path("/sys"), dev: Path = Path("/dev"), proc: Path = Path("/proc")) -> str:
    """The first thing that keeps this host from compressing on QAT, and what to do about it."""
    found = devices(sysfs)
    maker = cpu_maker(proc)
    if not found and not is_intels(maker):
        return f"no QAT device is on the PCI bus; this CPU is not Intel's, so QAT would be a card ({CARD})"
    if not found:
        return (
            "no QAT device is on the PCI bus (look for 8086:4940, 4942, 4944, 4946 or 4948 with "
            "lspci -n); it may be off in the BIOS, or this is a guest without one"
        )
    functions = [device for device in found if device.kind in PHYSICAL_FUNCTIONS.values()]
    if functions and not any(device.driver for device in functions):
        return "no driver is bound to the QAT device: check modprobe qat_4xxx, firmware and dmesg"
    if functions and not any("dc" in device.services.split(";") for device in functions):
        return (
            "no QAT device has the compression service: set ServicesEnabled=dc and POLICY=1 in "
            "/etc/sysconfig/qat and restart the qat service"
        )
    if functions and not any(device.virtual_functions not in ("", "0") for device in functions):
        return "the QAT device has no virtual functions: start the qat service (qatlib-service)"
    if not any((dev / "vfio").glob("[0-9]*")):
        iommu = how_to_turn_the_iommu_on(maker).partition("   #")[0]
        return f"there is no group in /dev/vfio: check the IOMMU ({iommu}), vfio-pci and the qat service"
    return (
        "the device is there: check that this user is in the group qat, that memlock is 64 MiB "
        "or more, and that POLICY in /etc/sysconfig/qat leaves a virtual function free"
    )
