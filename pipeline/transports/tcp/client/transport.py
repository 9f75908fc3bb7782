"""`tcp`: channels over connections to a receiver on another host, or to one made here for the run."""

from __future__ import annotations

import dataclasses
import functools
import secrets
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from isal import isal_zlib

from guestmem.ipc import Connection
from guestmem.ipc import Message as IpcMessage
from guestmem.page import PAGE_BYTES
from guestmem.ram import GuestRam, PageNumbers
from pipeline.destination.verification import page_crcs, region_bytes_of, region_digest, region_digests
from pipeline.errors import BadFrame, FerryError, HostError, PeerFailed, PeerRefused, RunFailed
from pipeline.net.address import Address, address_of
from pipeline.net.tls import CLIENT, SERVER
from pipeline.options import CHECKS, Options, ReceiveOptions, has_queue
from pipeline.packets.counters import Count, Totals
from pipeline.packets.queue import PacketQueue
from pipeline.processes.supervisor import Supervisor, Worker
from pipeline.processes.usage import SideFigures, Usage, figures_of, usage_of
from pipeline.source.send_side import PacketLayout, SendSide, Step, look_until
from pipeline.transports.base import NO_PAGES, Readiness, RoundOutcome, TransportFigures
from pipeline.transports.tcp.client.control_client import ControlClientPlan, run_control_client
from pipeline.transports.tcp.client.dial import Peer
from pipeline.transports.tcp.client.direct_channel import DirectChannelPlan, run_direct_channel
from pipeline.transports.tcp.client.sender import SenderPlan, run_sender
from pipeline.transports.tcp.client.sender_rows import SenderRows
from pipeline.transports.tcp.client.wire import SocketWire
from pipeline.transports.tcp.messages import (
    MAX_TEXT,
    Asked,
    Commit,
    Committed,
    Message,
    Offer,
    Open,
    Report,
    Settle,
    Settled,
    Verified,
    VerifiedPages,
    Verify,
    VerifyPages,
)
from pipeline.transports.tcp.protocol import DELTA_VERSION, HEADER, RUN_ID_BYTES, FrameType
from pipeline.transports.tcp.server.receive_run import misfit
from pipeline.transports.tcp.server.session import Session

ANSWER_STEP_SECONDS = 0.05
WELCOME_SECONDS = 60.0
ABANDON_SECONDS = 0.5
FINISH_SECONDS = 1.0
PREALLOC_BYTES_PER_SECOND = 100 << 20
"""No host is so slow that it takes longer to give a destination its pages."""

SECRET_BYTES = 32
CRC_BYTES = 4
PAGES_VERSION = 2
"""Of the protocol, from which on there is VERIFY_PAGES."""

MAX_LOOKS = 3
"""At a region whose digest differs, and the checksum of no page, before all of it counts as different."""

TESTED_HERE = Address("127.0.0.1", 0)


