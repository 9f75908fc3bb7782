"""What the workers of one machine share: a lock, so that it runs one point at a time, and a folder.

Both lie in a folder of the user's own. The lock is the kernel's (flock), so it goes with the process that has
it. A campaign's folder has its images, and a lease that every worker which uses it holds open (a shared
flock): a folder whose lease nobody holds is removed by whoever comes next.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import HostError
from qat.private_folder import NotPrivate, make_private

SHARED = Path("/tmp")  # the same for all workers of a machine, which TMPDIR need not be
STEP_SECONDS = 0.1
LEASE = "lease"

_leases: dict[str, int] = {}


def machine_id() -> str:
    """The same for all that runs under this kernel, in containers and network namespaces too."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def private_folder() -> Path:
    """The user's own folder on this machine. Raises HostError."""
    try:
        return make_private(SHARED / f"ramferry-{os.geteuid()}")
    except (NotPrivate, OSError) as error:
        raise HostError(str(error)) from error


@contextmanager
def machine_lock(seconds: float, stopped: Callable[[], None]) -> Iterator[None]:
    """Hold this machine. `stopped` is called while it waits, and may raise.

    Raises HostError when another holds it for so long.
    """
    descriptor = os.open(private_folder() / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + seconds
    try:
        while not _locked(descriptor, fcntl.LOCK_EX):
            stopped()
            if time.monotonic() > deadline:
                raise HostError(f"another campaign has held this machine for {seconds:.0f} s")
            time.sleep(STEP_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def campaign_folder(campaign: str) -> Path:
    """Where a campaign's files lie, until `forget` or the end of every process that has asked.

    Call it under the machine's lock. Raises HostError, OSError.
    """
    folder = private_folder() / f"campaign-{campaign}"
    if campaign not in _leases:
        sweep()
        folder.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(folder / LEASE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        _leases[campaign] = descriptor
    return folder


def forget(campaign: str) -> None:
    """This process needs a campaign's folder no more."""
    descriptor = _leases.pop(campaign, None)
    if descriptor is not None:
        os.close(descriptor)
    sweep()


def sweep() -> None:
    """Remove the folders of campaigns that no process has a lease of."""
    for folder in private_folder().glob("campaign-*"):
        try:
            descriptor = os.open(folder / LEASE, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)  # its maker died before it had a lease
            continue
        try:
            if _locked(descriptor, fcntl.LOCK_EX):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)
