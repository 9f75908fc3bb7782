from __future__ import annotations

import os

import pytest

from guestmem.ipc import Connection, PeerGone
from guestmem.page import PAGE_BYTES
from guestmem.segment import create_segment


def test_messages_carry_descriptors_and_tell_of_the_end() -> None:
    one, other = Connection.pair()
    fd = create_segment("test", PAGE_BYTES)
    one.send({"kind": "ready", "n": 1}, (fd,))
    message, descriptors = other.receive()
    assert (message, len(descriptors)) == ({"kind": "ready", "n": 1}, 1)
    one.socket.send(b"[1]")
    with pytest.raises(ValueError, match="kind"):
        other.receive()
    one.close()
    with pytest.raises(PeerGone):
        other.receive()


def test_what_is_no_message_leaves_no_descriptor_open() -> None:
    one, other = Connection.pair()
    fd = create_segment("test", PAGE_BYTES)
    before = os.listdir("/proc/self/fd")
    one.send({"n": 1}, (fd, fd))
    with pytest.raises(ValueError, match="kind"):
        other.receive()
    assert os.listdir("/proc/self/fd") == before


def test_the_kernel_names_the_peer() -> None:
    assert Connection.pair()[0].peer() == (os.getpid(), os.geteuid())
