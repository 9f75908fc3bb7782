/* libqatzip's ABI in front of an emulated QAT device (qat/emulator/device.py).
 *
 * Behaves as qatzip.h 1.3.1 and the hardware path of its source do, as far as the callers here can
 * tell: every session is as with sw_backup = 0, so what the device does not do fails; hw_session_stat
 * is 0, total_in and total_out advance, an instance belongs to the process, and every call waits for
 * its own requests.
 *
 * QAT_EMULATOR names the device: an abstract Unix socket of type SOCK_SEQPACKET. Attaching gets a
 * status and, with it, memory shared with the device: IN_BYTES to send, OUT_BYTES to receive.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { QZ_OK = 0, QZ_DUPLICATE = 1, QZ_PARAMS = -1, QZ_FAIL = -2, QZ_BUF_ERROR = -3, QZ_NOSW_NO_HW = -101 };
enum { IN_BYTES = 5 << 20, OUT_BYTES = 6 << 20 };
enum { OP_COMPRESS = 1, OP_DECOMPRESS = 2 };

typedef struct { long stat; int thread; void *internal; unsigned long total_in, total_out; } Session;
typedef struct {
    int direction; unsigned level; unsigned char algorithm; unsigned forks; unsigned char sw_backup;
    unsigned hw_buff_sz, strm_buff_sz, threshold, req, wait; int polling; unsigned sensitive;
} Common;
typedef struct { Common common; int huffman; int format; } Deflate;
typedef struct { Deflate deflate; unsigned char stop, zlib; } DeflateExt;

typedef struct { uint32_t op, level, length, hw_buff_sz, capacity, threshold; } Call;
typedef struct { int32_t status; uint32_t consumed, produced; } Answer;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int device = -1, attached_pid, level = 1, ended;
static unsigned hw_buff_sz = 65536, threshold = 1024;
static unsigned char *shared;

int ramferry_emulated(void) { return 1; }

static int attach(void) {
    const char *name = getenv("QAT_EMULATOR");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct iovec part;
    union { struct cmsghdr head; char room[CMSG_SPACE(sizeof(int))]; } control;
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    int32_t status;
    int fd, memory = -1;
    if (!name || strlen(name) > sizeof address.sun_path - 2) return QZ_NOSW_NO_HW;
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0) return QZ_NOSW_NO_HW;
    memcpy(address.sun_path + 1, name, strlen(name));
    if (connect(fd, (struct sockaddr *)&address, offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name))) {
        close(fd);
        return QZ_NOSW_NO_HW;
    }
    part.iov_base = &status;
    part.iov_len = sizeof status;
    if (recvmsg(fd, &message, MSG_CMSG_CLOEXEC) != sizeof status) { close(fd); return QZ_NOSW_NO_HW; }
    if (status == QZ_OK && message.msg_controllen >= sizeof(struct cmsghdr))
        memcpy(&memory, CMSG_DATA(&control.head), sizeof memory);
    if (status != QZ_OK || memory < 0) { close(fd); return status ? status : QZ_NOSW_NO_HW; }
    shared = mmap(NULL, IN_BYTES + OUT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    close(memory);
    if (shared == MAP_FAILED) { close(fd); return QZ_NOSW_NO_HW; }
    device = fd;
    attached_pid = getpid();
    return QZ_OK;
}

int qzInit(Session *s, unsigned char sw_backup) {
    int code = QZ_DUPLICATE;
    if (!s || sw_backup > 1) return QZ_PARAMS;
    pthread_mutex_lock(&lock);
    if (device >= 0 && attached_pid != getpid()) device = -1; /* the parent's: not ours after fork */
    if (device < 0) code = attach();
    pthread_mutex_unlock(&lock);
    return code;
}

static int defaults(Deflate *d) {
    memset(d, 0, sizeof *d);
    d->common.direction = 2; d->common.level = 1; d->common.algorithm = 8; d->common.forks = 3;
    d->common.sw_backup = 1; d->common.hw_buff_sz = 65536; d->common.strm_buff_sz = 65536;
    d->common.threshold = 1024; d->common.req = 32; d->common.wait = 8; d->format = 2;
    return QZ_OK;
}

