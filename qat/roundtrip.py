"""Find out whether the device does the work: a child compresses and decompresses 512 KiB on it.

Three things prove it: another inflater than libqatzip decodes the output, the session's `total_in` has
grown (libqatzip's software path leaves it alone), and so have the kernel's firmware counters.
"""

from __future__ import annotations

import json
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

from qat import gzip_ext
from qat._libqatzip import ffi
from qat.checkup import FAILS, OK, WARNING, Finding
from qat.child import ask_in_child
from qat.health import fw_counters
from qat.library import load
from qat.session import Session
from qat.status import LibraryMissing, QatError, QatStatusError

SIZE_BYTES = 512 << 10
TIMEOUT_SECONDS = 20.0
XFL_OFFSET = 8
HARDWARE_XFL = 0


@dataclass(frozen=True)
class RoundTrip:
    """What the child found. Without an `error` the device compressed, and the same bytes came back."""

    error: str = ""
    compress_ms: float = 0.0
    decompress_ms: float = 0.0
    ratio: float = 0.0
    counted: bool = False
    simulated: bool = False


def check_round_trip(root: Path) -> Finding:
    """Compress on the device and decompress again. Never raises; takes at most TIMEOUT_SECONDS."""
    if root != Path("/"):
        return Finding("real test", WARNING, f"not run: {root} is a recorded tree")
    before = fw_counters(root)
    found = _in_a_child()
    after = fw_counters(root)
    if found.error:
        return Finding(
            "real test", FAILS, found.error, "fix the first check above that fails, then run this again"
        )
    times = (
        f"512 KiB compressed in {found.compress_ms:.2f} ms, decompressed in {found.decompress_ms:.2f} ms, "
        f"ratio {found.ratio:.2f}; zlib can read it"
    )
    if found.simulated:
        return Finding("real test", WARNING, f"SIMULATED: {times}, total_in moved", "unset QATZIP_LIBRARY")
    if not found.counted:
        return Finding("real test", FAILS, f"{times}, but total_in did not move: software did it")
    counted = f"{times}, total_in moved"
    if before is None or after is None:
        return Finding("real test", OK, f"{counted} (this host shows no firmware counters)")
    if after <= before:
        return Finding("real test", WARNING, f"{counted}, but the firmware counters did not move")
    return Finding("real test", OK, f"{counted}, the firmware counters moved by {after - before}")


def _in_a_child() -> RoundTrip:
    text = ask_in_child(lambda: json.dumps(asdict(_try())), TIMEOUT_SECONDS)
    if text:
        return RoundTrip(**json.loads(text))
    if text is None:
        return RoundTrip(error=f"no answer within {TIMEOUT_SECONDS:g} s")
    return RoundTrip(error="the test process died")


def _try() -> RoundTrip:
    try:
        library = load()
        session = Session(library, level=1, hw_buff_sz=64 << 10)
        return _there_and_back(session, library.simulated)
    except LibraryMissing as error:
        return RoundTrip(error=str(error).split(":")[0])
    except QatStatusError as error:
        return RoundTrip(error=f"{error.call} says {error.name}")
    except (QatError, gzip_ext.CorruptMember, zlib.error) as error:
        return RoundTrip(error=str(error))


def _there_and_back(session: Session, simulated: bool) -> RoundTrip:
    plain = b"".join(b"line %d of a page that compresses\n" % number for number in range(20_000))[:SIZE_BYTES]
    packed, back = bytearray(2 * SIZE_BYTES), bytearray(SIZE_BYTES)
    dest = ffi.from_buffer("unsigned char[]", packed)
    began = time.perf_counter()
    length = session.compress(ffi.from_buffer("unsigned char[]", plain), SIZE_BYTES, dest)
    middle = time.perf_counter()
    counted = session.total_in >= SIZE_BYTES and packed[XFL_OFFSET] == HARDWARE_XFL
    view = memoryview(packed)[:length]
    members = gzip_ext.walk(view, SIZE_BYTES)
    inflated = b"".join(zlib.decompress(view[m.deflate_start : m.deflate_end], -15) for m in members)
    if inflated != plain:
        return RoundTrip(error="what the device compressed does not inflate to its input")
    restart = time.perf_counter()
    session.decompress(dest, length, ffi.from_buffer("unsigned char[]", back), SIZE_BYTES)
    ended = time.perf_counter()
    if back != plain:
        return RoundTrip(error="what the device decompressed is not what was compressed")
    return RoundTrip(
        compress_ms=(middle - began) * 1e3,
        decompress_ms=(ended - restart) * 1e3,
        ratio=SIZE_BYTES / length,
        counted=counted,
        simulated=simulated,
    )
