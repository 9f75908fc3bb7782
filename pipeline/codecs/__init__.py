"""The methods by name and by their code on the wire. One file a method."""

from __future__ import annotations

from pipeline.codecs import isal, lz4, none, qatzip, zlib, zstd
from pipeline.codecs.method import Method

METHODS: dict[str, Method] = {
    module.METHOD.name: module.METHOD for module in (none, lz4, zlib, isal, zstd, qatzip)
}
