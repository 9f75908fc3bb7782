"""The declarations of zlib that we use, for cffi's out-of-line ABI mode.

`python -m pipeline.libz_binding` writes `pipeline/_libz.py`. Layout of z_stream:
zlib.h of 1.2 and 1.3, 64-bit.
"""

from __future__ import annotations

from pathlib import Path

import cffi

MODULE = "pipeline._libz"

DECLARATIONS = """
typedef struct {
    const unsigned char *next_in;
    unsigned int avail_in;
    unsigned long total_in;
    unsigned char *next_out;
    unsigned int avail_out;
    unsigned long total_out;
    const char *msg;
    void *state;
    void *zalloc;
    void *zfree;
    void *opaque;
    int data_type;
    unsigned long adler;
    unsigned long reserved;
} z_stream;

const char *zlibVersion(void);
int deflateInit_(z_stream *strm, int level, const char *version, int stream_size);
int deflate(z_stream *strm, int flush);
int deflateReset(z_stream *strm);
int deflateEnd(z_stream *strm);
"""


def builder() -> cffi.FFI:
    """The FFI that writes the module."""
    ffi = cffi.FFI()
    ffi.cdef(DECLARATIONS)
    ffi.set_source(MODULE, None)
    return ffi


if __name__ == "__main__":
    builder().emit_python_code(str(Path(__file__).with_name("_libz.py")))
