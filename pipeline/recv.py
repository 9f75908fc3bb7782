"""`python -m pipeline.recv`: wait for a sender, receive its guest's RAM, keep it if asked."""

from __future__ import annotations

import functools
import os
import signal
import socket
import sys
from typing import Any

from guestmem.ipc import Connection, Message
from pipeline.cli.main import cancelled_early, end_of, guarded

if __name__ == "__main__":
    signal.signal(signal.SIGINT, cancelled_early)
    signal.signal(signal.SIGTERM, cancelled_early)
    # numpy's BLAS would start a thread a core, and a process with threads should not fork.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from pipeline.cli.recv_options import RecvOptions, parse_recv
from pipeline.errors import Cancelled, FerryError, HostError, RunFailed, one_line
from pipeline.net.address import address_of
from pipeline.processes.supervisor import Supervisor, Worker, signals_cancel
from pipeline.progress import Progress, open_log
from pipeline.report.document import save_json
from pipeline.transports.tcp.server.receive_run import ReceiveOptions
from pipeline.transports.tcp.server.session import Session

CANCEL_SECONDS = 1.5
STEP_SECONDS = 0.1


def run_session(connection: Connection, options: ReceiveOptions, listener: socket.socket) -> None:
    """One session in a process of its own, so that all that it held goes with it."""

    def cancel() -> None:
        order, _ = connection.receive()
        raise Cancelled(str(order["text"]))

    with Supervisor() as supervisor:
        supervisor.watch(connection.socket, cancel)
        say = functools.partial(_line, connection, "say")
        warn = functools.partial(_line, connection, "warn")
        outcome = Session(options, listener, supervisor, say, warn).serve()
    error = outcome.error
    connection.send(
        {
            "kind": "ended",
            "status": "completed" if error is None else error.status,
            "error": None if error is None else one_line(error),
            "record": outcome.record,
        }
    )


def _line(connection: Connection, how: str, text: str) -> None:
    connection.send({"kind": how, "text": text})


def receive_one(
    supervisor: Supervisor, options: RecvOptions, listener: socket.socket, progress: Progress
) -> Message:
    """One session, to its end: what it says of itself. Raises Cancelled, HostError."""
    main = functools.partial(run_session, options=options.receive, listener=listener)
    worker = supervisor.start("session", "recv", main)
    worker.leaving = True
    try:
        while True:
            said = _await(supervisor, worker)
            if said["kind"] == "ended":
                return said
            (progress.warn if said["kind"] == "warn" else progress.say)(str(said["text"]))
    except Cancelled as error:
        _cancel(supervisor, worker, one_line(error))
        raise
    finally:
        supervisor.dismiss(worker)


def _await(supervisor: Supervisor, worker: Worker) -> Message:
    while not worker.inbox:
        if worker.exit_status is not None:
            return {"kind": "ended", "status": "failed", "error": "the session was killed", "record": {}}
        try:
            supervisor.wait(STEP_SECONDS)
        except RunFailed as error:
            return {"kind": "ended", "status": "failed", "error": one_line(error), "record": {}}
    return worker.inbox.pop(0)[0]


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


def serve(options: RecvOptions) -> tuple[int, dict[str, Any]]:
    """Sessions one after the other; the exit code, and the last one's record. Raises FerryError."""
    try:
        listener = options.listen.listen()
    except OSError as error:
        raise HostError(f"--listen {options.listen}: {error.strerror or error}") from error
    progress = open_log(options.quiet)
    if options.insecure:
        progress.warn("--insecure: whoever can reach this port can send RAM, and read what is sent")
    complete = 0
    try:
        with Supervisor() as supervisor, signals_cancel(supervisor):
            while True:
                progress.say(f"waiting for a sender at {address_of(listener)}")
                ended = receive_one(supervisor, options, listener, progress)
                record = {"status": ended["status"], "error": ended["error"], **ended["record"]}
                if ended["error"] is not None:
                    print(f"error: {ended['error']}", file=sys.stderr, flush=True)
                    if options.once:
                        return 1, record
                    continue
                complete += 1
                if options.once or complete == options.runs:
                    return 0, record
    finally:
        listener.close()
        if options.listen.path:
            os.unlink(options.listen.path)


def main(arguments: list[str]) -> int:
    """Receive, print, and return the exit code."""
    try:
        options = parse_recv(arguments)
        code, record = serve(options)
        if options.json is not None:
            save_json(record, options.json)
    except FerryError as raised:
        return end_of(raised)
    if options.json != "-" and code == 0:
        kept = f", kept as {record['kept']}" if record["kept"] else ""
        print(f"received {record['size_bytes'] >> 20} MiB in {record['rounds']} rounds{kept}")
    return code


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
