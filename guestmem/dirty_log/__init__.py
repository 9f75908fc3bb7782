"""Which pages were written since the last sync."""

LOGS = ("auto", "kernel", "shared")
