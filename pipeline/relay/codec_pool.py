"""Threads that compress and decompress blocks: one connection of QEMU's may use all of them.

Threads and not processes, since the codecs run outside of Python's lock, and a block then needs no copy.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from pipeline.auto.candidates import candidates_here
from pipeline.auto.controller import Auto
from pipeline.auto.picker import AutoPicker, FixedPicker, Picker
from pipeline.codecs import METHODS
from pipeline.codecs.method import CodecSettings, Decoder
from pipeline.errors import FerryError, RunFailed
from pipeline.options import AUTO, QatOptions
from pipeline.packets.counters import Count, Counters
from pipeline.relay.buffers import Buffers
from pipeline.relay.lanes import DecodeHistories, Histories, Lane
from pipeline.relay.link_wire import LinkWire

PAGE_BYTES = 4096
NONE_CODE = METHODS["none"].code
CODE_NAMES = {method.code: name for name, method in METHODS.items()}
EXTRA_BYTES = 64 << 10
"""What a codec may need beyond a block that does not shrink."""

MOST_NS = 7.0
"""Of CPU a byte that auto spends on a level: the CPUs are the guests' as well."""

FEWEST_BYTES = 512
"""What is shorter goes as it is: main's sync words."""

Encoded = Callable[[int, memoryview, int], None]
Decoded = Callable[[memoryview, FerryError | None], None]


EncodeJob = tuple[memoryview, Encoded]


@dataclass(frozen=True)
class DecodeJob:
    """A block's method, its bytes, what they hold, the `history` of its frame, and who waits."""

    code: int
    payload: memoryview
    plain_bytes: int
    history: int
    done: Decoded


class EncodeLane(Lane[EncodeJob]):
    """A stream's blocks, on their way out."""

    def __init__(self) -> None:
        super().__init__()
        self.histories = Histories()


class DecodeLane(Lane[DecodeJob]):
    """A stream's blocks, as they come in."""

    def __init__(self) -> None:
        super().__init__()
        self.histories = DecodeHistories()


@dataclass(frozen=True)
class PoolOptions:
    """`method` and `level` of what is sent; `channels` threads."""

    method: str
    level: int | None
    channels: int
    qat: QatOptions


@dataclass
class MethodCount:
    """What a method did: blocks, their bytes before and after, and CPU."""

    blocks: int = 0
    plain_bytes: int = 0
    payload_bytes: int = 0
    cpu_ns: int = 0


@dataclass
class PoolCounts:
    """By method's name."""

    encoded: dict[str, MethodCount] = field(default_factory=dict)
    decoded: dict[str, MethodCount] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, way: dict[str, MethodCount], code: int, plain: int, payload: int, cpu_ns: int) -> None:
        with self._lock:
            count = way.setdefault(CODE_NAMES[code], MethodCount())
            count.blocks += 1
            count.plain_bytes += plain
            count.payload_bytes += payload
            count.cpu_ns += cpu_ns


