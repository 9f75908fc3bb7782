"""How much of a guest a channel compresses at once: the same in QEMU and here."""

from __future__ import annotations

from guestmem.page import PAGE_BYTES

PACKET_PAGES = 128
PACKET_BYTES = PACKET_PAGES * PAGE_BYTES
"""Of guest memory, as in a packet of QEMU's multifd (`MULTIFD_PACKET_SIZE`)."""
