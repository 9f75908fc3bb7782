"""Load on a QAT device: processes that compress and decompress, and what each call took.

Every process opens a session of its own, as channels do; one that gets no instance does the same
work with ISA-L and counts it as software, so that the cliff of too many processes is seen and not
averaged away (QATzip issue 75).
"""

from __future__ import annotations

import functools
import resource
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from guestmem.ipc import Connection
from pipeline.codecs import METHODS
from pipeline.codecs.method import CodecSettings
from pipeline.errors import HostError
from pipeline.processes.supervisor import Supervisor
from qat import gzip_ext
from qat._libqatzip import ffi
from qat.library import Library, load
from qat.session import Session
from qat.status import QZ_NOSW_NO_INST_ATTACH, LibraryMissing, QatStatusError

ORDINARY, PINNED = "ordinary", "pinned"


@dataclass(frozen=True)
class Load:
    """One configuration. Sizes in bytes; `seconds` of load in each direction."""

    block_bytes: int = 512 << 10
    hw_buff_sz: int = 64 << 10
    processes: int = 1
    polling: str = "periodical"
    level: int = 1
    memory: str = ORDINARY
    seconds: float = 1.0


@dataclass(frozen=True)
class Figures:
    """What all processes of a load did together; latencies over all calls, in microseconds."""

    compress_mb_s: float
    decompress_mb_s: float
    compress_p50_us: float
    compress_p99_us: float
    decompress_p50_us: float
    decompress_p99_us: float
    cpu_s_per_gb: float
    ratio: float
    hardware_calls: int
    software_calls: int
    processes_in_software: int
    simulated: bool


def measure(load_: Load, data: bytes) -> Figures:
    """Run one configuration. Raises HostError, RunFailed."""
    with Supervisor() as supervisor:
        workers = [
            supervisor.start(f"load {number}", "load", functools.partial(_process, load_=load_, data=data))
            for number in range(load_.processes)
        ]
        for kind in ("ready", "compressed", "decompressed"):
            answers = []
            for worker in workers:
                while (found := supervisor.take(worker, kind)) is None:
                    supervisor.wait(0.1)
                answers.append(found[0])
            if kind != "decompressed":
                for worker in workers:
                    worker.leaving = kind == "compressed"
                    supervisor.tell(worker, {"kind": "go"})
        return _figures(answers)


def _figures(answers: list[dict[str, Any]]) -> Figures:
    def rate(direction: str) -> float:
        return float(sum(a[direction]["bytes"] / a[direction]["seconds"] for a in answers)) / 1e6

    def latency(direction: str, percent: float) -> float:
        return float(np.percentile(np.concatenate([a[direction]["us"] for a in answers]), percent))

    plain = sum(a["compress"]["bytes"] for a in answers)
    return Figures(
        compress_mb_s=rate("compress"),
        decompress_mb_s=rate("decompress"),
        compress_p50_us=latency("compress", 50),
        compress_p99_us=latency("compress", 99),
        decompress_p50_us=latency("decompress", 50),
        decompress_p99_us=latency("decompress", 99),
        cpu_s_per_gb=sum(a["compress"]["cpu"] for a in answers) / (plain / 1e9),
        ratio=plain / sum(a["compress"]["packed"] for a in answers),
        hardware_calls=sum(a["calls"] for a in answers if a["hardware"]),
        software_calls=sum(a["calls"] for a in answers if not a["hardware"]),
        processes_in_software=sum(not a["hardware"] for a in answers),
        simulated=any(a["simulated"] for a in answers),
    )


MOST_LATENCIES = 2000
"""Latencies that a process reports, evenly taken: a message has a limit."""


def _process(connection: Connection, load_: Load, data: bytes) -> None:
    caller = _open(load_)
    blocks = [data[at : at + load_.block_bytes] for at in range(0, len(data), load_.block_bytes)]
    blocks = [block for block in blocks if len(block) == load_.block_bytes]
    packed = [caller.compress(block) for block in blocks[:8]]
    connection.send({"kind": "ready"})
    connection.receive()
    compress = _repeat(load_.seconds, blocks, lambda block: len(caller.compress(block)))
    connection.send({"kind": "compressed"})
    connection.receive()
    decompress = _repeat(load_.seconds, packed, lambda block: caller.decompress(block, load_.block_bytes))
    decompress["bytes"] = decompress["count"] * load_.block_bytes
    connection.send(
        {
            "kind": "decompressed",
            "compress": compress,
            "decompress": decompress,
            "calls": compress["count"] + decompress["count"],
            "hardware": caller.hardware,
            "simulated": caller.simulated,
        }
    )


