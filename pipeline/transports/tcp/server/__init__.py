"""The receive side of a connection."""
