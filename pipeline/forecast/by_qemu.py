"""How a VM is moved: by QEMU itself where it has the method, else through the relay."""

from __future__ import annotations

from dataclasses import replace

from pipeline.forecast.beside import Beside
from pipeline.forecast.situation import Plan
from pipeline.policy import QEMU_POLICY

OF_QEMU = ("none", "zlib", "zstd")
"""What `multifd-compression` takes in QEMU as it is shipped (qapi/migration.json, MultiFDCompression)."""

QEMU_BESIDE = Beside(send_ns=0.4, recv_ns=0.4, scan_ns=0.1)
"""QEMU's own copies and its look for zero pages, in C."""


def plan_of_vm(plan: Plan, method: str) -> Plan:
    """The plan as it is for this method: QEMU moves the VM by itself where it has the method, with its own
    costs, its own word on when to switch over, and more than its limit; the relay, which has the others,
    keeps to the limit."""
    if method in OF_QEMU:
        return replace(plan, beside=QEMU_BESIDE, policy=replace(plan.policy, policy=QEMU_POLICY))
    return replace(plan, link_bytes_per_second=kept_bytes_per_second(plan), qemu_limit_bytes_per_second=0.0)


def kept_bytes_per_second(plan: Plan) -> float:
    """What a VM's migration is told not to exceed: its limit, or what the link carries; 0 is neither."""
    known = [rate for rate in (plan.qemu_limit_bytes_per_second, plan.link_bytes_per_second) if rate]
    return min(known, default=0.0)
