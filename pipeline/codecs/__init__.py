"""The methods by name and by their code on the wire. One file a method."""

from __future__ import annotations

from pipeline.codecs import none, qatzip, zlib, zstd
from pipeline.codecs.method import Method

METHODS: dict[str, Method] = {
    method.name: method for method in (none.METHOD, zlib.METHOD, zstd.METHOD, qatzip.METHOD)
}
