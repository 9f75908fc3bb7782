"""The declarations of libqatzip that are used here, for cffi's out-of-line ABI mode.

`python -m qat.binding` writes `qat/_libqatzip.py`. Nothing is compiled, and importing that module
needs neither a C compiler nor a C parser. Struct layouts were compiled and compared between libqatzip
1.3.1 and 2.0.0 on x86-64 (40, 48, 48, 56, 60 bytes); 1.2.0 has the same, without `DeflateExt`.
"""

from __future__ import annotations

from pathlib import Path

import cffi

MODULE = "qat._libqatzip"

DECLARATIONS = """
typedef struct {
    signed long hw_session_stat;
    int thd_sess_stat;
    void *internal;
    unsigned long total_in;
    unsigned long total_out;
} QzSession_T;

typedef struct {
    int direction;
    unsigned int comp_lvl;
    unsigned char comp_algorithm;
    unsigned int max_forks;
    unsigned char sw_backup;
    unsigned int hw_buff_sz;
    unsigned int strm_buff_sz;
    unsigned int input_sz_thrshold;
    unsigned int req_cnt_thrshold;
    unsigned int wait_cnt_thrshold;
    int polling_mode;
    unsigned int is_sensitive_mode;
} QzSessionParamsCommon_T;

typedef struct {
    QzSessionParamsCommon_T common_params;
    int huffman_hdr;
    int data_fmt;
} QzSessionParamsDeflate_T;

typedef struct {
    QzSessionParamsDeflate_T deflate_params;
    unsigned char stop_decompression_stream_end;
    unsigned char zlib_format;
} QzSessionParamsDeflateExt_T;

int qzSetLogLevel(int level);
int qzInit(QzSession_T *sess, unsigned char sw_backup);
int qzGetDefaultsDeflate(QzSessionParamsDeflate_T *defaults);
int qzGetDefaultsDeflateExt(QzSessionParamsDeflateExt_T *defaults);
int qzSetupSessionDeflate(QzSession_T *sess, QzSessionParamsDeflate_T *params);
int qzSetupSessionDeflateExt(QzSession_T *sess, QzSessionParamsDeflateExt_T *params);
int qzGetDeflateEndOfStream(QzSession_T *sess, unsigned char *endofstream);
int qzCompress(QzSession_T *sess, const unsigned char *src, unsigned int *src_len,
               unsigned char *dest, unsigned int *dest_len, unsigned int last);
int qzDecompress(QzSession_T *sess, const unsigned char *src, unsigned int *src_len,
                 unsigned char *dest, unsigned int *dest_len);
int qzTeardownSession(QzSession_T *sess);
int qzClose(QzSession_T *sess);
void *qzMalloc(size_t size, int numa, int pinned);
void qzFree(void *memory);

int ramferry_emulated(void);
"""


def builder() -> cffi.FFI:
    """The FFI that writes the module."""
    ffi = cffi.FFI()
    ffi.cdef(DECLARATIONS)
    ffi.set_source(MODULE, None)
    return ffi


if __name__ == "__main__":
    builder().emit_python_code(str(Path(__file__).with_name("_libqatzip.py")))