class CodecPool:
    """Jobs in, results in the loop that made the pool."""

    def __init__(self, options: PoolOptions, wire: LinkWire, buffers: Buffers, *, with_qat: bool) -> None:
        """Start the threads. Raises CodecUnavailable where the method cannot be."""
        self._options = options
        self._buffers = buffers
        self.channels = options.channels
        self._loop = asyncio.get_running_loop()
        self.counts = PoolCounts()
        self.raw = options.method == "none"
        self.auto: Auto | None = None
        self._encode: SimpleQueue[EncodeJob | EncodeLane | None] = SimpleQueue()
        self._decode: SimpleQueue[DecodeJob | DecodeLane | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._pickers: list[Picker] = []
        self._read_pages = Counters(1) if options.method == AUTO else None
        if not self.raw:
            self._open_pickers(wire, with_qat=with_qat)
        for number, picker in enumerate(self._pickers):
            self._start(self._encode_all, f"encoder {number}", picker)
        for number in range(options.channels):
            self._start(self._decode_all, f"decoder {number}")

    def _open_pickers(self, wire: LinkWire, *, with_qat: bool) -> None:
        options = self._options
        numbers = range(options.channels)
        if options.method == AUTO:
            candidates = tuple(
                one for one in candidates_here(with_qat=with_qat) if one.compress_ns <= MOST_NS
            )
            assert self._read_pages is not None
            self.auto = Auto(candidates, options.channels, options.channels, self._read_pages, wire)
            settings = CodecSettings.of(1, options.qat, AUTO)
            self._pickers = [
                AutoPicker(n, options.channels, candidates, settings, self.auto.statistics, wire)
                for n in numbers
            ]
            self.auto.begin()
            return
        method = METHODS[options.method]
        method.load()
        level = method.default_level if options.level is None else options.level
        settings = CodecSettings.of(level, options.qat, method.name)
        self._pickers = [FixedPicker(method, method.open_encoder(settings), level) for _ in numbers]

    def _start(self, target: Callable[..., None], name: str, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    # ---------------------------------------------------------------- jobs

    def encode(self, plain: memoryview, done: Encoded, lane: EncodeLane | None = None) -> None:
        """Call `done` with the method's code, the payload, which is `plain` where it does not shrink, and
        the `history` of its frame. A `lane`'s blocks are compressed in order, and may remember."""
        if self._read_pages is not None:
            self._read_pages.rows[0, Count.NORMAL_PAGES] += max(1, len(plain) // PAGE_BYTES)
        job = plain, done
        if lane is None:
            self._encode.put(job)
        elif lane.put(job):
            self._encode.put(lane)

    def decode(self, job: DecodeJob, lane: DecodeLane | None = None) -> None:
        """Call the job's `done` with the plain bytes, or the error. What has a history comes by its lane."""
        if lane is None:
            self._decode.put(job)
        elif lane.put(job):
            self._decode.put(lane)

    def _encode_all(self, picker: Picker) -> None:
        while (found := self._encode.get()) is not None:
            if not isinstance(found, EncodeLane):
                self._encode_one(picker, found, None)
                continue
            self._encode_one(picker, found.take(), found.histories)
            if found.leave():
                self._encode.put(found)

    def _encode_one(self, picker: Picker, job: EncodeJob, histories: Histories | None) -> None:
        plain, done = job
        out = self._buffers.take(len(plain) + EXTRA_BYTES)
        began = time.thread_time_ns()
        try:
            method = picker.pick(max(1, len(plain) // PAGE_BYTES))
            length, history = _compress(picker, plain, out, histories)
        except FerryError:
            length, history = len(plain), 0  # a device that failed for good: the block goes as it is
        cpu_ns = time.thread_time_ns() - began
        if length >= len(plain) and not history:
            self._buffers.give(out)
            code, payload = NONE_CODE, plain
        else:
            code, payload = method.code, out[:length]
        self.counts.note(self.counts.encoded, code, len(plain), len(payload), cpu_ns)
        self._tell(done, code, payload, history)

    def _decode_all(self) -> None:
        decoders: dict[int, Decoder] = {}
        while (found := self._decode.get()) is not None:
            if not isinstance(found, DecodeLane):
                self._decode_one(decoders, found, None)
                continue
            self._decode_one(decoders, found.take(), found.histories)
            if found.leave():
                self._decode.put(found)

    def _decode_one(
        self, decoders: dict[int, Decoder], job: DecodeJob, histories: DecodeHistories | None
    ) -> None:
        code = job.code
        plain = self._buffers.take(job.plain_bytes)
        began = time.thread_time_ns()
        error: FerryError | None = None
        try:
            if histories is not None:
                histories.decoder(job.history).decompress(job.payload, plain)
            else:
                if code not in decoders:
                    decoders[code] = _open_decoder(code)
                decoders[code].decompress(job.payload, plain)
        except Exception as found:  # whatever a codec raises on bytes that nobody made
            # A new one: this frame in its traceback would be a ring of buffers, which Python 3.11 cannot
            # collect without a crash.
            error = RunFailed(f"a block cannot be decompressed: {found}")
        cpu_ns = time.thread_time_ns() - began
        if error is None:
            self.counts.note(self.counts.decoded, code, job.plain_bytes, len(job.payload), cpu_ns)
        self._buffers.give(job.payload)
        self._tell(job.done, plain, error)

    def _tell(self, done: Callable[..., None], *what: object) -> None:
        try:
            self._loop.call_soon_threadsafe(done, *what)
        except RuntimeError:
            pass  # the loop is over, and nobody waits

    def backlog(self) -> int:
        """Blocks that wait to be compressed."""
        return self._encode.qsize()

    def encode_cpu_ns(self) -> int:
        """What compressing has taken so far."""
        return sum(count.cpu_ns for count in list(self.counts.encoded.values()))

    def requests(self) -> dict[str, Any]:
        """What a QAT device did of it, and what software did in its place."""
        works = [picker.qat for picker in self._pickers]
        return {
            "hardware_requests": sum(work.hardware_requests for work in works),
            "software_requests": sum(work.software_requests for work in works),
            "simulated": any(work.simulated for work in works),
            "fallback_reasons": sorted({work.fallback_reason for work in works if work.fallback_reason}),
        }

    def close(self) -> None:
        """End the threads."""
        for _ in self._pickers:
            self._encode.put(None)
        for _ in range(self._options.channels):
            self._decode.put(None)
        for thread in self._threads:
            thread.join(2.0)
        for picker in self._pickers:
            picker.close()


def _compress(
    picker: Picker, plain: memoryview, out: memoryview, histories: Histories | None
) -> tuple[int, int]:
    """The length, and the `history` of the block's frame; with one it is to be sent however long it is.
    Raises FerryError."""
    if histories is None:
        return picker.compress(plain, out), 0
    histories.mark = 0
    try:
        return picker.compress(plain, out, histories), histories.mark
    except FerryError:
        histories.forget()
        raise


def _open_decoder(code: int) -> Decoder:
    name = CODE_NAMES.get(code)
    if name is None:
        raise RunFailed(f"a block of a method {code} that is not known here")
    return METHODS[name].open_decoder(CodecSettings(level=METHODS[name].default_level))
