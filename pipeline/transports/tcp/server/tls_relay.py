"""From a TLS connection to a worker that cannot take it over, byte for byte.

The state of a TLS connection lies in the process that did its handshake. When a connection is made again this
process is forked from that one, decrypts, and passes what comes to the worker that has the destination.
"""

from __future__ import annotations

import select
import socket
import ssl

from guestmem.ipc import Connection
from pipeline.processes.usage import Usage, usage_message
from pipeline.transports.tcp.protocol import STALL_SECONDS

BUFFER_BYTES = 256 << 10
"""Sixteen records of TLS, so that the worker is woken for more than one."""


def run_tls_relay(connection: Connection, tls: ssl.SSLSocket, plain: socket.socket) -> None:
    """Until one of the two ends is closed; then the other is."""
    before = Usage.now()
    try:
        _relay(tls, plain)
    except OSError:
        pass  # either end is gone, which the other learns of by the close
    plain.close()
    tls.close()
    connection.send(usage_message(before, ""))


def _relay(tls: ssl.SSLSocket, plain: socket.socket) -> None:
    """Both directions. Raises OSError when one end is gone."""
    plain.setblocking(True)
    poll = select.poll()
    poll.register(tls, select.POLLIN)
    poll.register(plain, select.POLLIN)
    buffer = memoryview(bytearray(BUFFER_BYTES))
    while True:
        ready = [fd for fd, _ in poll.poll()]
        if plain.fileno() in ready:
            answer = plain.recv(BUFFER_BYTES)
            if not answer:
                return
            tls.settimeout(STALL_SECONDS)
            tls.sendall(answer)
        if tls.fileno() in ready and not _pass_on(tls, plain, buffer):
            return


def _pass_on(tls: ssl.SSLSocket, plain: socket.socket, buffer: memoryview) -> bool:
    """All that has come; False at its end. Raises OSError."""
    tls.setblocking(False)
    filled, is_open = 0, True
    while is_open:
        try:
            got = tls.recv_into(buffer[filled:])
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            break
        except OSError:
            got = 0
        filled += got
        is_open = got > 0
        if filled == len(buffer):
            plain.sendall(buffer)
            filled = 0
    plain.sendall(buffer[:filled])
    return is_open
