"""What QEMU really sends under its own `max-bandwidth`, where the wire carries more: more than that.

QEMU allows a tenth of the limit in each 100 ms (`BUFFER_DELAY`), and asks between packets whether it is used
up, by the bytes that channels have *sent* (migration_rate_exceeded, migration/migration-stats.c). At that
moment channels have packets under way, and the main thread has one in its hand, which goes too. So a 100 ms
takes as many packets as begin below the limit, and most of the channels' besides: with 2 channels and 12.5
MB/s QEMU 10.0.2 sent 4 or 5 packets of 512 KiB in place of 2.4, 23.6 MB/s (measured, without a codec).

For the switchover it lifts the limit (migration_completion_precopy, migration/migration.c). Zero pages are
taken to be in packets of their own, as where they lie together.
"""

from __future__ import annotations

import math

WINDOW_SECONDS = 0.1
"""`BUFFER_DELAY` of migration/migration.c."""

NOT_ALWAYS = 0.5
"""Of a packet: the last of those that may be under way is so in half of the windows."""


def passed_bytes_per_second(limit_bytes_per_second: float, channels: int, packet_bytes: float) -> float:
    """What goes through, for packets of so many wire bytes; never less than the limit."""
    if packet_bytes <= 0:
        return limit_bytes_per_second
    begun = math.ceil(limit_bytes_per_second * WINDOW_SECONDS / packet_bytes)
    return (begun + channels - NOT_ALWAYS) * packet_bytes / WINDOW_SECONDS
