"""Channels over sockets: TCP with TLS 1.3, or Unix sockets. `pipeline.tcp.protocol` is the specification."""
