"""The processes of a run: start, watch and stop them, and what they used."""
