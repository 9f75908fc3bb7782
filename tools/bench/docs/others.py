"""Sections that are suites of their own."""

from __future__ import annotations

from tools.bench import auto, peers, scale, transports
from tools.bench.docs.section import Section

SECTIONS = (
    Section(
        "peers",
        "Beside QEMU, and beside the codec alone",
        "The same image through ramferry and through a real QEMU multifd migration (a paused guest, "
        "loopback, `prealloc=on`), and each codec alone in one thread on the same packets.",
        peers.measure,
        peers.tables,
    ),
    Section(
        "transports",
        "TCP beside shared memory",
        "Channels over loopback TCP, beside the queue in shared memory and beside QEMU's multifd over "
        "loopback.",
        transports.measure,
        transports.tables,
    ),
    Section(
        "auto",
        "Method auto",
        "Method auto beside the best of the fixed methods and levels, for four kinds of memory. A cell holds "
        "when auto is within 5 % of the best fixed method and 2 % of `none`.",
        auto.measure,
        auto.tables,
        share=0.25,
    ),
    Section(
        "scale",
        "Guest size, channels, start-up",
        "What a larger guest, more channels and a short run cost.",
        scale.measure,
        scale.tables,
    ),
)
