"""The methods by name and by their code on the wire. One file a method."""

from __future__ import annotations

from zlib import ZLIB_RUNTIME_VERSION

from pipeline.codecs import isal, lz4, none, qatzip, zlib, zstd
from pipeline.codecs.method import Method



def library_versions() -> dict[str, str]:
    """Versions of the C libraries that the methods call, by name, as far as this host has them."""
    found = {"zlib": ZLIB_RUNTIME_VERSION}
    if not zstd.METHOD.unavailable():
        found["libzstd"] = zstd.library_version()
    return found


METHODS: dict[str, Method] = {
    module.METHOD.name: module.METHOD for module in (none, lz4, zlib, isal, zstd, qatzip)
}
