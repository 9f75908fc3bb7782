"""A small live Linux under QEMU: made in seconds, busy, and able to check its own memory."""
