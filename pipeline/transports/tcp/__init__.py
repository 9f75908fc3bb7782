"""Channels over TCP with TLS 1.3, or over Unix sockets; `protocol` is the specification."""
