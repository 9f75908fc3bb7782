"""What runs within a Dask worker: a point, or one end of it.

A task ends what it has started as soon as nobody waits for it any more: its client has cancelled it or is
gone, or the worker is told to end. When the worker itself is killed the kernel kills what it has started.
"""

from __future__ import annotations

import datetime
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

from pipeline import __version__
from pipeline.codecs import library_versions
from pipeline.errors import FerryError, HostError, RunFailed, one_line
from pipeline.processes.command import start_command
from pipeline.report.host import host_record
from qat.scripts import PROJECT
from tools.compare.cluster.job import Certificates, ImageOf, Job, Look, Outcome
from tools.compare.cluster.machine import campaign_folder, machine_id, machine_lock
from tools.measuring.images import KINDS
from tools.measuring.trial import NOT_CONVERGED, TIMEOUT_SECONDS, command_of

STEP_SECONDS = 0.05
END_SECONDS = 5.0
LOCK_SECONDS = 2 * TIMEOUT_SECONDS
SECOND_LOCK_SECONDS = 60.0
"""The sender waits for its machine while the receiver holds the other: two campaigns must not for ever."""

DASKS_MALLOC = "MALLOC_TRIM_THRESHOLD_"
"""Dask's nanny sets it for its workers; a migration shall have the memory that it has without Dask."""

LISTENS = "waiting for a sender at "

MAKE_IMAGE = """
import sys
from pathlib import Path
sys.path[0] = sys.argv[1]
from tools.measuring.images import write_image
write_image(sys.argv[2], int(sys.argv[3]), Path(sys.argv[5]) if sys.argv[5:] else None, Path(sys.argv[4]))
"""

running: set[int] = set()
"""Pids of what this worker has started."""


class NobodyWaits(FerryError):
    """The task was cancelled, or its worker is to end."""


def look(dask_worker: Any) -> Look:
    """How a worker shows itself."""
    return Look(
        str(dask_worker.name),
        dict(dask_worker.state.total_resources),
        machine_id(),
        socket.gethostname(),
        __version__,
        host_record(library_versions()),
    )


def still_running() -> int:
    """How many commands this worker has running."""
    return len(running)


def run_point(job: Job) -> Outcome:
    """Both ends on this host."""
    check = _interest()

    def measure() -> dict[str, Any]:
        with machine_lock(LOCK_SECONDS, check):
            image = _image(job.image, job.campaign, check)
            return _run("pipeline.run", ["--image", str(image), *job.arguments], check)

    return _outcome(measure)


def receive(job: Job, certificates: Certificates, topic: str) -> Outcome:
    """The receiving end; under the topic it tells at which address it listens."""
    from distributed import get_worker
    from distributed.comm.addressing import get_address_host

    worker, check = get_worker(), _interest()
    listen = get_address_host(worker.contact_address or worker.address)
    arguments = ["--listen", f"[{listen}]:0" if ":" in listen else f"{listen}:0", "--once"]
    arguments += ["--prealloc"] if job.prealloc else []

    def tell(said: str) -> None:
        if LISTENS in said:
            address = said.partition(LISTENS)[2].split()[0]
            worker.log_event(topic, {"name": job.name, "address": address})

    def measure() -> dict[str, Any]:
        with machine_lock(LOCK_SECONDS, check), _tls_folder(job, certificates) as folder:
            return _run("pipeline.recv", [*arguments, *_tls(folder, certificates)], check, tell)

    return _outcome(measure)


def send(job: Job, certificates: Certificates, address: str, shares_machine: bool) -> Outcome:
    """The sending end. `shares_machine`: the receiver is on this machine, and holds it for both."""
    check = _interest()

    def measure() -> dict[str, Any]:
        lock = nullcontext() if shares_machine else machine_lock(SECOND_LOCK_SECONDS, check)
        with lock, _tls_folder(job, certificates) as folder:
            image = _image(job.image, job.campaign, check)
            arguments = ["--to", address, "--image", str(image), "--reconnect", "5"]
            return _run("pipeline.send", [*arguments, *_tls(folder, certificates), *job.arguments], check)

    return _outcome(measure)


def _outcome(measure: Callable[[], dict[str, Any]]) -> Outcome:
    try:
        result = measure()
    except HostError as error:
        return Outcome(None, one_line(error), elsewhere=True)
    except (FerryError, OSError) as error:
        return Outcome(None, one_line(error))
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    return Outcome({**result, "measured_at": now})


