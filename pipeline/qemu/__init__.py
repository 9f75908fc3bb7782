"""Asking a QEMU: its monitor, or libvirt that holds it."""
