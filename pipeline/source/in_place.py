"""Raw pages that are sent from where they lie in guest RAM, while the guest may write them.

Nothing is copied here and nothing is summed. A page that is written while it is read arrives torn, and is
dirty: the guest marks a page after writing it, and its mark was cleared before it was read. So it goes again,
at the latest while the guest stands (`pipeline.transports.tcp.protocol`, "What guards what").
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from guestmem.ram import GuestRam
from pipeline.packets.checksums import crcs_in_ram
from pipeline.packets.packet import MIN_BLOCK_PAGES, NOT_SUMMED, Packet
from pipeline.packets.page_runs import side_by_side

Pages = npt.NDArray[np.uint32]


def sort_out_zero(source: GuestRam, pages: Pages) -> tuple[Pages, Pages]:
    """The normal and the zero ones of ascending pages. Of a normal page one word is read, as a rule."""
    suspects = source.words[side_by_side(pages) or pages, 0] == 0
    if not suspects.any():
        return pages, pages[:0]
    suspects[suspects] = ~source.words[pages[suspects]].any(axis=1)
    return pages[~suspects], pages[suspects]


def summed(packet: Packet, ram: GuestRam) -> Packet:
    """The same with checksums, for a receiver of 0.1.0: where the guest writes between this and the sending,
    a block does not match and is refused there."""
    if packet.block_pages != NOT_SUMMED:
        return packet
    crcs = crcs_in_ram(ram.memory, packet.normal, MIN_BLOCK_PAGES)
    return dataclasses.replace(packet, block_pages=MIN_BLOCK_PAGES, block_crcs=crcs)
