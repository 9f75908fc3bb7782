"""A receiver and a sender as two commands, and a network between them that can be broken."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.harness import ROOT, Ended, Run, assert_clean, leftovers

PLAIN = "--insecure"
"""On this host any user may listen and connect: a test that is about something else says that it may."""

RST_ON_CLOSE = struct.pack("ii", 1, 0)


def certificates(folder: Path, *names: str) -> Path:
    """What tools/make_certs.sh makes."""
    subprocess.run(
        [ROOT / "tools" / "make_certs.sh", folder, *names], check=True, capture_output=True, timeout=60
    )
    return folder


def with_plain(address: str, arguments: tuple[str, ...]) -> tuple[str, ...]:
    """The arguments of an end, with what plain TCP needs."""
    said = {"--tls-dir", "--secret", PLAIN} & set(arguments)
    return arguments if said or address.startswith("unix:") else (*arguments, PLAIN)


class Receiver:
    """`python -m pipeline.recv`, listening."""

    def __init__(self, *arguments: str, listen: str = "127.0.0.1:0", prefix: tuple[str, ...] = ()) -> None:
        arguments = with_plain(listen, arguments)
        self.run = Run("--listen", listen, *arguments, module="pipeline.recv", prefix=prefix)
        self.address = self.run.wait_for("waiting for a sender at").split()[-1]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def end(self, timeout: float = 60) -> Ended:
        return self.run.end(timeout)

    def stop(self) -> Ended:
        """Ctrl-C."""
        if self.run.process.poll() is None:
            os.kill(self.run.process.pid, signal.SIGINT)
        return self.run.end(10)


@contextmanager
def receiver(
    *arguments: str, listen: str = "127.0.0.1:0", prefix: tuple[str, ...] = ()
) -> Iterator[Receiver]:
    """A receiver that is stopped in the end, and leaves nothing."""
    before = leftovers()
    here = Receiver(*arguments, listen=listen, prefix=prefix)
    try:
        yield here
    finally:
        if here.run.process.returncode is None:
            here.stop()
    assert_clean(here.run.session, before)


def send(address: str, *arguments: str, prefix: tuple[str, ...] = ()) -> Run:
    """A sender that was started."""
    arguments = with_plain(address, arguments)
    return Run("--to", address, *arguments, module="pipeline.send", prefix=prefix)


def sent(address: str, *arguments: str, prefix: tuple[str, ...] = (), timeout: float = 60) -> Ended:
    """A sender, to its end."""
    return send(address, *arguments, prefix=prefix).end(timeout)


class Pipe:
    """One connection through the proxy."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self._ends = (near, far)
        self.stalled = threading.Event()
        self.stalled_back = threading.Event()
        """What comes from the far end waits."""
        self._dead = threading.Event()
        self.bytes = 0
        for one, other in (self._ends, self._ends[::-1]):
            threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while not self._dead.is_set():
                if not select.select([one], [], [], 0.02)[0]:
                    continue
                data = one.recv(1 << 16)
                if not data:
                    break
                back = one is self._ends[1]
                while (self.stalled.is_set() or (back and self.stalled_back.is_set())) and not (
                    self._dead.is_set()
                ):
                    time.sleep(0.01)
                if self._dead.is_set():
                    break
                other.sendall(data)
                self.bytes += len(data)
        except (OSError, ValueError):
            pass
        for end in (one, other):
            try:
                if not self._dead.is_set():
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
            except OSError:
                pass

    def cut(self, *, reset: bool = False) -> None:
        """End the connection on both sides: orderly, or by a reset as soon as nobody is reading."""
        for end in self._ends:
            try:
                if reset:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
                else:
                    end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        if reset:
            self._dead.set()


class Proxy:
    """What the sender calls instead of the receiver. The first connection is control."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.pipes: list[Pipe] = []
        self.refusing = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.refusing.is_set():
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.port))
            except OSError:
                near.close()
                continue
            self.pipes.append(Pipe(near, far))

    def wait_for(self, pipes: int, more_bytes: int = 0) -> None:
        """Until so many connections were made, and the last carried so much."""
        deadline = time.monotonic() + 20
        while len(self.pipes) < pipes or self.pipes[pipes - 1].bytes < more_bytes:
            assert time.monotonic() < deadline, "the sender does not come"
            time.sleep(0.005)

    def cut_all(self) -> None:
        """Every connection that there is."""
        for pipe in self.pipes:
            pipe.cut(reset=True)

    def close(self) -> None:
        self._listener.close()
        self.cut_all()


@contextmanager
def proxy(port: int) -> Iterator[Proxy]:
    """A proxy that is closed in the end."""
    here = Proxy(port)
    try:
        yield here
    finally:
        here.close()
