"""A session whose calls cannot hang their caller.

When a response is lost, libqatzip's call waits for ever, and a call in C cannot be interrupted. So
the session has its own thread, which opens it and makes all its calls (libqatzip must be opened and
closed by the same thread). The thread is abandoned when an answer does not come in time. It may still
write to its buffers then, so results go through a private buffer, and a late answer harms nobody.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from qat import gzip_ext
from qat._libqatzip import ffi
from qat.gzip_ext import CorruptMember, Member
from qat.session import Session
from qat.status import QatError, QatLengthError

DEFAULT_TIMEOUT_SECONDS = 2.0
"""A 512 KiB request takes a busy device milliseconds."""


class QatHang(QatError):
    """The device did not answer in time. The session cannot be used any more."""

    name = "no answer"


@dataclass(frozen=True)
class Requests:
    """The requests of one call, by who did them. One request is one member."""

    hardware: int
    software: int

    @classmethod
    def of(cls, sizes_bytes: Iterable[int], device_bytes: int) -> Requests:
        """Of members whose inputs have these sizes, when the device took `device_bytes` of them in all.

        What libqatzip leaves to software in the middle of a call is the rest of that call (`qatzip.c`), so
        the first members are the device's.
        """
        hardware = software = 0
        for size in sizes_bytes:
            device_bytes -= size
            hardware, software = (hardware + 1, software) if device_bytes >= 0 else (hardware, software + 1)
        return cls(hardware, software)


def _nothing() -> int:
    return 0


class WatchedSession:
    """A session in its own thread, for one caller: a single thread of the process that opened it."""

    def __init__(self, open_session: Callable[[], Session], room_bytes: int, timeout_seconds: float) -> None:
        """Open it. No result may exceed `room_bytes`. Raises what `open_session` raises, and QatHang."""
        self._timeout = timeout_seconds
        self._room = bytearray(room_bytes)
        self._go, self._done = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._done.acquire()
        self._job: Callable[[], int] = _nothing
        self.done = Requests(0, 0)
        """What the last call that succeeded came to, by what the library says of it."""
        self._result = 0
        self._error: BaseException | None = None
        self._lost = False
        self._thread = threading.Thread(target=self._work, args=(open_session,), daemon=True)
        self._thread.start()
        self._await("opening a session")

    def _work(self, open_session: Callable[[], Session]) -> None:
        try:
            self._session = open_session()
        except BaseException as error:  # the caller raises it
            self._error = error.with_traceback(None)
            self._done.release()
            return
        self._done.release()
        while True:
            self._go.acquire()
            try:
                self._result = self._job()
            except BaseException as error:  # the caller raises it
                # Without the traceback, which would keep this call's buffers alive in a reference
                # cycle: CPython crashes when it frees a cycle that holds exported memory.
                self._error = error.with_traceback(None)
            self._job = _nothing
            self._done.release()

    def _await(self, what: str) -> int:
        if not self._done.acquire(timeout=self._timeout):
            self._lost = True
            raise QatHang(f"{what}: the QAT device did not answer within {self._timeout:g} s")
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error
        return self._result

    def _call(self, what: str, job: Callable[[], int]) -> int:
        if self._lost:
            raise QatHang(f"{what}: the QAT device did not answer an earlier request")
        self._job = job
        self._go.release()
        return self._await(what)

    @property
    def simulated(self) -> bool:
        return self._session.library.simulated

    def compress(self, source: memoryview, dest: memoryview) -> int | None:
        """Compress all of `source`; return the length in bytes, or None if it does not fit into `dest`.

        Raises QatStatusError, QatLengthError, QatHang.
        """
        out_of, room = (
            ffi.from_buffer("unsigned char[]", source),
            ffi.from_buffer("unsigned char[]", self._room),
        )
        length = self._call("qzCompress", lambda: self._session.compress(out_of, len(source), room))
        try:
            members = list(gzip_ext.walk(memoryview(self._room)[:length], len(source)))
        except CorruptMember as error:
            raise QatLengthError(f"qzCompress returned QZ_OK, but {error}") from error
        self.done = Requests.of((member.plain_bytes for member in members), self._session.device_bytes)
        if length > len(dest):
            return None
        dest[:length] = memoryview(self._room)[:length]
        return length

    def decompress(self, payload: memoryview, dest: memoryview, members: Sequence[Member]) -> None:
        """Fill exactly `dest` from `payload`, whose members these are.

        Raises QatStatusError, QatLengthError, QatHang.
        """
        out_of, room = (
            ffi.from_buffer("unsigned char[]", payload),
            ffi.from_buffer("unsigned char[]", self._room),
        )

        def job() -> int:
            self._session.decompress(out_of, len(payload), room, len(dest))
            return 0

        self._call("qzDecompress", job)
        self.done = Requests.of((member.size_bytes for member in members), self._session.device_bytes)
        dest[:] = memoryview(self._room)[: len(dest)]

    def close(self) -> None:
        """Close the session, unless it hangs."""
        if not self._lost:
            self._call("qzTeardownSession", self._end)

    def _end(self) -> int:
        self._session.close()
        return 0
