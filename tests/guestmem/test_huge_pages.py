"""Images in huge pages, and the guest that writes them page by page all the same."""

from __future__ import annotations

import os

import numpy as np
import pytest

from guestmem.aligned import AlignedMapping
from guestmem.content import Corpus
from guestmem.dirty_log import kernel
from guestmem.dirty_log.contract import NoDirtyLog, Opening
from guestmem.guest import GuestSpec, run_guest
from guestmem.ipc import Connection
from guestmem.prefault import huge_bytes_of, populate, populate_by_all_cores
from guestmem.ram import GuestRam
from guestmem.segment import HUGE_BYTES, create_segment
from guestmem.workload import Phase, steady

MIB = 1 << 20


def in_huge_pages(size_bytes: int) -> GuestRam:
    ram = GuestRam.create(size_bytes, "test")
    populate(ram.mapping, write=True, huge=True)
    if not huge_bytes_of(ram.mapping):
        pytest.skip("this kernel makes no huge pages here: MADV_COLLAPSE exists since Linux 6.1")
    return ram


def test_mappings_are_aligned_whatever_lies_around_them() -> None:
    kept = []
    for size in (2 * MIB, 4 * MIB + 4096, 2 * MIB, 10 * MIB):
        kept.append(AlignedMapping(create_segment("test", size), writable=size > 2 * MIB))
        assert kept[-1].address % HUGE_BYTES == 0 and len(kept[-1].memory) == size
        assert kept[-1].memory.readonly is (size == 2 * MIB)


def test_what_lies_there_stays_and_the_rest_of_a_huge_page_is_done_by_page() -> None:
    ram = GuestRam.create(5 * MIB, "test")
    ram.words[:, 7] = np.arange(ram.pages)
    populate(ram.mapping, write=True, huge=True, first_share=0.7)
    assert np.array_equal(ram.words[:, 7], np.arange(ram.pages))
    assert huge_bytes_of(ram.mapping) in (0, 4 * MIB)


def test_all_cores_tell_how_far_they_are() -> None:
    ram, shares = GuestRam.create(130 * MIB, "test"), list[float]()
    populate_by_all_cores(ram.mapping, huge=True, on_share=shares.append)
    assert shares == sorted(shares) and shares[-1] == 1.0


def test_a_further_mapping_has_its_page_tables_at_once() -> None:
    ram = in_huge_pages(64 * MIB)
    further = ram.remap(writable=True)
    populate(further.mapping, write=True)
    assert huge_bytes_of(further.mapping) == 64 * MIB
    small = ram.remap(writable=True, small_pages=True)
    populate(small.mapping, write=True)
    assert huge_bytes_of(small.mapping) == 0


def test_the_kernels_log_is_by_page() -> None:
    """Through a huge page one write makes 512 pages dirty."""
    ram = in_huge_pages(8 * MIB)
    small = ram.remap(writable=True, small_pages=True)
    populate(small.mapping, write=True)
    try:
        ours = kernel.KernelGuestLog(small)
    except NoDirtyLog as error:
        pytest.skip(str(error))
    opening = Opening(os.getpid(), small.fd, small.pages, ours.fields, ())
    theirs = kernel.KIND.open(opening)
    small.words[[3, 700, 1500], 5] = 1
    pages = np.zeros(small.pages, np.uint32)
    assert pages[: theirs.sync(pages)].tolist() == [3, 700, 1500]
    ours.close()


@pytest.mark.parametrize("log", ["kernel", "shared"])
def test_a_guest_in_huge_pages_says_so(log: str) -> None:
    ours, theirs = Connection.pair()
    spec = GuestSpec(64 * MIB, Corpus(None, 1.0), steady(Phase(0)))
    pid = os.fork()
    if pid == 0:
        ours.close()
        try:
            run_guest(theirs, spec)
        finally:
            os._exit(0)
    theirs.close()
    ours.send({"kind": "open", "log": log})
    while (answer := ours.receive())[0]["kind"] == "filling":
        pass
    ready, descriptors = answer
    ours.close()
    os.waitpid(pid, 0)
    if ready["kind"] == "no-log" or not ready["huge_bytes"]:
        pytest.skip(str(ready.get("text", "this kernel makes no huge pages here")))
    assert ready["huge_bytes"] == 64 * MIB
    for descriptor in descriptors:
        os.close(descriptor)