class TcpTransport:
    """The connections, and the conversation with the receiver."""

    def __init__(
        self, options: Options, layout: PacketLayout, supervisor: Supervisor, source: GuestRam
    ) -> None:
        """Call the receiver, agree on the run, and fork all workers. Raises OSError, FerryError."""
        self._options = options
        self._layout = layout
        self._supervisor = supervisor
        self._source = source
        self._local: Worker | None = None
        secret = options.secret
        if options.to is not None:
            address = options.to
        else:
            # Both ends are here, on a port that any user of this host can reach.
            secret = None if options.tls is not None else secrets.token_bytes(SECRET_BYTES)
            address = self._start_receiver(secret)
        welcome = WELCOME_SECONDS + source.size_bytes / PREALLOC_BYTES_PER_SECOND
        context = None if options.tls is None else options.tls.context(CLIENT)
        self._peer = Peer(address, options.tls, options.reconnect_seconds, welcome, secret, context)
        self._run_id = secrets.token_bytes(RUN_ID_BYTES)
        self._requests = 0
        self._offset_ns = 0
        self._output = ""
        self._applied: Totals = np.zeros(len(Count), np.int64)
        self._said: list[IpcMessage] | None = None
        region_pages = region_bytes_of(source.size_bytes) // PAGE_BYTES
        room = max(-(-source.pages // 8), CRC_BYTES * region_pages)
        self._payload = GuestRam.create(-(-room // PAGE_BYTES) * PAGE_BYTES, "answers").memory
        plan = ControlClientPlan(self._peer, self._run_id, self._payload)
        self._control = supervisor.start("control", "send", functools.partial(run_control_client, plan=plan))
        said = supervisor.await_message(self._control, "offer")
        self._offer = Offer.of(said["offer"])
        self._peer = dataclasses.replace(self._peer, version=int(said["version"]))
        layout = self._layout = layout.decoded_on_qat(self._offer.decode_on_qat)
        self._with_deltas = bool(options.delta_bytes) and self._peer.version >= DELTA_VERSION
        self._open_run()
        self._rows = SenderRows(options.channels)
        open_wire = functools.partial(SocketWire, rows=self._rows)
        self.sending = SendSide(options, layout, supervisor, source, HEADER.size, open_wire)
        if self._with_deltas:
            self.sending.keep_pages()
        numbers = range(options.channels)
        self._direct = not has_queue(options.transport, options.method)
        if self._direct:
            self._senders = [self._start_direct_channel(number) for number in numbers]
            self.sending.use(self._senders, self._rows.calling)
        else:
            queue = self.sending.queue
            self._senders = [self._start_sender(number, queue) for number in numbers]
            self.sending.start()

    def _start_receiver(self, secret: bytes | None) -> Address:
        """A receiver of this run's own, on this host."""
        options = self._options
        try:
            listener = TESTED_HERE.listen()
        except OSError as error:
            raise HostError(f"cannot listen on {TESTED_HERE}: {error.strerror}") from error
        receive = ReceiveOptions(
            options.tls,
            secret,
            options.reconnect_seconds,
            options.prealloc,
            huge_pages=options.huge_pages,
            qat=options.qat,
        )
        context = None if options.tls is None else options.tls.context(SERVER)
        serve = functools.partial(_serve_here, options=receive, listener=listener, context=context)
        self._local = self._supervisor.start("receiver", "recv", serve)
        address = address_of(listener)
        listener.close()
        return address

    def _open_run(self) -> None:
        """Say what will be sent. Raises PeerRefused when it does not fit what the receiver has."""
        layout = self._layout
        request = self._next()
        wanted = Open(
            request,
            self._source.size_bytes,
            self._options.channels,
            layout.pages,
            layout.payload_bytes,
            sorted(method.code for method in layout.methods),
            layout.settings.qat_buffer_bytes,
            layout.settings.decode_on_qat,
            self._with_deltas,
        )
        why = misfit(self._offer, wanted)
        if why:
            self.abandon(f"the run does not fit: {why}")
            raise PeerRefused(f"{self._peer.address}: {why}")
        self._ask(FrameType.OPEN, wanted, Asked, self._supervisor.wait)

    def _start_direct_channel(self, number: int) -> Worker:
        """A channel that has its connection itself."""
        plan = DirectChannelPlan(
            self.sending.plan(number),
            self._layout.payload_bytes,
            self._peer,
            self._run_id,
            self._rows,
            self._options.zero_copy,
        )
        return self._supervisor.start(
            f"channel {number}", "send", functools.partial(run_direct_channel, plan=plan)
        )

    def _start_sender(self, number: int, queue: PacketQueue) -> Worker:
        plan = SenderPlan(number, self._peer, self._run_id, self._source, queue, self._rows)
        return self._supervisor.start(f"sender {number}", "send", functools.partial(run_sender, plan=plan))

    # ---------------------------------------------------------------- asking

    def _next(self) -> int:
        self._requests += 1
        return self._requests

    def _ask(self, type_: FrameType, message: Message, answer: type[Any], step: Step) -> Any:
        """Ask the receiver and wait for its answer. Raises FerryError."""
        self._tell(type_, message)
        return self._hear(answer, step)

    def _tell(self, type_: FrameType, message: Message) -> None:
        self._supervisor.tell(self._control, {"kind": "ask", "type": type_, "body": message.body()})

    def _hear(self, answer: type[Any], step: Step) -> Any:
        while True:
            while not self._control.inbox:
                step(ANSWER_STEP_SECONDS)
            said, _ = self._control.inbox.pop(0)
            if said["kind"] != "answer":
                continue  # lost, resumed: in its record at the end
            self._offset_ns = int(said["offset_ns"])
            try:
                return answer.of(said["body"])
            except BadFrame as error:
                raise RunFailed(f"{self._peer.address}: {error}") from error

    # ---------------------------------------------------------------- the interface

    def await_ready(self, between: Callable[[float], None]) -> Readiness:
        """Every connection is welcome. How far the receiver's prealloc is, it does not say."""
        prealloc = self._offer.prealloc
        if self._direct:
            said = [message["receiver"] for message in self.sending.said_ready]
            return Readiness.of(said, prealloc=prealloc)
        return Readiness.await_all(self._supervisor, self._senders, prealloc=prealloc)

    def settle(self, number: int, pages: PageNumbers, step: Step, stands: Callable[[], bool]) -> RoundOutcome:
        """All that was queued is sent or lost, and the receiver says what of it was applied."""
        queued = int(self.sending.sent.totals()[Count.PACKETS])
        look_until(lambda: self._rows.carried() == queued, step)
        sent_at = time.monotonic()
        asked = Settle(self._next(), number, len(pages), self._rows.connections(), stands())
        settled: Settled = self._ask(FrameType.SETTLE, asked, Settled, step)
        heard_at = time.monotonic()
        applied_at = min(heard_at, max(sent_at, (settled.applied_ns - self._offset_ns) / 1e9))
        if settled.applied == len(pages):
            return RoundOutcome(applied_at, NO_PAGES)
        return RoundOutcome(applied_at, self._missing(settled, pages))

    def _missing(self, settled: Settled, pages: PageNumbers) -> PageNumbers:
        bitmap = self._payload[: -(-self._source.pages // 8)]
        if isal_zlib.crc32(bitmap) != settled.bitmap_crc32:
            raise RunFailed(f"{self._peer.address}: the bitmap of applied pages is damaged")
        applied = np.unpackbits(np.frombuffer(bitmap, np.uint8), count=self._source.pages, bitorder="little")
        missing: PageNumbers = pages[applied[pages] == 0].copy()
        if len(missing) != len(pages) - settled.applied:
            raise RunFailed(f"{self._peer.address}: says {settled.applied} pages, its bitmap says otherwise")
        return missing

    def received(self) -> Totals:
        return self._applied

    def verify(
        self, how: str, between: Callable[[float], None], unexplained: Callable[[PageNumbers], PageNumbers]
    ) -> dict[str, str]:
        """Digests of both images, by region, and of those that differ checksums of their pages; the receiver
        makes its own meanwhile."""
        self._finish_senders()
        wrong = {}
        region = region_bytes_of(self._source.size_bytes)
        for check in CHECKS[how]:
            asked = Verify(self._next(), check, region)
            self._tell(FrameType.VERIFY, asked)
            ours = region_digests(self._source, region, between) if check == "images" else []
            verified: Verified = self._hear(Verified, self._supervisor.wait)
            wrong[check] = verified.wrong
            if check == "images":
                wrong[check] = self._what_differs(ours, verified.digests, region, unexplained)
        return wrong

    def _what_differs(
        self,
        ours: list[str],
        theirs: list[str],
        region_bytes: int,
        unexplained: Callable[[PageNumbers], PageNumbers],
    ) -> str:
        """Which page is not the same on both sides and may not differ; empty when there is none."""
        if len(ours) != len(theirs):
            return f"{len(theirs)} regions there, {len(ours)} here"
        differing = [NO_PAGES]
        for region, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            if one != other and self._peer.version < PAGES_VERSION:
                first = region * region_bytes // PAGE_BYTES
                return f"the region of {region_bytes >> 20} MiB from page {first} on differs"
            if one != other:
                differing.append(self._differing_pages(region, region_bytes, other))
        left = unexplained(np.concatenate(differing))
        return f"page {left[0]} differs" if len(left) else ""

    def _differing_pages(self, region: int, region_bytes: int, theirs: str) -> PageNumbers:
        """Of a region whose digest is not `theirs`: the pages whose checksum is not. All of them, where no
        checksum tells what the digest does; none, where a guest that runs on wrote the same again."""
        first = region * region_bytes // PAGE_BYTES
        self._tell(FrameType.VERIFY_PAGES, VerifyPages(self._next(), region_bytes, region))
        ours = page_crcs(self._source, region_bytes, region)
        verified: VerifiedPages = self._hear(VerifiedPages, self._supervisor.wait)
        payload = bytes(self._payload[: CRC_BYTES * len(ours)])
        if verified.pages != len(ours) or isal_zlib.crc32(payload) != verified.crc32:
            raise RunFailed(f"{self._peer.address}: the checksums of region {region} are damaged")
        pages = np.flatnonzero(ours != np.frombuffer(payload, "<u4"))
        looks = 1
        while not len(pages) and region_digest(self._source, region_bytes, region) != theirs:
            if looks == MAX_LOOKS:
                pages = np.arange(len(ours))
                break
            looks += 1
            ours = page_crcs(self._source, region_bytes, region)
            pages = np.flatnonzero(ours != np.frombuffer(payload, "<u4"))
        differing: PageNumbers = (first + pages).astype(np.uint32)
        return differing

    def commit(self, dirty_pages: int) -> None:
        """The receiver puts the copy where it belongs. Raises RunFailed when that is not known."""
        self._finish_senders()
        try:
            committed: Committed = self._ask(
                FrameType.COMMIT, Commit(self._next(), dirty_pages), Committed, self._supervisor.wait
            )
        except PeerFailed:
            raise  # it has answered: there is no copy
        except RunFailed as error:
            raise RunFailed(
                f"{error}; whether {self._peer.address} has written the copy is not known"
            ) from error
        self._output = committed.where

    def finish(self) -> TransportFigures:
        """End all workers; what both sides measured."""
        if self._local is not None:
            self._local.leaving = True
        said = self._finish_senders()
        sending, reasons = figures_of([message for message in said if "cpu_seconds" in message])
        report: Report = self._ask(FrameType.FINISH, Asked(self._next()), Report, self._supervisor.wait)
        (control,) = self._supervisor.finish([self._control])
        sending.add(usage_of(control), int(control["private_bytes"]))
        used = Usage(
            report.cpu_seconds, report.minor_faults, report.major_faults, report.involuntary_switches
        )
        for index, value in enumerate(report.counts[: len(self._applied)]):
            self._applied[index] = value
        channels = [message["connection"] for message in said]
        record = {
            "kind": "tcp",
            "address": str(self._peer.address),
            "tls": "1.3" if self._peer.tls is not None else None,
            "output": self._output or None,
            "reconnections": sum(len(channel["broken"]) for channel in channels),
            "retransmits": sum(channel.get("retransmits", 0) for channel in channels),
            "zero_copy": self._zero_copy_record(channels),
            "channels": channels,
            "control": control["control"],
            "receiver_host": report.host,
        }
        self._await_local_end()
        figures = SideFigures(used, report.private_bytes_max)
        reasons |= set(report.fallback_reasons)
        return TransportFigures(sending, figures, self._applied, reasons, record)

    def _zero_copy_record(self, channels: list[dict[str, Any]]) -> dict[str, int] | None:
        """What was sent without a copy, and what of it the kernel copied all the same."""
        if not self._options.zero_copy:
            return None
        keys = ("sent_bytes", "copied_bytes", "unknown_bytes")
        return {key: sum(channel.get(f"zero_copy_{key}", 0) for channel in channels) for key in keys}

    def _await_local_end(self) -> None:
        """A receiver of this run's own has said all that it has to say, and ends by itself."""
        until = time.monotonic() + FINISH_SECONDS
        while self._local is not None and self._local.exit_status is None and time.monotonic() < until:
            self._supervisor.wait(ANSWER_STEP_SECONDS)

    def _finish_senders(self) -> list[IpcMessage]:
        """End the senders, as soon as all of their packets are applied; what they say at their end.

        Who is still calling the receiver then, over a connection that broke, is not waited for, and may fail.
        """
        if self._said is not None:
            return self._said
        for worker in self._senders:
            worker.leaving = True
            self._supervisor.tell(worker, {"kind": "finish"})
        until = time.monotonic() + FINISH_SECONDS
        while time.monotonic() < until and (left := self._unfinished()):
            try:
                self._supervisor.wait(ANSWER_STEP_SECONDS)
            except RunFailed:
                if self._unfinished() == left:
                    raise
        said: list[IpcMessage] = []
        for number, worker in enumerate(self._senders):
            _forget_rounds(worker)
            found = self._supervisor.take(worker, "usage")
            if found is None:
                self._supervisor.dismiss(worker)
            calling = {"channel": number, "broken": ["was still calling when the run was over"]}
            said.append(found[0] if found else {"connection": calling})
        self._said = said
        return said

    def _unfinished(self) -> list[Worker]:
        for worker in self._senders:
            _forget_rounds(worker)
        return [worker for worker in self._senders if worker.exit_status is None and not worker.inbox]

    def abandon(self, why: str) -> None:
        """Tell the receiver, which would wait for a sender that only lost its connection."""
        self._supervisor.tell(self._control, {"kind": "failed", "text": why[:MAX_TEXT]})
        until = time.monotonic() + ABANDON_SECONDS
        while self._control.exit_status is None and time.monotonic() < until:
            try:
                self._supervisor.wait(ANSWER_STEP_SECONDS)
            except FerryError:
                continue  # the run has failed already, and its reason is known


def _forget_rounds(worker: Worker) -> None:
    """What a worker, back from a connection that broke, says of a round that is over."""
    worker.inbox[:] = [(said, fds) for said, fds in worker.inbox if said["kind"] != "sent"]


def _serve_here(
    connection: Connection,
    options: ReceiveOptions,
    listener: socket.socket,
    context: ssl.SSLContext | None,
) -> None:
    """The receiver of a run that has both ends here. Raises FerryError when it fails."""
    del connection
    with Supervisor() as supervisor:
        outcome = Session(options, listener, context, supervisor, _quiet, _quiet).serve()
        if outcome.error is not None:
            raise outcome.error


def _quiet(text: str) -> None:
    """The send side says it."""
