from __future__ import annotations

import os

import numpy as np
import pytest

from guestmem.dirty_log import write_protect
from guestmem.dirty_log.contract import Opening
from guestmem.dirty_log.kernel import KIND, KernelDirtyLog
from guestmem.dirty_log.write_protect import NoKernelLog, check_mapping, register
from guestmem.page import PAGE_BYTES
from guestmem.ram import GuestRam

MIB = 1 << 20


def test_the_kernel_log_of_a_process_that_is_gone_is_refused() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.raises(NoKernelLog, match="pagemap"):
        KernelDirtyLog(pid, PAGE_BYTES, MIB)


def test_a_kernel_without_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_protect, "UFFD_FEATURE_WP_ASYNC", 1 << 60)
    ram = GuestRam.create(MIB, "test")
    with pytest.raises(NoKernelLog, match=r"since Linux 6\.7"):
        register(ram.words.ctypes.data, MIB)
    monkeypatch.setattr(write_protect, "SYS_USERFAULTFD", {})
    with pytest.raises(NoKernelLog, match="not known on"):
        register(ram.words.ctypes.data, MIB)


def test_a_kernel_without_the_scan_leaves_no_descriptor_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_protect, "PAGEMAP_SCAN", 0)
    ram = GuestRam.create(MIB, "test")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(NoKernelLog, match="PAGEMAP_SCAN"):
        KernelDirtyLog(os.getpid(), ram.words.ctypes.data, MIB)
    assert os.listdir("/proc/self/fd") == before


def test_what_is_not_of_this_log_is_refused() -> None:
    with pytest.raises(KeyError, match="address"):
        KIND.open(Opening(os.getpid(), 0, 256, {}, ()))
    with pytest.raises(ValueError, match="without descriptors"):
        KIND.open(Opening(os.getpid(), 0, 256, {"address": 0}, (0,)))


def test_only_the_memory_that_is_migrated_is_watched() -> None:
    """A pid may be another process's, as this side sees it, and an address another mapping's."""
    ram, other = GuestRam.create(MIB, "test"), GuestRam.create(MIB, "test")
    address = ram.words.ctypes.data
    check_mapping(os.getpid(), address, MIB, ram.fd)
    for pid, at, length, fd in (
        (os.getpid(), address, MIB, other.fd),
        (os.getpid(), address + PAGE_BYTES, MIB - PAGE_BYTES, ram.fd),
        (os.getpid(), address, 2 * MIB, ram.fd),
        (os.getppid(), address, MIB, ram.fd),
        (0, address, MIB, ram.fd),
    ):
        with pytest.raises(NoKernelLog):
            check_mapping(pid, at, length, fd)


@pytest.mark.parametrize("part", [MIB, 4 * MIB, 64 * MIB])
@pytest.mark.parametrize("step", [7, 1 << 18])
def test_parts_of_a_large_guest_make_one_list(part: int, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest above 4 GiB is scanned part by part, and long lists are laid out step by step."""
    monkeypatch.setattr(write_protect, "PART_BYTES", part)
    monkeypatch.setattr(write_protect, "EXPAND_PAGES", step)
    ram = GuestRam.create(10 * MIB, "test")
    ram.words[:] = 0
    try:
        watching = register(ram.mapping.address, ram.size_bytes)
        scan = write_protect.WriteScan(os.getpid(), ram.mapping.address, ram.size_bytes)
    except NoKernelLog as error:
        pytest.skip(str(error))
    scan.clear()
    into = np.zeros(ram.pages, np.uint32)
    for written in ([], [0, 255, 256, 1000, ram.pages - 1], list(range(200, 1500)), list(range(ram.pages))):
        ram.words[written, 1] = 1
        assert scan.count() == len(written)
        assert into[: scan.pages(into, clear=True)].tolist() == written
        assert scan.count() == 0
    scan.close()
    os.close(watching)
