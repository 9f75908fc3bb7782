"""Which pages were written since the last sync."""
