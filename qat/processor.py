"""Whose CPU this is: QAT is a part of Intel's CPUs and chipsets, and beside another CPU it is on a card."""

from __future__ import annotations

from pathlib import Path

INTEL_CPU, AMD_CPU = "GenuineIntel", "AuthenticAMD"
CARD = "Intel QAT Adapter 8960 or 8970, 8086:37c8"


def cpu_maker(proc: Path) -> str:
    """`vendor_id` of proc/cpuinfo; `other` where it has none, as on Arm; empty when it cannot be read."""
    try:
        text = (proc / "cpuinfo").read_text(errors="replace")
    except OSError:
        return ""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "vendor_id":
            return value.strip()
    return "other"


def is_intels(maker: str) -> bool:
    """Whether the CPU may have QAT inside: Intel's, or one that is not known."""
    return maker in ("", INTEL_CPU)


def how_to_turn_the_iommu_on(maker: str) -> str:
    """What to change, by the CPU's maker."""
    if is_intels(maker):
        return "turn VT-d on in the BIOS and boot with intel_iommu=on"
    if maker == AMD_CPU:
        return "turn the IOMMU (AMD-Vi) on in the BIOS   # Linux then uses it without an option"
    return "turn the IOMMU on in the firmware"
