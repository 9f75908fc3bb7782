"""One compression session, in which the device is known to have done the work.

A session is opened with `sw_backup = 0`: libqatzip then returns an error where it would silently
compress in software, so a call that succeeds was done by the device. (libqatzip's own fallback leaks a
pthread key at each call, reports success on truncated input, and cannot be told from hardware.)

A session belongs to the process and thread that opened it. Open it after `fork`.
"""

from __future__ import annotations

import os
from typing import Any

from qat._libqatzip import ffi
from qat.library import Library, quiet_stderr
from qat.status import QZ_DUPLICATE, QZ_OK, QatError, QatLengthError, QatStatusError

QZ_DEFLATE_GZIP_EXT = 2
MIN_INPUT_BYTES = 128
"""The least `input_sz_thrshold`: libqatzip gives shorter input to zlib, whatever `sw_backup` says."""

MIN_LEVEL, MAX_LEVEL = 1, 9
MIN_HW_BUFF_BYTES, MAX_HW_BUFF_BYTES = 4 << 10, 512 << 10


class Session:
    """A GZIP_EXT deflate session.

    `hw_buff_sz` must be the same for all sessions of a process: libqatzip sizes an instance's
    buffers by the first one. After an error the session is torn down, and set up again before the
    next call. After a failed set-up no call is made any more, since libqatzip would open a software
    session by itself.
    """

    def __init__(
        self,
        library: Library,
        *,
        level: int,
        hw_buff_sz: int,
        busy_polling: bool = False,
        sw_backup: bool = False,
    ) -> None:
        """Start the user-space driver and set the session up.

        `busy_polling` waits for answers without sleeping: lower latency, but a whole core is busy.
        `sw_backup` lets libqatzip compress in software, for tests of the format.
        Raises QatStatusError.
        """
        self._calls = library.calls
        self.library = library
        self._pid = os.getpid()
        self._level = level
        self._hw_buff_sz = hw_buff_sz
        self._busy_polling = int(busy_polling)
        self._sw_backup = int(sw_backup)
        self._session = ffi.new("QzSession_T *")
        self._consumed = ffi.new("unsigned int *")
        self._produced = ffi.new("unsigned int *")
        self._ended = ffi.new("unsigned char *")
        self._ready = False
        self._failed: QatStatusError | None = None
        self.device_bytes = 0
        """Input bytes of the last call that the device took: libqatzip's software path leaves `total_in` as
        it is. Of compression these are plain bytes, of decompression whole members."""
        with quiet_stderr():
            code = self._calls.qzInit(self._session, self._sw_backup)
            if code not in (QZ_OK, QZ_DUPLICATE):
                raise QatStatusError("qzInit", code)
            self._set_up()

    def _set_up(self) -> None:
        extended = self.library.has("qzSetupSessionDeflateExt")
        suffix = "DeflateExt" if extended else "Deflate"
        params = ffi.new(f"QzSessionParams{suffix}_T *")
        call = f"qzGetDefaults{suffix}"
        code = getattr(self._calls, call)(params)
        if code == QZ_OK:
            deflate = params.deflate_params if extended else params
            deflate.data_fmt = QZ_DEFLATE_GZIP_EXT
            common = deflate.common_params
            common.comp_lvl = self._level
            common.sw_backup = self._sw_backup
            common.hw_buff_sz = self._hw_buff_sz
            common.polling_mode = self._busy_polling
            common.input_sz_thrshold = MIN_INPUT_BYTES
            call = f"qzSetupSession{suffix}"
            code = getattr(self._calls, call)(self._session, params)
        if code not in (QZ_OK, QZ_DUPLICATE):
            self._failed = QatStatusError(call, code)
            raise self._failed
        self._ready = True

    def compress(self, source: Any, size_bytes: int, dest: Any) -> int:
        """Compress `size_bytes` of `source` into `dest`; return the bytes written.

        Both are C buffers (`ffi.from_buffer`). `dest` must be large enough for incompressible input.
        Raises QatStatusError, QatLengthError; the session stays usable.
        """
        self._before()
        capacity = len(dest)
        self._consumed[0], self._produced[0] = size_bytes, capacity
        before = self.total_in
        code = self._calls.qzCompress(self._session, source, self._consumed, dest, self._produced, 1)
        consumed, produced = self._consumed[0], self._produced[0]
        if code != QZ_OK:
            self._tear_down()
            raise QatStatusError("qzCompress", code)
        if consumed != size_bytes or not 0 < produced <= capacity:
            self._tear_down()
            raise QatLengthError(
                f"qzCompress returned QZ_OK, but consumed {consumed} of {size_bytes} bytes "
                f"and produced {produced} in a buffer of {capacity}"
            )
        self.device_bytes = self.total_in - before
        return int(produced)

    def decompress(self, source: Any, size_bytes: int, dest: Any, expected_bytes: int) -> None:
        """Decompress into exactly `expected_bytes` of `dest`.

        Raises QatStatusError, QatLengthError (also for a stream that did not reach its end,
        where this version can tell).
        """
        self._before()
        self._consumed[0], self._produced[0] = size_bytes, expected_bytes
        before = self.total_in
        code = self._calls.qzDecompress(self._session, source, self._consumed, dest, self._produced)
        consumed, produced = self._consumed[0], self._produced[0]
        if code != QZ_OK:
            self._tear_down()
            raise QatStatusError("qzDecompress", code)
        if consumed != size_bytes or produced != expected_bytes or not self._at_end():
            self._tear_down()
            raise QatLengthError(
                f"qzDecompress returned QZ_OK, but consumed {consumed} of {size_bytes} bytes "
                f"and produced {produced} of {expected_bytes}, or stopped before the end"
            )
        self.device_bytes = self.total_in - before

    def _at_end(self) -> bool:
        if not self.library.has("qzGetDeflateEndOfStream"):
            return True
        self._ended[0] = 0
        code = self._calls.qzGetDeflateEndOfStream(self._session, self._ended)
        return code == QZ_OK and bool(self._ended[0])

    def _before(self) -> None:
        if os.getpid() != self._pid:
            raise QatError("a libqatzip session was used in a process that did not open it")
        if self._failed is not None:
            raise self._failed
        if not self._ready:
            self._set_up()

    def _tear_down(self) -> None:
        self._calls.qzTeardownSession(self._session)
        ffi.memmove(self._session, bytes(ffi.sizeof("QzSession_T")), ffi.sizeof("QzSession_T"))
        self._ready = False

    @property
    def total_in(self) -> int:
        """Input bytes of the device so far. libqatzip's software path does not count its own."""
        return int(self._session.total_in)

    def close(self) -> None:
        if self._ready and os.getpid() == self._pid:
            self._tear_down()
