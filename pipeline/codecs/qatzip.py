"""`qatzip`: GZIP_EXT members, made by a QAT device through libqatzip, or by the CPU.

What compresses need not decompress: hardware and CPU read each other's members. Without a
device the same members are made by ISA-L (python-isal), the honest CPU rival of QAT's deflate,
and counted as software.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from isal import isal_zlib

from guestmem.units import show_size
from pipeline.codecs.igzip import Deflater, Inflater
from pipeline.codecs.igzip import load as load_igzip
from pipeline.codecs.method import CodecSettings, Method, QatWork
from pipeline.errors import CodecError, CodecUnavailable
from qat import gzip_ext
from qat.gzip_ext import Member
from qat.host import what_to_check
from qat.library import LIBRARY_VARIABLE, load
from qat.probe import MISSING, SILENT
from qat.scripts import shipped_script
from qat.session import MAX_LEVEL, MIN_LEVEL, Session
from qat.status import QZ_NOSW_NO_INST_ATTACH, LibraryMissing, QatError, QatStatusError, status_name
from qat.watchdog import QatHang, WatchedSession

BUSY_RETRIES = 3
BUSY_WAIT_SECONDS = 0.0002
"""QEMU's QPL path retries three times, then does the page in software: on one device that took
14.6 s where waiting for the device took 18.4 s (QEMU commit f6fe9fea99)."""

PATIENT_RETRIES = 5000
"""Without a fallback a busy device is waited for, a second or more, before the run fails."""

OPENING_SHARE = 0.5
"""Of the time that a call may take, so much is spent on asking again for an instance: then there is none."""

MAX_FAILURES, FAILURE_WINDOW_CALLS = 3, 100
"""A worker does without the device for the rest of the run when so many of so many calls failed.

They are counted over a window, since a terabyte is two million calls of 512 KiB, in which a healthy device
may well have three transient errors: each costs one packet's work in software, some 2 ms. They are not
counted in a row, since a device that fails at every tenth call is defective, and what it does well is
not to be trusted either.
"""

ROOM_BYTES = 6 << 20
"""More than any packet's bound (`gzip_ext.bound_bytes` of 4 MiB)."""

ISAL_LEVELS = {1: 1, 2: 2}
ISAL_BEST_LEVEL = 3


DOCTOR = "python -m tools.doctor says what would mend it"


def without_device(reason: str) -> str:
    """What `reason` (a return code's name, or words) means for a user: none there, or none free."""
    if status_name(QZ_NOSW_NO_INST_ATTACH) in reason:
        return f"the QAT device has no free instance ({reason}): workers of this run, or others, hold them"
    return f"no QAT device ({reason})"


def device_needed(reason: str, method_name: str = "qatzip") -> str:
    """What a user reads who wants a device, and no software, where none answers."""
    what = f"method {method_name}" + (" with --no-qat-fallback" if method_name != "qatzip" else "")
    if reason == MISSING:
        return (
            f"{what} needs a QAT device, and none can be asked (a host without one answers "
            f"QZ_NOSW_NO_HW): {MISSING}; run {shipped_script('get_qatzip.sh')} or set {LIBRARY_VARIABLE}; "
            f"{DOCTOR}"
        )
    if status_name(QZ_NOSW_NO_INST_ATTACH) in reason:
        return (
            f"{what} needs a QAT device: {without_device(reason)}; use fewer --channels, or end what uses "
            f"the device; {DOCTOR}"
        )
    said = "qzInit does not return" if reason == SILENT else f"qzInit says {reason}"
    return f"{what} needs a QAT device, and {said}; check: {what_to_check()}; {DOCTOR}"