def _interest() -> Callable[[], None]:
    """What raises NobodyWaits once the task that calls this is wanted no more."""
    from distributed import get_worker
    from distributed.core import Status

    worker = get_worker()
    key = worker.get_current_task()

    def check() -> None:
        task = worker.state.tasks.get(key)
        if task is None or task.state != "executing":
            raise NobodyWaits("cancelled")
        if worker.status not in (Status.running, Status.paused):
            raise NobodyWaits("its worker ends")

    return check


def _tls_folder(job: Job, certificates: Certificates) -> tempfile.TemporaryDirectory[str]:
    """The certificates in a folder that goes with the run (made with mode 0700)."""
    folder = tempfile.TemporaryDirectory(prefix="tls-", dir=campaign_folder(job.campaign))
    for name, text in certificates.files.items():
        path = Path(folder.name, name)
        path.touch(0o600)
        path.write_text(text)
    return folder


def _tls(folder: str, certificates: Certificates) -> list[str]:
    return ["--tls-dir", folder, "--tls-peer", certificates.name]


def _image(image: ImageOf, campaign: str, check: Callable[[], None]) -> Path:
    """The image's file, which is made where it is not there yet. Raises FerryError, OSError."""
    if image.name not in KINDS:
        if not Path(image.name).is_file():
            raise HostError(f"{image.name}: no such image on this host")
        return Path(image.name)
    if image.fill is not None and not Path(image.fill).exists():
        raise HostError(f"fill: {image.fill}: no such file or folder on this host")
    made = campaign_folder(campaign) / f"{image.name}.raw"
    if not made.exists():
        with tempfile.TemporaryDirectory(dir=made.parent, prefix="new-") as folder:
            command = [sys.executable, "-c", MAKE_IMAGE, str(PROJECT), image.name, str(image.size_bytes)]
            command += [folder, *([image.fill] if image.fill is not None else [])]
            code, _, said = _run_to_end(command, check)
            if code != 0:
                raise HostError(f"the {image.name} image cannot be made: {_last_line(said, code)}")
            next(Path(folder).glob("*.raw")).replace(made)
    return made


def _run(
    module: str,
    arguments: Sequence[str],
    check: Callable[[], None],
    tell: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """The document of a command of ours. Raises FerryError."""
    quiet = [] if tell else ["--quiet"]
    code, out, said = _run_to_end(command_of(module, *quiet, "--json", "-", *arguments), check, tell)
    if code in (0, NOT_CONVERGED):
        document: dict[str, Any] = json.loads(out)
        return document
    what = HostError if code == HostError.exit_code else RunFailed
    raise what(f"{module}: {_last_line(said, code)}")


def _last_line(said: str, code: int) -> str:
    lines = said.strip().splitlines()
    return lines[-1].removeprefix("error: ").removeprefix("pipeline.errors.") if lines else f"exit {code}"


def _run_to_end(
    command: list[str], check: Callable[[], None], tell: Callable[[str], None] | None = None
) -> tuple[int, str, str]:
    """Exit code, standard output and standard error. `tell` gets the latter's first line, once it is there.

    Raises FerryError when it took too long, or is wanted no more: then it is ended first.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as said:
        environment = {name: value for name, value in os.environ.items() if name != DASKS_MALLOC}
        process = start_command(command, stdin=subprocess.DEVNULL, stdout=out, stderr=said, env=environment)
        running.add(process.pid)
        deadline = time.monotonic() + TIMEOUT_SECONDS
        try:
            while process.poll() is None:
                check()
                if time.monotonic() > deadline:
                    raise RunFailed(f"was not done after {TIMEOUT_SECONDS:.0f} s")
                if tell is not None and LISTENS in (text := _text(said)) and text.endswith("\n"):
                    tell(text)
                    tell = None
                time.sleep(STEP_SECONDS)
        finally:
            _end(process)
            running.discard(process.pid)
        return process.returncode, _text(out), _text(said)


def _text(file: IO[str]) -> str:
    """All that was written so far; where the writer stands is not moved, as `seek` would."""
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), size, 0).decode(errors="replace")


def _end(process: subprocess.Popen[Any]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