def _repeat(seconds: float, blocks: list[bytes], call: Any) -> dict[str, Any]:
    before = resource.getrusage(resource.RUSAGE_SELF)
    began = time.perf_counter()
    took: list[float] = []
    packed = plain = 0
    while time.perf_counter() - began < seconds:
        block = blocks[len(took) % len(blocks)]
        start = time.perf_counter_ns()
        packed += call(block)
        took.append((time.perf_counter_ns() - start) / 1e3)
        plain += len(block)
    after = resource.getrusage(resource.RUSAGE_SELF)
    step = max(1, len(took) // MOST_LATENCIES)
    return {
        "seconds": time.perf_counter() - began,
        "bytes": plain,
        "packed": packed,
        "count": len(took),
        "us": [round(value, 1) for value in took[::step]],
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }


class _Device:
    """Compresses on the device, through buffers of ordinary or pinned memory."""

    hardware = True

    def __init__(self, library: Library, session: Session, load_: Load) -> None:
        self._session = session
        self.simulated = library.simulated
        room = gzip_ext.bound_bytes(load_.block_bytes, load_.hw_buff_sz)
        self._in = _buffer(library, room, load_.memory)
        self._out = _buffer(library, room, load_.memory)

    def compress(self, block: bytes) -> bytes:
        ffi.memmove(self._in, block, len(block))
        length = self._session.compress(self._in, len(block), self._out)
        return bytes(ffi.buffer(self._out, length))

    def decompress(self, packed: bytes, size: int) -> int:
        ffi.memmove(self._in, packed, len(packed))
        self._session.decompress(self._in, len(packed), self._out, size)
        return size


def _buffer(library: Library, size: int, memory: str) -> Any:
    if memory == ORDINARY:
        return ffi.new("unsigned char[]", size)
    if not library.has("qzMalloc"):
        raise HostError("memory pinned: this libqatzip has no qzMalloc")
    # Never freed: libqatzip does not forget a pinned address, and the process ends soon.
    pinned = library.calls.qzMalloc(size, -1, 1)
    if pinned == ffi.NULL:
        raise HostError(f"memory pinned: qzMalloc gives no {size} bytes; check memlock")
    return ffi.cast(f"unsigned char(*)[{size}]", pinned)[0]


class _Software:
    """Makes the same GZIP_EXT members with ISA-L, for a process that got no instance."""

    hardware = False
    simulated = False

    def __init__(self, load_: Load) -> None:
        settings = CodecSettings(level=load_.level, qat_buffer_bytes=load_.hw_buff_sz)
        method = METHODS["isal"]
        self._encoder = method.open_encoder(CodecSettings(level=1))
        self._decoder = method.open_decoder(settings)
        self._out = memoryview(bytearray(2 * load_.block_bytes + 4096))
        self._plain = memoryview(bytearray(load_.block_bytes))

    def compress(self, block: bytes) -> bytes:
        return bytes(self._out[: self._encoder.compress(memoryview(block), self._out)])

    def decompress(self, packed: bytes, size: int) -> int:
        self._decoder.decompress(memoryview(packed), self._plain[:size])
        return size


def _open(load_: Load) -> _Device | _Software:
    try:
        library = load()
        session = Session(
            library,
            level=load_.level,
            hw_buff_sz=load_.hw_buff_sz,
            busy_polling=load_.polling == "busy",
        )
    except LibraryMissing as error:
        raise HostError(str(error)) from error
    except QatStatusError as error:
        if error.code == QZ_NOSW_NO_INST_ATTACH:
            return _Software(load_)
        raise HostError(f"{error}; python -m tools.doctor says what would mend it") from error
    return _Device(library, session, load_)
