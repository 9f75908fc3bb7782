"""Sections that are suites of their own."""

from __future__ import annotations

from tools.bench import auto, network, peers, relay, scale, transports
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
        "Method auto beside the best of the fixed methods and levels, for five kinds of memory, one of "
        "them the RAM of a Linux guest under QEMU. Each is judged by its quickest turn: a cell holds "
        "when auto is within 5 % of the best fixed method and 2 % of `none`; one that holds after a turn is "
        "not run again. Over a slow wire a part of the image is sent, of 5 seconds at most.",
        auto.measure,
        auto.tables,
        share=0.5,
    ),
    Section(
        "auto-links",
        "Method auto over TCP",
        "The same over TCP between network namespaces, with a cable (tc tbf) of each speed.",
        auto.measure_links,
        auto.tables,
        share=0.5,
        why_not=network.why_not,
    ),
    Section(
        "auto-device",
        "Method auto with a QAT device",
        "The same through the queue on an emulated QAT device, whose work these CPUs do: `auto` prefers a "
        "device as long as it costs at most a tenth of the time.",
        auto.measure_device,
        auto.tables,
        share=0.5,
    ),
    Section(
        "relay",
        "A real VM through two relays",
        "A live Linux guest under QEMU (TCG, so the guest itself takes CPU), migrated by QEMU alone and "
        "through two relays, between network namespaces with a cable (tc tbf) of each speed. The CPUs are "
        "shared by both QEMUs, their guests and both relays. The blackout is from the source's event STOP to "
        "the destination's RESUME.",
        relay.measure,
        relay.tables,
        share=0.25,
        why_not=network.why_not,
    ),
    Section(
        "scale",
        "Guest size, channels, start-up",
        "What a larger guest, more channels and a short run cost.",
        scale.measure,
        scale.tables,
    ),
)
