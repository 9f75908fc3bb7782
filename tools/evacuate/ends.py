"""Both ends of a migration, as processes: of this machine (in a namespace or not), or of a Dask worker's."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from tools.evacuate.plan_file import Host

LOOK_SECONDS = 0.05
GRACE_SECONDS = 10.0
"""How long an end may take to stop by itself: the guest is released first, then all is cleaned up."""

KEPT_CHARACTERS = 1 << 20


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, standard output, and the last line of standard error."""

    code: int
    output: str
    said: str


class End(Protocol):
    """A process that was started."""

    def ended(self) -> Ended | None:
        """None while it runs."""

    def stop(self) -> None:
        """Have it cancelled; it still ends by itself."""


class Starter(Protocol):
    """Starts ends on hosts."""

    def start(self, host: Host, words: Sequence[str]) -> End: ...

    def close(self) -> None: ...


def run_process(words: Sequence[str], prefix: Sequence[str], stopped: Callable[[], bool]) -> Ended:
    """`python -m WORDS` until it ends, cancelled once `stopped` says so."""
    command = [*prefix, sys.executable, "-m", *words]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for who carries out the plan
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    with ThreadPoolExecutor(1) as reader:
        read: Future[tuple[str, str]] = reader.submit(process.communicate)
        told_at = 0.0
        while not read.done():
            time.sleep(LOOK_SECONDS)
            if stopped() and not told_at:
                told_at = time.monotonic()
                process.send_signal(signal.SIGTERM)
            elif told_at and time.monotonic() - told_at > GRACE_SECONDS:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        output, errors = read.result()
    lines = errors.strip().splitlines()
    return Ended(process.returncode, output[-KEPT_CHARACTERS:], lines[-1] if lines else "")


class _HereEnd:
    def __init__(self, pool: ThreadPoolExecutor, words: Sequence[str], prefix: Sequence[str]) -> None:
        self._stopped = False
        self._future = pool.submit(run_process, words, prefix, lambda: self._stopped)

    def ended(self) -> Ended | None:
        return self._future.result() if self._future.done() else None

    def stop(self) -> None:
        self._stopped = True


class Here:
    """All hosts are this machine, or namespaces of it."""

    def __init__(self, most: int) -> None:
        self._pool = ThreadPoolExecutor(most)

    def start(self, host: Host, words: Sequence[str]) -> End:
        prefix = [] if host.netns is None else ["ip", "netns", "exec", host.netns]
        return _HereEnd(self._pool, words, prefix)

    def close(self) -> None:
        self._pool.shutdown()


def run_on_worker(words: Sequence[str], name: str) -> Ended:
    """A task of a Dask worker's; it is told to stop by a variable of the scheduler's."""
    distributed: Any = importlib.import_module("distributed")
    told = distributed.Variable(name, client=distributed.get_client())
    looked = [0.0, 0.0]

    def stopped() -> bool:
        if time.monotonic() - looked[0] > STOP_LOOK_SECONDS:
            looked[0] = time.monotonic()
            try:
                looked[1] = float(bool(told.get(timeout=STOP_LOOK_SECONDS)))
            except (TimeoutError, OSError):
                pass  # nobody has said anything
        return bool(looked[1])

    return run_process(words, (), stopped)


STOP_LOOK_SECONDS = 0.5


class _WorkerEnd:
    def __init__(self, client: Any, host: Host, words: Sequence[str], number: int) -> None:
        name = f"ramferry-stop-{os.getpid()}-{number}"
        self._told: Any = importlib.import_module("distributed").Variable(name, client=client)
        self._told.set(False)
        self._future = client.submit(
            run_on_worker, list(words), name, workers=[host.worker], pure=False, retries=0
        )

    def ended(self) -> Ended | None:
        if not self._future.done():
            return None
        if self._future.status != "finished":
            return Ended(1, "", f"the worker failed: {self._future.exception()}")
        return self._future.result()  # type: ignore[no-any-return]

    def stop(self) -> None:
        self._told.set(True)


class OnWorkers:
    """Each host has a Dask worker of the name that the plan gives; hosts without one are here."""

    def __init__(self, client: Any, most: int) -> None:
        self._client, self._here, self._count = client, Here(most), 0

    def start(self, host: Host, words: Sequence[str]) -> End:
        if host.worker is None:
            return self._here.start(host, words)
        self._count += 1
        return _WorkerEnd(self._client, host, words, self._count)

    def close(self) -> None:
        self._here.close()