class WorkerDevice:
    """The QAT device as one worker sees it: a session, or the reason why there is none."""

    def __init__(self, settings: CodecSettings, work: QatWork) -> None:
        """Open a session. Raises CodecUnavailable without one where no fallback is allowed."""
        self._settings = settings
        self._work = work
        self._session: WatchedSession | None = None
        self._calls = 0
        self._failed_calls: deque[int] = deque(maxlen=MAX_FAILURES)
        self._retries = BUSY_RETRIES if settings.qat_fallback else PATIENT_RETRIES
        try:
            self._session = WatchedSession(self._open, ROOM_BYTES, settings.qat_timeout_seconds)
            work.simulated = self._session.simulated
        except LibraryMissing as error:
            self._work.fallback_reason = MISSING
            if not settings.qat_fallback:
                raise CodecUnavailable(device_needed(MISSING, settings.asked_for)) from error
        except (QatStatusError, QatHang) as error:
            self._work.fallback_reason = error.name
            if not settings.qat_fallback:
                raise CodecUnavailable(device_needed(error.name, settings.asked_for)) from error

    def _open(self) -> Session:
        library = load()
        until = time.monotonic() + OPENING_SHARE * self._settings.qat_timeout_seconds
        for attempt in range(self._retries + 1):
            try:
                return Session(
                    library,
                    level=self._settings.level,
                    hw_buff_sz=self._settings.qat_buffer_bytes,
                )
            except QatStatusError as error:
                is_last = attempt == self._retries or time.monotonic() > until
                if error.code != QZ_NOSW_NO_INST_ATTACH or is_last:
                    raise
                time.sleep(BUSY_WAIT_SECONDS)
        raise AssertionError("the last attempt returns or raises")

    def compress(self, source: memoryview, dest: memoryview) -> int | None:
        """Compress on the device; None where software has to: no session, busy, lost, or it lied."""
        session = self._session
        if session is None:
            return None
        return self._patiently(lambda: _or_length(session.compress(source, dest), source))

    def decompress(self, payload: memoryview, dest: memoryview, members: Sequence[Member]) -> bool:
        """Decompress on the device; False where software has to."""
        session = self._session
        if session is None:
            return False
        buffer_bytes = self._settings.qat_buffer_bytes
        if not all(member.fits_device(buffer_bytes) for member in members):
            return self._too_large(max(member.plain_bytes for member in members), buffer_bytes)

        def call() -> int:
            session.decompress(payload, dest, members)
            return len(dest)

        return self._patiently(call) is not None

    def _too_large(self, member_bytes: int, buffer_bytes: int) -> bool:
        """The sender's members are no requests for this device: no fault of the device."""
        what = f"members of {show_size(member_bytes)}, requests of {show_size(buffer_bytes)} at most"
        if not self._settings.qat_fallback:
            raise CodecError(f"no device decompresses this: {what}; the sender must cut them")
        self._work.fallback_reason = what
        return False

    def _patiently(self, call: Callable[[], int]) -> int | None:
        self._calls += 1
        for _ in range(self._retries + 1):
            try:
                done = call()
            except QatStatusError as error:
                if error.code != QZ_NOSW_NO_INST_ATTACH:
                    return self._failed(error, error.name)
                self._work.fallback_reason = error.name
            except QatHang as error:
                return self._failed(error, error.name, lost=True)
            except QatError as error:
                return self._failed(error, "wrong lengths")
            else:
                self._count()
                return done
            time.sleep(BUSY_WAIT_SECONDS)
        if not self._settings.qat_fallback:
            raise CodecError("the QAT device stayed busy: QZ_NOSW_NO_INST_ATTACH")
        return None

    def _count(self) -> None:
        """As the library says of the call: it may have given a part to software."""
        assert self._session is not None
        self._work.hardware_requests += self._session.done.hardware
        self._work.software_requests += self._session.done.software

    def _failed(self, error: QatError, reason: str, *, lost: bool = False) -> int | None:
        """A call failed: software does it, and the device is left alone when it fails too often."""
        if not self._settings.qat_fallback:
            raise CodecError(str(error)) from error
        self._work.fallback_reason = reason
        self._failed_calls.append(self._calls)
        often = len(self._failed_calls) == MAX_FAILURES
        if lost or (often and self._calls - self._failed_calls[0] < FAILURE_WINDOW_CALLS):
            self._session = None
        return None

    def close(self) -> None:
        if self._session is not None:
            try:
                self._session.close()
            except QatError:
                pass  # all is done: a device that is lost now is nobody's loss


