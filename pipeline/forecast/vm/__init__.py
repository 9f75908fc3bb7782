"""A look at a VM that QEMU runs."""
