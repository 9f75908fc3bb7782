"""The device process: the instances, engines and clock of an emulated QAT device.

A client attaches over an abstract Unix socket (SOCK_SEQPACKET). It gets a status (i32) and, with
status 0, a memory file of IN_BYTES + OUT_BYTES. A call is six u32 (operation, level, length, hw_buff_sz,
capacity, input_sz_thrshold), its answer an i32 and two u32 (status, consumed, produced). A call is made of
requests, one a member. A client takes an instance by attaching, and gives it back when its connection ends,
in whatever way that happens.
"""

from __future__ import annotations

import itertools
import mmap
import os
import socket
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from isal import igzip_lib, isal_zlib

from qat import gzip_ext
from qat.emulator.faults import Fault
from qat.emulator.model import DeviceModel, chunks
from qat.status import (
    QZ_BUF_ERROR,
    QZ_DATA_ERROR,
    QZ_FAIL,
    QZ_NOSW_LOW_MEM,
    QZ_NOSW_NO_HW,
    QZ_NOSW_NO_INST_ATTACH,
    QZ_OK,
)

IN_BYTES, OUT_BYTES = 5 << 20, 6 << 20
CALL = struct.Struct("<6I")
ANSWER = struct.Struct("<iII")
STATUS = struct.Struct("<i")
COMPRESS, DECOMPRESS = 1, 2
IMPOSSIBLE_LENGTH = 0x7FFFFFFF
ISAL_LEVELS = {1: 1}
"""ISA-L's level 1 comes closest to HW_L1. Its level 3 stands for all higher levels of the device."""

MOST_PROCESSES = 16
"""Virtual functions of one physical function: so many processes may attach under POLICY=1."""


@dataclass
class DeviceSettings:
    """How many devices are emulated, how fast they are, and what goes wrong.

    `instances` counts the processes that may be attached at once to all devices together; `capacity` is
    uncompressed bytes per second of one device.
    """

    devices: int = 1
    instances: int = MOST_PROCESSES
    capacity: float = DeviceModel().capacity
    engines: int = DeviceModel().engines
    fault: Fault = field(default_factory=Fault)