def _or_length(length: int | None, source: memoryview) -> int:
    return len(source) if length is None else length


class QatzipEncoder:
    """Compresses on the device where there is one, else by ISA-L."""

    def __init__(self, settings: CodecSettings) -> None:
        self.qat = QatWork()
        self._device = WorkerDevice(settings, self.qat)
        self._member_bytes = settings.qat_buffer_bytes
        self._cut_in_software = settings.decode_on_qat
        self._deflater = Deflater(ISAL_LEVELS.get(settings.level, ISAL_BEST_LEVEL))

    def compress(self, source: memoryview, dest: memoryview) -> int:
        """Compress into members of at most `qat_buffer_bytes` plain bytes each.

        In software a packet is one member, since a CPU reads any size: a ratio of 3.46 at 3.8 times
        zlib's speed where members of 64 KiB gave 3.43 at 3.25 times (2 GiB of Silesia, both sides). A
        device that will decompress it sets the limit there as well.
        """
        length = self._device.compress(source, dest)
        if length is not None:
            return length
        member_bytes = self._member_bytes if self._cut_in_software else len(source)
        self.qat.software_requests += -(-len(source) // member_bytes)
        return write_members(self._deflater, source, dest, member_bytes)

    def close(self) -> None:
        self._device.close()


class QatzipDecoder:
    """Decompresses members on the CPU, or on the device when that was asked for."""

    def __init__(self, settings: CodecSettings) -> None:
        """`settings.level` is left alone: a member has none, and auto's 0 is none that a session takes."""
        self.qat = QatWork()
        session = replace(settings, level=MIN_LEVEL)
        self._device = WorkerDevice(session, self.qat) if settings.decode_on_qat else None
        self._inflater = Inflater()

    def decompress(self, payload: memoryview, dest: memoryview) -> None:
        """Fill exactly `dest` from the members of `payload`."""
        if self._device is None:
            read_members(self._inflater, payload, dest)
            return
        try:
            members = list(gzip_ext.walk(payload, len(dest)))
        except gzip_ext.CorruptMember as error:
            raise CodecError(str(error)) from error
        if not self._device.decompress(payload, dest, members):
            self.qat.software_requests += len(members)
            read_members(self._inflater, payload, dest)

    def close(self) -> None:
        if self._device is not None:
            self._device.close()


def write_members(deflater: Deflater, source: memoryview, dest: memoryview, member_bytes: int) -> int:
    """Cut `source` every `member_bytes` and write a GZIP_EXT member of each piece.

    Returns the bytes written, or `len(source)` where they do not fit.
    """
    written = 0
    for start in range(0, len(source), member_bytes):
        piece = source[start : start + member_bytes]
        member = dest[written:]
        length = deflater.deflate(piece, gzip_ext.deflate_room(member))
        if length is None:
            return len(source)
        written += gzip_ext.frame_member(member, length, len(piece), isal_zlib.crc32(piece))
    return written


def read_members(inflater: Inflater, payload: memoryview, dest: memoryview) -> None:
    """Fill exactly `dest` from the members of `payload`. Raises CodecError."""
    filled = 0
    try:
        for member in gzip_ext.walk(payload, len(dest)):
            plain = dest[filled : filled + member.plain_bytes]
            inflater.inflate(payload[member.deflate_start : member.deflate_end], plain)
            if isal_zlib.crc32(plain) != member.crc32:
                raise CodecError("a member's CRC-32 does not match its bytes")
            filled += member.plain_bytes
    except gzip_ext.CorruptMember as error:
        raise CodecError(str(error)) from error


METHOD = Method(
    name="qatzip",
    code=4,
    levels=range(MIN_LEVEL, MAX_LEVEL + 1),
    default_level=1,
    bound_bytes=lambda plain, settings: gzip_ext.bound_bytes(plain, settings.qat_buffer_bytes),
    open_encoder=QatzipEncoder,
    open_decoder=QatzipDecoder,
    load=load_igzip,
)
