/* A libqatzip for tests: zlib plays the device, and can be told to misbehave.
 *
 * FAKE_QAT   ok          every call succeeds (default)
 *            no-hw       qzInit finds no device
 *            init-busy   qzInit finds no free instance
 *            bad-setup   the session cannot be set up; calls after that abort()
 *            busy:N      the first N compressions find no free instance
 *            always-busy every one does
 *            fail        compression fails
 *            short       compression says OK, but took less than all
 *            long        compression says OK with an impossible length
 * -DV12 leaves out what libqatzip 1.2 does not have.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const unsigned char *next_in; unsigned avail_in; unsigned long total_in;
    unsigned char *next_out; unsigned avail_out; unsigned long total_out;
    const char *msg; void *state; void *zalloc; void *zfree; void *opaque;
    int data_type; unsigned long adler; unsigned long reserved;
} z_stream;
extern const char *zlibVersion(void);
extern int deflateInit2_(z_stream *, int, int, int, int, int, const char *, int);
extern int deflate(z_stream *, int);
extern int deflateEnd(z_stream *);
extern int inflateInit2_(z_stream *, int, const char *, int);
extern int inflate(z_stream *, int);
extern int inflateEnd(z_stream *);
extern unsigned long crc32(unsigned long, const unsigned char *, unsigned);

typedef struct { long stat; int thread; void *internal; unsigned long total_in, total_out; } Session;
typedef struct {
    int direction; unsigned level; unsigned char algorithm; unsigned forks; unsigned char sw_backup;
    unsigned hw_buff_sz, strm_buff_sz, threshold, req, wait; int polling; unsigned sensitive;
} Common;
typedef struct { Common common; int huffman; int format; } Deflate;
typedef struct { Deflate deflate; unsigned char stop, zlib; } DeflateExt;

static int live, broken, busy_left = -1;
static unsigned member;

static int mode(const char *name) {
    const char *set = getenv("FAKE_QAT");
    return set && !strncmp(set, name, strlen(name));
}

static void die(const char *why) { fprintf(stderr, "fake qatzip: %s\n", why); abort(); }

int qzInit(Session *s, unsigned char sw_backup) {
    if (sw_backup) die("sw_backup was asked for");
    if (mode("no-hw")) { fprintf(stderr, "Cannot open /dev/vfio\n"); return -101; }
    if (mode("init-busy")) return -103;
    memset(s, 0, sizeof *s);
    return 0;
}

static int defaults(Deflate *d) {
    memset(d, 0, sizeof *d);
    d->common.direction = 2; d->common.level = 1; d->common.algorithm = 8; d->common.sw_backup = 1;
    d->common.hw_buff_sz = 65536; d->format = 2;
    return 0;
}

static int setup(Deflate *d) {
    if (mode("bad-setup")) { broken = 1; return -1; }
    if (d->common.sw_backup) die("the session has sw_backup");
    if (d->format != 2) die("the session is not GZIP_EXT");
    if (live) die("set up twice without a teardown");
    member = d->common.hw_buff_sz; live = 1;
    return 0;
}

int qzGetDefaultsDeflate(Deflate *d) { return defaults(d); }
int qzSetupSessionDeflate(Session *s, Deflate *d) { (void)s; return setup(d); }
#ifndef V12
int qzGetDefaultsDeflateExt(DeflateExt *d) { memset(d, 0, sizeof *d); return defaults(&d->deflate); }
int qzSetupSessionDeflateExt(Session *s, DeflateExt *d) { (void)s; return setup(&d->deflate); }
int qzSetLogLevel(int level) { return level; }
int qzGetDeflateEndOfStream(Session *s, unsigned char *end) { (void)s; *end = 1; return 0; }
#endif
int qzTeardownSession(Session *s) { memset(s, 0, sizeof *s); live = 0; return 0; }
int qzClose(Session *s) { (void)s; return 0; }

static void put32(unsigned char *at, unsigned v) { memcpy(at, &v, 4); }

int qzCompress(Session *s, const unsigned char *src, unsigned *n, unsigned char *dst, unsigned *cap, unsigned last) {
    static const unsigned char head[16] = {0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 12, 0, 'Q', 'Z', 8, 0};
    unsigned done = 0, out = 0;
    if (broken || !live) die("a call without a session");
    if (last != 1) die("last is not 1");
    if (busy_left < 0) busy_left = mode("busy:") ? atoi(getenv("FAKE_QAT") + 5) : 0;
    if (mode("always-busy") || busy_left > 0) { busy_left -= busy_left > 0; return -103; }
    if (mode("fail")) return -2;
    while (done < *n) {
        unsigned piece = *n - done < member ? *n - done : member;
        z_stream z;
        if (out + 32 > *cap) { *n = done; *cap = out; return -3; }
        memset(&z, 0, sizeof z);
        deflateInit2_(&z, 1, 8, -15, 8, 0, zlibVersion(), sizeof z);
        z.next_in = src + done; z.avail_in = piece;
        z.next_out = dst + out + 24; z.avail_out = *cap - out - 32;
        if (deflate(&z, 4) != 1) { deflateEnd(&z); *n = done; *cap = out; return -3; }
        memcpy(dst + out, head, 16);
        put32(dst + out + 16, piece); put32(dst + out + 20, (unsigned)z.total_out);
        out += 24 + z.total_out;
        deflateEnd(&z);
        put32(dst + out, (unsigned)crc32(0, src + done, piece)); put32(dst + out + 4, piece);
        out += 8; done += piece;
    }
    s->total_in += done; s->total_out += out;
    *n = mode("short") ? done - 1 : done;
    *cap = mode("long") ? 0x7fffffff : out;
    return 0;
}

int qzDecompress(Session *s, const unsigned char *src, unsigned *n, unsigned char *dst, unsigned *cap) {
    unsigned at = 0, out = 0;
    if (broken || !live) die("a call without a session");
    while (at + 32 <= *n) {
        unsigned plain, length; z_stream z;
        memcpy(&plain, src + at + 16, 4); memcpy(&length, src + at + 20, 4);
        if (plain > member || length > 9 * member / 8 + 1024) { *n = at; *cap = out; return -2; }
        memset(&z, 0, sizeof z);
        inflateInit2_(&z, -15, zlibVersion(), sizeof z);
        z.next_in = src + at + 24; z.avail_in = length; z.next_out = dst + out; z.avail_out = *cap - out;
        if (inflate(&z, 4) != 1) { inflateEnd(&z); return -4; }
        out += z.total_out; at += 24 + length + 8;
        inflateEnd(&z);
    }
    s->total_in += at; s->total_out += out;
    *n = at; *cap = out;
    return 0;
}
