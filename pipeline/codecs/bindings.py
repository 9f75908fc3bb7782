"""The declarations of the C libraries that codecs call, for cffi's out-of-line ABI mode.

`python -m pipeline.codecs.bindings` writes `pipeline/codecs/_NAME.py` for each; nothing is compiled, and a
program that imports those needs neither a C compiler nor a C parser.
"""

from __future__ import annotations

from pathlib import Path

import cffi

LIBZ = """
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
"""zlib.h of 1.2 and 1.3; layout of z_stream on 64 bits."""

IGZIP = """
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
"""igzip_lib.h: the leading fields of isal_zstream and inflate_state, the same in ISA-L 2.21 to 2.32; what
follows them is ISA-L's own and only given room (68 and 216 KiB in 2.32)."""

LZ4 = """
int LZ4_sizeofState(void);
int LZ4_compress_fast_extState(void *state, const char *src, char *dst, int size, int capacity,
                               int acceleration);
int LZ4_sizeofStateHC(void);
int LZ4_compress_HC_extStateHC(void *state, const char *src, char *dst, int size, int capacity,
                               int level);
int LZ4_decompress_safe(const char *src, char *dst, int size, int capacity);
"""
"""lz4.h and lz4hc.h, 1.9 and 1.10."""

ZSTD = """
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

typedef struct { const void *src; size_t size; size_t pos; } ZSTD_inBuffer;
typedef struct { void *dst; size_t size; size_t pos; } ZSTD_outBuffer;

size_t ZSTD_compressStream2(ZSTD_CCtx *context, ZSTD_outBuffer *out, ZSTD_inBuffer *in, int end);
size_t ZSTD_decompressStream(ZSTD_DCtx *context, ZSTD_outBuffer *out, ZSTD_inBuffer *in);
size_t ZSTD_DCtx_setParameter(ZSTD_DCtx *context, int parameter, int value);
"""
"""zstd.h and zstd_errors.h, 1.4 and later."""

BINDINGS = {"_libz": LIBZ, "_igzip": IGZIP, "_lz4": LZ4, "_zstd": ZSTD}


def builder(name: str) -> cffi.FFI:
    """The FFI that writes the module `pipeline.codecs.NAME`."""
    ffi = cffi.FFI()
    ffi.cdef(BINDINGS[name])
    ffi.set_source(f"pipeline.codecs.{name}", None)
    return ffi


if __name__ == "__main__":
    for module in BINDINGS:
        builder(module).emit_python_code(str(Path(__file__).with_name(f"{module}.py")))
