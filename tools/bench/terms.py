"""What a guest costs by its size, term by term: each is measured alone, in a process of its own.

A run of a small guest hides these behind its wire; of a guest of a terabyte they decide. So they are measured
here on a guest of some GiB, and multiplied out (`tools.bench.large`).
"""

from __future__ import annotations

import functools
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from guestmem.dirty_log.write_protect import NoKernelLog, WriteScan, register
from guestmem.prefault import huge_bytes_of, populate, populate_by_all_cores
from guestmem.ram import GuestRam
from pipeline.destination.verification import differences, region_bytes_of, region_digests
from pipeline.errors import RunFailed
from pipeline.packets.queue import SlotNumbers
from qat.child import ask_in_child

GIB = 1 << 30
NUMBERS = 20_000
WAITERS = 63
TIMEOUT_SECONDS = 600.0

Terms = dict[str, float]


def measure_terms(size_bytes: int) -> Terms:
    """All terms, by name: seconds and bytes per GiB, and the CPU seconds of a number. Raises RunFailed."""
    found: Terms = {}
    for measure in (_huge, _small, _kernel_log, _verification):
        found |= _in_child(functools.partial(measure, size_bytes))
    return found | _in_child(_waking)


def _in_child(measure: Callable[[], Terms]) -> Terms:
    text = ask_in_child(lambda: json.dumps(measure()), TIMEOUT_SECONDS)
    if not text:
        raise RunFailed("a measuring process died: too little memory for this --size?")
    terms: Terms = json.loads(text)
    return terms


def _per_gib(work: Callable[[], object], size_bytes: int) -> float:
    """Seconds a GiB."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * GIB / size_bytes


def _nothing(share: float) -> None:
    """Nobody looks."""


def _page_tables() -> int:
    """Bytes of this process's page tables (proc(5), VmPTE)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmPTE:")[2].split()[0]) << 10


def _mapping(ram: GuestRam, kind: str) -> Terms:
    """Of a further mapping of an image that has its memory."""
    before = _page_tables()
    further = ram.remap(writable=True)
    seconds = _per_gib(lambda: populate(further.mapping, write=True), ram.size_bytes)
    tables = (_page_tables() - before) * GIB / ram.size_bytes
    return {f"map_{kind}_s": seconds, f"tables_{kind}_bytes": tables}


def _huge(size_bytes: int) -> Terms:
    ram = GuestRam.create(size_bytes, "bench")
    touch = _per_gib(lambda: populate_by_all_cores(ram.mapping, huge=True, on_share=_nothing), size_bytes)
    share = huge_bytes_of(ram.mapping) / size_bytes
    return {"touch_huge_s": touch, "huge_share": share, **_mapping(ram, "huge")}


def _small(size_bytes: int) -> Terms:
    ram = GuestRam.create(size_bytes, "bench")
    touch = _per_gib(lambda: populate_by_all_cores(ram.mapping, huge=False, on_share=_nothing), size_bytes)
    return {"touch_small_s": touch, **_mapping(ram, "small")}


def _kernel_log(size_bytes: int) -> Terms:
    """A guest in huge pages that writes through a mapping by page, as guests do."""
    image = GuestRam.create(size_bytes, "bench")
    populate_by_all_cores(image.mapping, huge=True, on_share=_nothing)
    ram = image.remap(writable=True, small_pages=True)
    populate_by_all_cores(ram.mapping, huge=False, on_share=_nothing)
    try:
        log = register(ram.mapping.address, size_bytes)
        scan = WriteScan(os.getpid(), ram.mapping.address, size_bytes)
        scan.clear()
    except NoKernelLog:
        return {}
    into: npt.NDArray[np.uint32] = np.ones(ram.pages, np.uint32)
    scan.pages(into, clear=True)
    idle = min(_per_gib(lambda: scan.pages(into, clear=True), size_bytes) for _ in range(5))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ram.words[:, 1] = 1
    everything = _per_gib(lambda: scan.pages(into, clear=True), size_bytes)
    private = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    os.close(log)
    return {"sync_idle_s": idle, "sync_all_s": everything, "sync_private_bytes": private * GIB / size_bytes}


def _verification(size_bytes: int) -> Terms:
    half = size_bytes // 2
    images = [GuestRam.create(half, "bench") for _ in range(2)]
    for image in images:
        populate_by_all_cores(image.mapping, huge=True, on_share=_nothing)
        image.words[:] = np.arange(512)
    compare = _per_gib(lambda: differences(images[0], images[1], _nothing), half)
    digest = _per_gib(lambda: region_digests(images[0], region_bytes_of(half)), half)
    return {"compare_s": compare, "digest_s": digest}


def _waking() -> Terms:
    """CPU of all sides to hand on one slot number while WAITERS wait for one."""
    return {"number_s": (_handed_on(NUMBERS) - _handed_on(0)) / NUMBERS, "waiters": WAITERS}


def _handed_on(count: int) -> float:
    """CPU seconds of all sides for so many numbers, processes started and ended included."""
    numbers, taken = SlotNumbers(), SlotNumbers()
    before = _cpu()
    children = []
    for _ in range(WAITERS):
        pid = os.fork()
        if pid == 0:
            while (slot := numbers.get()) is not None:
                taken.put(slot)
            os._exit(0)
        children.append(pid)
    time.sleep(0.5)
    for number in range(count):
        numbers.put(number % 1000)
        taken.get()
    numbers.end(WAITERS)
    for pid in children:
        os.waitpid(pid, 0)
    return _cpu() - before


def _cpu() -> float:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
