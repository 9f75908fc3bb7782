"""Packets and what carries them through one host: layout, bounded queue, a round's list, counters, pacing."""
