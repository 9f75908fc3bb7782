"""A real QEMU: as the peer that ours is measured beside."""
