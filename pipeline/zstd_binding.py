"""The declarations of libzstd that we use, for cffi's out-of-line ABI mode.

`python -m pipeline.zstd_binding` writes `pipeline/_zstd.py`. From zstd.h and zstd_errors.h, 1.4 and
later.
"""

from __future__ import annotations

from pathlib import Path

import cffi

MODULE = "pipeline._zstd"

DECLARATIONS = """
typedef struct ZSTD_CCtx_s ZSTD_CCtx;
typedef struct ZSTD_DCtx_s ZSTD_DCtx;

unsigned ZSTD_versionNumber(void);
unsigned ZSTD_isError(size_t code);
const char *ZSTD_getErrorName(size_t code);
int ZSTD_getErrorCode(size_t code);

ZSTD_CCtx *ZSTD_createCCtx(void);
size_t ZSTD_freeCCtx(ZSTD_CCtx *context);
size_t ZSTD_CCtx_setParameter(ZSTD_CCtx *context, int parameter, int value);
size_t ZSTD_compress2(ZSTD_CCtx *context, void *dst, size_t capacity, const void *src, size_t size);

ZSTD_DCtx *ZSTD_createDCtx(void);
size_t ZSTD_freeDCtx(ZSTD_DCtx *context);
size_t ZSTD_decompressDCtx(ZSTD_DCtx *context, void *dst, size_t capacity, const void *src, size_t size);
unsigned long long ZSTD_getFrameContentSize(const void *src, size_t size);
size_t ZSTD_findFrameCompressedSize(const void *src, size_t size);
"""


def builder() -> cffi.FFI:
    """The FFI that writes the module."""
    ffi = cffi.FFI()
    ffi.cdef(DECLARATIONS)
    ffi.set_source(MODULE, None)
    return ffi


if __name__ == "__main__":
    builder().emit_python_code(str(Path(__file__).with_name("_zstd.py")))
