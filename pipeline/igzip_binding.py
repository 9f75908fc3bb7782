"""The declarations of ISA-L's igzip that we use, for cffi's out-of-line ABI mode.

`python -m pipeline.igzip_binding` writes `pipeline/_igzip.py`. Layouts: the leading fields of
isal_zstream and inflate_state in igzip_lib.h, the same in ISA-L 2.21 to 2.32; what follows them
is ISA-L's own and only given room (216 KiB of inflate_state, 68 KiB of isal_zstream in 2.32).
"""

from __future__ import annotations

from pathlib import Path

import cffi

MODULE = "pipeline._igzip"

DECLARATIONS = """
typedef struct {
    const unsigned char *next_in;
    uint32_t avail_in;
    uint32_t total_in;
    unsigned char *next_out;
    uint32_t avail_out;
    uint32_t total_out;
    void *hufftables;
    uint32_t level;
    uint32_t level_buf_size;
    unsigned char *level_buf;
    uint16_t end_of_stream;
    uint16_t flush;
    uint16_t gzip_flag;
    uint16_t hist_bits;
    unsigned char internal_state[262144];
} isal_zstream;

typedef struct {
    unsigned char *next_out;
    uint32_t avail_out;
    uint32_t total_out;
    const unsigned char *next_in;
    uint64_t read_in;
    uint32_t avail_in;
    int32_t read_in_length;
    unsigned char internal_state[524288];
} inflate_state;

void isal_deflate_stateless_init(isal_zstream *stream);
int isal_deflate_stateless(isal_zstream *stream);
void isal_inflate_init(inflate_state *state);
int isal_inflate_stateless(inflate_state *state);
"""


def builder() -> cffi.FFI:
    """The FFI that writes the module."""
    ffi = cffi.FFI()
    ffi.cdef(DECLARATIONS)
    ffi.set_source(MODULE, None)
    return ffi


if __name__ == "__main__":
    builder().emit_python_code(str(Path(__file__).with_name("_igzip.py")))
