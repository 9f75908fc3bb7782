"""The send side of a connection."""
