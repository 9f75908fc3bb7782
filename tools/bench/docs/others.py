"""Sections that are suites of their own."""

from __future__ import annotations

from tools.bench import auto, deltas, fleet, forecast, network, peers, relay, scale, transports
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
        "deltas",
        "Deltas",
        "Runs with `--delta 0` and with `--delta auto`, in turn, over a limit such that some rounds are "
        "needed. Pages with a base are those of rounds 2 on that had a kept version: what they would have "
        "taken whole, over what they took. The real guest's trace was recorded under QEMU.",
        deltas.measure,
        deltas.tables,
    ),
    Section(
        "forecast",
        "Forecasts",
        "Presets, steady rates and a real guest's RAM, by several methods, over links of several speeds "
        "and without a limit; 20 more about the rate at which a guest just converges. Each run is forecast "
        "from a look of some 5 s before it. Close is within 15 %, a downtime within 30 ms or 25 %.",
        forecast.measure,
        forecast.tables,
        share=0.25,
    ),
    Section(
        "fleet",
        "Emptying racks",
        "Plans of `tools.evacuate --generate`, by seed, beside `cap-k` (2 out of a host, 5 in all) and `lpt` "
        "(longest first). The distance is over the bound that no plan can beat, less 1.",
        fleet.measure,
        fleet.tables,
    ),
    Section(
        "scale",
        "Guest size, channels, start-up",
        "What a larger guest, more channels and a short run cost.",
        scale.measure,
        scale.tables,
    ),
)