static int setup(Session *s, const Deflate *d) {
    unsigned size = d->common.hw_buff_sz;
    if (d->format != 2 || size < 1024 || size > 524288 || (size & (size - 1))) return QZ_PARAMS;
    if (d->common.level < 1 || d->common.level > 12 || d->common.threshold < 128) return QZ_PARAMS;
    if (device < 0) return s->stat = QZ_NOSW_NO_HW;
    if (s->internal) return QZ_DUPLICATE;
    hw_buff_sz = size;
    level = d->common.level;
    threshold = d->common.threshold;
    s->stat = QZ_OK;
    s->internal = &device;
    return QZ_OK;
}

int qzGetDefaultsDeflate(Deflate *d) { return defaults(d); }
int qzSetupSessionDeflate(Session *s, Deflate *d) { return setup(s, d); }
int qzGetDefaultsDeflateExt(DeflateExt *d) { memset(d, 0, sizeof *d); return defaults(&d->deflate); }
int qzSetupSessionDeflateExt(Session *s, DeflateExt *d) { return setup(s, &d->deflate); }
int qzSetLogLevel(int wanted) { return wanted; }
int qzGetDeflateEndOfStream(Session *s, unsigned char *end) { (void)s; *end = (unsigned char)ended; return QZ_OK; }
int qzTeardownSession(Session *s) { memset(s, 0, sizeof *s); return QZ_OK; }
int qzClose(Session *s) { (void)s; return QZ_OK; }
int qzGetStatus(Session *s, void *status) { (void)s; (void)status; return QZ_OK; }
unsigned qzMaxCompressedLength(unsigned size, Session *s) { (void)s; return size + size / 8 + 544 * (size / hw_buff_sz + 1); }
void *qzMalloc(size_t size, int numa, int pinned) { (void)numa; (void)pinned; return malloc(size); }
void qzFree(void *memory) { free(memory); }

/* One call, and its answer. A device that is gone answers QZ_FAIL, here and from now on. */
static int ask(Session *s, uint32_t op, const unsigned char *src, unsigned *src_len, unsigned char *dst, unsigned *dst_len) {
    Call call = {op, (uint32_t)level, *src_len, hw_buff_sz, *dst_len, threshold};
    Answer answer;
    ssize_t got;
    if (!s || !s->internal || device < 0 || attached_pid != getpid()) return QZ_FAIL;
    if (*src_len > IN_BYTES) return QZ_PARAMS;
    memcpy(shared, src, *src_len);
    if (send(device, &call, sizeof call, MSG_NOSIGNAL) != sizeof call) return QZ_FAIL;
    do got = recv(device, &answer, sizeof answer, 0); while (got < 0 && errno == EINTR);
    if (got != sizeof answer) { close(device); device = -1; return QZ_FAIL; }
    if (answer.status == QZ_OK) {
        unsigned copied = answer.produced < *dst_len ? answer.produced : *dst_len;
        memcpy(dst, shared + IN_BYTES, copied < OUT_BYTES ? copied : OUT_BYTES);
    }
    s->total_in += answer.consumed;
    s->total_out += answer.produced;
    *src_len = answer.consumed;
    *dst_len = answer.produced;
    return answer.status;
}

int qzCompress(Session *s, const unsigned char *src, unsigned *src_len, unsigned char *dst, unsigned *dst_len, unsigned last) {
    return last == 1 ? ask(s, OP_COMPRESS, src, src_len, dst, dst_len) : QZ_PARAMS;
}

int qzDecompress(Session *s, const unsigned char *src, unsigned *src_len, unsigned char *dst, unsigned *dst_len) {
    int code = ask(s, OP_DECOMPRESS, src, src_len, dst, dst_len);
    ended = code == QZ_OK;
    return code;
}