class Device:
    """Serves clients until it is closed."""

    def __init__(self, name: str, settings: DeviceSettings) -> None:
        """Listen under `name`. Raises OSError when it is taken."""
        self._settings = settings
        self._models = [DeviceModel(settings.capacity, settings.engines) for _ in range(settings.devices)]
        self._lock = threading.Lock()
        self._attached = 0
        self._accepted = 0
        self._lost = False
        self.calls = 0
        self.requests = 0
        """What the engines did: members, of both directions."""
        self._pool = ThreadPoolExecutor(settings.engines * settings.devices, "engine")
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listening.bind(b"\0" + name.encode())
        self._listening.listen(256)

    def serve(self) -> None:
        """Accept clients until `close`."""
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._client, args=(client,), daemon=True).start()

    def close(self) -> None:
        """Accept no more clients. Those that are attached stay until the process ends."""
        self._listening.close()

    def _client(self, client: socket.socket) -> None:
        with client:
            status, model = self._attach()
            if status != QZ_OK:
                client.send(STATUS.pack(status))
                return
            memory = os.memfd_create("qat-emulator", os.MFD_CLOEXEC)
            try:
                os.ftruncate(memory, IN_BYTES + OUT_BYTES)
                socket.send_fds(client, [STATUS.pack(QZ_OK)], [memory])
                with mmap.mmap(memory, IN_BYTES + OUT_BYTES) as mapping:
                    self._serve_client(client, memoryview(mapping), model)
            except (ConnectionError, BufferError):
                pass  # the client is gone
            finally:
                os.close(memory)
                with self._lock:
                    self._attached -= 1

    def _attach(self) -> tuple[int, DeviceModel]:
        refused = {"low-memory": QZ_NOSW_LOW_MEM, "no-hardware": QZ_NOSW_NO_HW}
        with self._lock:
            model = self._models[self._accepted % len(self._models)]
            if self._settings.fault.kind in refused:
                return refused[self._settings.fault.kind], model
            if self._lost:
                return QZ_NOSW_NO_HW, model
            if self._attached >= self._settings.instances:
                return QZ_NOSW_NO_INST_ATTACH, model
            self._attached += 1
            self._accepted += 1
            return QZ_OK, model

    def _serve_client(self, client: socket.socket, memory: memoryview, model: DeviceModel) -> None:
        while len(message := client.recv(CALL.size)) == CALL.size:
            arrived = time.monotonic()
            with self._lock:
                self.calls += 1
                number = self.calls
            answer = self._answer(number, CALL.unpack(message), memory, model, arrived)
            if answer is not None:
                client.send(ANSWER.pack(*answer))

    def _answer(
        self, number: int, call: tuple[int, ...], memory: memoryview, model: DeviceModel, arrived: float
    ) -> tuple[int, int, int] | None:
        fault = self._settings.fault
        strikes = fault.strikes(number)
        if self._lost or (strikes and fault.kind == "lost"):
            self._lost = True
            return QZ_FAIL, 0, 0
        if strikes and fault.kind in ("hang", "hang-all"):
            return None
        if strikes and fault.kind in ("busy", "fail"):
            return (QZ_NOSW_NO_INST_ATTACH if fault.kind == "busy" else QZ_FAIL), 0, 0
        status, consumed, produced, sizes = self._work(call, memory)
        with self._lock:
            done = model.finish(arrived, sizes)
            self.requests += len(sizes)
        left = done - time.monotonic()
        if left > 0:
            time.sleep(left)
        if strikes and fault.kind == "corrupt":
            memory[IN_BYTES + produced // 2] ^= 0x55
        if strikes and fault.kind == "short":
            consumed -= 1
        if strikes and fault.kind == "long":
            produced = IMPOSSIBLE_LENGTH
        return status, consumed, produced

    def _work(self, call: tuple[int, ...], memory: memoryview) -> tuple[int, int, int, list[int]]:
        operation, level, length, chunk, capacity, threshold = call
        source, dest = memory[:length], memory[IN_BYTES : IN_BYTES + min(capacity, OUT_BYTES)]
        if operation == COMPRESS:
            return self._compress(source, dest, level, chunk)
        return self._decompress(source, dest, chunk, threshold)

    def _compress(
        self, source: memoryview, dest: memoryview, level: int, chunk: int
    ) -> tuple[int, int, int, list[int]]:
        sizes = chunks(len(source), chunk)
        pieces = [source[start : start + chunk] for start in range(0, len(source), chunk)]
        isal_level = ISAL_LEVELS.get(level, 3)
        streams = self._pool.map(
            lambda piece: igzip_lib.compress(piece, isal_level, igzip_lib.COMP_DEFLATE), pieces
        )
        produced = consumed = 0
        for piece, stream in zip(pieces, streams, strict=True):
            member = dest[produced:]
            room = gzip_ext.deflate_room(member)
            if len(stream) > len(room):
                return QZ_BUF_ERROR, consumed, produced, sizes
            room[: len(stream)] = stream
            produced += gzip_ext.frame_member(member, len(stream), len(piece), isal_zlib.crc32(piece))
            consumed += len(piece)
        return QZ_OK, consumed, produced, sizes

    def _decompress(
        self, source: memoryview, dest: memoryview, chunk: int, threshold: int
    ) -> tuple[int, int, int, list[int]]:
        """As libqatzip with `sw_backup = 0` does: QZ_FAIL at the first member that is no request.

        A first member that is shorter than `threshold`, or that does not fit a buffer of `chunk` bytes, is
        refused before the device is asked; what precedes a later one that does not fit is done.
        """
        try:
            members = list(gzip_ext.walk(source, len(dest)))
            fitting = list(itertools.takewhile(lambda member: member.fits_device(chunk), members))
            if not fitting or fitting[0].plain_bytes < threshold:
                return QZ_FAIL, 0, 0, []
            status = QZ_OK if len(fitting) == len(members) else QZ_FAIL
            members = fitting
            plains = list(
                self._pool.map(
                    lambda member: zlib.decompress(source[member.deflate_start : member.deflate_end], -15),
                    members,
                )
            )
        except (gzip_ext.CorruptMember, zlib.error):
            return QZ_DATA_ERROR, 0, 0, []
        filled = 0
        for member, plain in zip(members, plains, strict=True):
            if len(plain) != member.plain_bytes or zlib.crc32(plain) != member.crc32:
                return QZ_DATA_ERROR, 0, filled, []
            dest[filled : filled + len(plain)] = plain
            filled += len(plain)
        consumed = sum(member.size_bytes for member in members)
        return status, consumed, filled, [member.plain_bytes for member in members]
