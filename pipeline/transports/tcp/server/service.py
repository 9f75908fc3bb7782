"""Sessions one after the other, each in a process of its own, so that all that it held goes with it."""

from __future__ import annotations

import functools
import socket
import ssl
import sys
import time
from dataclasses import dataclass
from typing import Any

from guestmem.ipc import Connection, Message
from pipeline.errors import Cancelled, FerryError, HostError, RunFailed, one_line, traceback_of
from pipeline.net.address import Address, address_of
from pipeline.net.certificates import Certificates
from pipeline.net.tls import SERVER
from pipeline.options import ReceiveOptions
from pipeline.processes.memory import check_shared_memory
from pipeline.processes.placement import stay_on
from pipeline.processes.signals import signals_cancel
from pipeline.processes.supervisor import Supervisor, Worker
from pipeline.progress import Progress
from pipeline.transports.tcp.server.session import Session

CANCEL_SECONDS = 1.5
STEP_SECONDS = 0.1
MAX_PAUSE_SECONDS = 5.0
"""Between sessions that end before anybody came."""


@dataclass(frozen=True)
class ServiceOptions:
    """When to end: after `runs` complete ones (0 is never), or after the first however it ended (`once`)."""

    runs: int
    once: bool


def serve(
    listen: Address, options: ReceiveOptions, service: ServiceOptions, progress: Progress
) -> tuple[int, dict[str, Any]]:
    """The exit code, and the last session's record. Raises FerryError."""
    check_shared_memory()
    stay_on(options.recv_cpus)
    try:
        listener = listen.listen()
        file = listen.file()
    except OSError as error:
        raise HostError(f"--listen {listen}: {error.strerror or error}") from error
    complete, pause = 0, 0.0
    try:
        certificates = None if options.tls is None else Certificates(options.tls, SERVER, progress.warn)
        with Supervisor() as supervisor, signals_cancel(supervisor):
            while True:
                progress.say(f"waiting for a sender at {address_of(listener)}")
                context = None if certificates is None else certificates.context()
                record = _receive_one(supervisor, options, listener, context, progress)
                if record["error"] is not None:
                    print(f"error: {record['error']}", file=sys.stderr, flush=True)
                    if service.once:
                        return RunFailed.exit_code, record
                    # Where nobody came, the fault is on this side, and may be there again at once.
                    pause = 0.0 if record.get("sender") else min(MAX_PAUSE_SECONDS, pause * 2 or STEP_SECONDS)
                    _pause(supervisor, pause)
                    continue
                pause = 0.0
                complete += 1
                if service.once or complete == service.runs:
                    return 0, record
    finally:
        listener.close()
        listen.remove(file)


def _pause(supervisor: Supervisor, seconds: float) -> None:
    """Raises Cancelled."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        supervisor.wait(left)


def _run_session(
    connection: Connection,
    options: ReceiveOptions,
    listener: socket.socket,
    context: ssl.SSLContext | None,
) -> None:

    def cancel() -> None:
        order, _ = connection.receive()
        raise Cancelled(str(order["text"]))

    def line(how: str, text: str) -> None:
        connection.send({"kind": how, "text": text})

    with Supervisor() as supervisor:
        supervisor.watch(connection.socket, cancel)
        say, warn = functools.partial(line, "say"), functools.partial(line, "warn")
        outcome = Session(options, listener, context, supervisor, say, warn).serve()
    error = outcome.error
    connection.send(
        {
            "kind": "ended",
            "status": "completed" if error is None else error.status,
            "error": None if error is None else one_line(error),
            "traceback": None if error is None else traceback_of(error),
            **outcome.record,
        }
    )


def _receive_one(
    supervisor: Supervisor,
    options: ReceiveOptions,
    listener: socket.socket,
    context: ssl.SSLContext | None,
    progress: Progress,
) -> dict[str, Any]:
    """One session, to its end: what it says of itself. Raises Cancelled, HostError."""
    main = functools.partial(_run_session, options=options, listener=listener, context=context)
    worker = supervisor.start("session", "recv", main)
    worker.leaving = True
    try:
        while True:
            said = _await(supervisor, worker)
            if said["kind"] == "ended":
                return {name: value for name, value in said.items() if name != "kind"}
            (progress.warn if said["kind"] == "warn" else progress.say)(str(said["text"]))
    except Cancelled as error:
        _cancel(supervisor, worker, one_line(error))
        raise
    finally:
        supervisor.dismiss(worker)


def _await(supervisor: Supervisor, worker: Worker) -> Message:
    while not worker.inbox:
        if worker.exit_status is not None:
            return _failed(RunFailed("the session was killed"))
        try:
            supervisor.wait(STEP_SECONDS)
        except (RunFailed, HostError) as error:
            return _failed(error)
    return worker.inbox.pop(0)[0]


def _failed(error: FerryError) -> Message:
    return {
        "kind": "ended",
        "status": error.status,
        "error": one_line(error),
        "traceback": traceback_of(error),
    }


def _cancel(supervisor: Supervisor, worker: Worker, text: str) -> None:
    """Let the session tell its sender."""
    supervisor.forget_cancel()
    supervisor.tell(worker, {"kind": "cancel", "text": text})
    for _ in range(int(CANCEL_SECONDS / STEP_SECONDS)):
        if worker.exit_status is not None:
            return
        try:
            supervisor.wait(STEP_SECONDS)
        except FerryError:
            return
