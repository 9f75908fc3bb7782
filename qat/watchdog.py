"""A session whose calls cannot hang their caller.

A lost response keeps libqatzip's call waiting for ever, and a call in C cannot be interrupted. So
the session lives in a thread of its own, which opens it, makes all its calls (libqatzip wants
opening and closing in one thread) and is left behind when an answer does not come in time. It then
still holds its buffers: results go through a private one, so an answer that comes late after all
is written where nobody reads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from qat._libqatzip import ffi
from qat.session import Session
from qat.status import QatError

DEFAULT_TIMEOUT_SECONDS = 2.0
"""A 512 KiB request takes a busy device milliseconds."""


class QatHang(QatError):
    """The device did not answer in time. The session is lost with it."""

    name = "no answer"


def _nothing() -> int:
    return 0


class WatchedSession:
    """A session in a thread of its own. Used by one thread of the process that opened it."""

    def __init__(self, open_session: Callable[[], Session], room_bytes: int, timeout_seconds: float) -> None:
        """Open it. `room_bytes` is the largest result. Raises what opening raises, QatHang."""
        self._timeout = timeout_seconds
        self._room = bytearray(room_bytes)
        self._go, self._done = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._done.acquire()
        self._job: Callable[[], int] = _nothing
        self._result = 0
        self._error: BaseException | None = None
        self._lost = False
        self._thread = threading.Thread(target=self._work, args=(open_session,), daemon=True)
        self._thread.start()
        self._await("opening a session")

    def _work(self, open_session: Callable[[], Session]) -> None:
        try:
            self._session = open_session()
        except BaseException as error:  # reaches the caller
            self._error = error.with_traceback(None)
            self._done.release()
            return
        self._done.release()
        while True:
            self._go.acquire()
            try:
                self._result = self._job()
            except BaseException as error:  # reaches the caller
                # Without its traceback: that would hold the buffers of this call in a cycle, and
                # CPython crashes when it breaks one with exported memory in it.
                self._error = error.with_traceback(None)
            self._job = _nothing
            self._done.release()

    def _await(self, what: str) -> int:
        if not self._done.acquire(timeout=self._timeout):
            self._lost = True
            raise QatHang(f"{what}: the QAT device gave no answer within {self._timeout:g} s")
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error
        return self._result

    def _call(self, what: str, job: Callable[[], int]) -> int:
        if self._lost:
            raise QatHang(f"{what}: the QAT device gave no answer before")
        self._job = job
        self._go.release()
        return self._await(what)

    @property
    def simulated(self) -> bool:
        """Whether the library says that its device is emulated."""
        return self._session.library.simulated

    def compress(self, source: memoryview, dest: memoryview) -> int | None:
        """Compress all of `source`; the length, or None when it does not fit into `dest`.

        Raises QatStatusError, QatLengthError, QatHang.
        """
        out_of, room = (
            ffi.from_buffer("unsigned char[]", source),
            ffi.from_buffer("unsigned char[]", self._room),
        )
        length = self._call("qzCompress", lambda: self._session.compress(out_of, len(source), room))
        if length > len(dest):
            return None
        dest[:length] = memoryview(self._room)[:length]
        return length

    def decompress(self, payload: memoryview, dest: memoryview) -> None:
        """Fill exactly `dest`. Raises QatStatusError, QatLengthError, QatHang."""
        out_of, room = (
            ffi.from_buffer("unsigned char[]", payload),
            ffi.from_buffer("unsigned char[]", self._room),
        )

        def job() -> int:
            self._session.decompress(out_of, len(payload), room, len(dest))
            return 0

        self._call("qzDecompress", job)
        dest[:] = memoryview(self._room)[: len(dest)]

    def close(self) -> None:
        """End the session, unless it hangs."""
        if not self._lost:
            self._call("qzTeardownSession", self._end)

    def _end(self) -> int:
        self._session.close()
        return 0
