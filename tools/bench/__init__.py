"""Ours beside a real QEMU and beside each codec alone, in one run."""
