"""How long a destination's guest waits for a page in postcopy, from QEMU's own trace.

QEMU's log backend writes `THREAD@SECONDS:EVENT WORDS` (scripts/tracetool/backend/log.py); the events are of
migration/trace-events.
"""

from __future__ import annotations

import re
from pathlib import Path

REQUESTED, PLACED, PLACED_ZERO = (
    "postcopy_ram_fault_thread_request",
    "postcopy_place_page",
    "postcopy_place_page_zero",
)
LINE = re.compile(r"\d+@(\d+\.\d+):(\w+) .*?(?:HVA|host)=0x([0-9a-f]+)")


def trace_options(log: Path) -> tuple[str, ...]:
    """What QEMU is to be started with."""
    events = (word for event in (REQUESTED, PLACED, PLACED_ZERO) for word in ("-trace", f"enable={event}"))
    return (*events, "-D", str(log), "-msg", "timestamp=on")


def waits_ms(log: str) -> list[float]:
    """Milliseconds from each page's first request to its being placed."""
    asked: dict[str, float] = {}
    found = []
    for at, event, page in LINE.findall(log):
        if event == REQUESTED:
            asked.setdefault(page, float(at))
        elif page in asked:
            found.append((float(at) - asked.pop(page)) * 1e3)
    return found
