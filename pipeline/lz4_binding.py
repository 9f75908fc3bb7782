"""The declarations of liblz4 that we use, for cffi's out-of-line ABI mode.

`python -m pipeline.lz4_binding` writes `pipeline/_lz4.py`. From lz4.h and lz4hc.h, 1.9 and 1.10.
"""

from __future__ import annotations

from pathlib import Path

import cffi

MODULE = "pipeline._lz4"

DECLARATIONS = """
int LZ4_sizeofState(void);
int LZ4_compress_fast_extState(void *state, const char *src, char *dst, int size, int capacity,
                               int acceleration);
int LZ4_sizeofStateHC(void);
int LZ4_compress_HC_extStateHC(void *state, const char *src, char *dst, int size, int capacity,
                               int level);
int LZ4_decompress_safe(const char *src, char *dst, int size, int capacity);
"""


def builder() -> cffi.FFI:
    """The FFI that writes the module."""
    ffi = cffi.FFI()
    ffi.cdef(DECLARATIONS)
    ffi.set_source(MODULE, None)
    return ffi


if __name__ == "__main__":
    builder().emit_python_code(str(Path(__file__).with_name("_lz4.py")))
