/*
 * Preloaded into a program, it writes down in order what the program does to the files below one
 * directory, and lets one of these calls fail.
 *
 *   SHIM_DIRECTORY  absolute; what is not below it is left alone
 *   SHIM_LOG        the record, appended to (see struct event)
 *   SHIM_FAULT      CALLS:NUMBER[+]:ERROR  "write:7:ENOSPC" fails the 7th write, "write:7+:ENOSPC" that
 *                   and every later one. CALLS: write, sync. ERROR: EIO, ENOSPC, SHORT (half is written)
 *
 *   SHIM_REFUSE     TEXT:FILE  a write with this text finds a full disk, for as long as FILE exists
 *   SHIM_HANG       CALLS:END:FILE  these, on files whose path ends so, wait for as long as FILE exists
 *
 * Only calls that go through the C library are seen. A sync is recorded when it has returned, with the
 * length that the record had when it began: what was written meanwhile is not covered by it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { OPEN = 1, CREATE, WRITE, TRUNCATE, RENAME, UNLINK, LINK, MKDIR, SYNC, RANGE_SYNC };

/* Followed by the path, the other path and the data. In the machine's byte order. */
struct event {
    uint32_t bytes; /* of all of it */
    uint32_t kind;
    int64_t result; /* 0, or minus errno */
    uint64_t file;  /* inode */
    uint64_t offset; /* WRITE: where; TRUNCATE: the new length; SYNC: the record's length as it began */
    uint32_t path, other; /* how many bytes these have */
};

struct file { dev_t device; ino_t inode; };

enum { FILES = 4096, LOG_DESCRIPTOR = 900 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int record = -1;
static char directory[PATH_MAX];
static size_t directory_length;
static uint64_t recorded;
static struct file files[FILES];
static size_t file_count;

static struct { int on_sync, on_write, error, is_short, goes_on; long number; } fault;
static long writes, syncs;
static char hang_calls[16], hang_end[64], hang_file[PATH_MAX];
static char refused_text[64], refuse_file[PATH_MAX];

static void die(const char *why) {
    fprintf(stderr, "shim: %s\n", why);
    _exit(97);
}

__attribute__((constructor)) static void begin(void) {
    const char *below = getenv("SHIM_DIRECTORY"), *log = getenv("SHIM_LOG"), *wish = getenv("SHIM_FAULT");
    if (!below || !log) return;
    directory_length = strlen(below);
    if (directory_length >= sizeof directory) die("SHIM_DIRECTORY is too long");
    memcpy(directory, below, directory_length + 1);
    int opened = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    const char *hang = getenv("SHIM_HANG");
    if (hang && sscanf(hang, "%15[^:]:%63[^:]:%4000s", hang_calls, hang_end, hang_file) != 3) die("SHIM_HANG is malformed");
    const char *refuse = getenv("SHIM_REFUSE");
    if (refuse && sscanf(refuse, "%63[^:]:%4000s", refused_text, refuse_file) != 2) die("SHIM_REFUSE is malformed");
    record = syscall(SYS_fcntl, opened, F_DUPFD_CLOEXEC, LOG_DESCRIPTOR);
    if (record < 0) die("SHIM_LOG cannot be opened");
    syscall(SYS_close, opened);
    if (wish) {
        char calls[16], more[2] = "", error[16];
        if (sscanf(wish, "%15[a-z]:%ld%1[+]:%15s", calls, &fault.number, more, error) != 4 &&
            sscanf(wish, "%15[a-z]:%ld:%15s", calls, &fault.number, error) != 3)
            die("SHIM_FAULT is malformed");
        fault.goes_on = more[0] == '+';
        fault.on_write = !strcmp(calls, "write");
        fault.on_sync = !strcmp(calls, "sync");
        fault.is_short = !strcmp(error, "SHORT");
        fault.error = !strcmp(error, "EIO") ? EIO : ENOSPC;
    }
}

#define REAL(name) ({ static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name); real; })

static int is_below(const char *path) {
    return record >= 0 && !strncmp(path, directory, directory_length) && path[directory_length] == '/';
}

/* The path that a call means, whole. */
static const char *whole(int at, const char *path, char *buffer) {
    if (!path || path[0] == '/' || record < 0) return path;
    char link[64], base[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    ssize_t length = at == AT_FDCWD ? (getcwd(base, sizeof base) ? (ssize_t)strlen(base) : -1)
                                    : readlink(link, base, sizeof base - 1);
    if (length < 0 || length + strlen(path) + 2 > PATH_MAX) return path;
    base[length] = 0;
    memcpy(buffer, base, length);
    buffer[length] = '/';
    strcpy(buffer + length + 1, path);
    return buffer;
}

static int is_known(int descriptor, struct stat *found) {
    if (record < 0 || fstat(descriptor, found)) return 0;
    for (size_t i = 0; i < file_count; i++)
        if (files[i].inode == found->st_ino && files[i].device == found->st_dev) return 1;
    return 0;
}

/* A file elsewhere can have the inode of one that was removed here. */
static void forget(int descriptor) {
    struct stat found;
    pthread_mutex_lock(&lock);
    if (is_known(descriptor, &found))
        for (size_t i = 0; i < file_count; i++)
            if (files[i].inode == found.st_ino) files[i] = files[--file_count];
    pthread_mutex_unlock(&lock);
}

/* With the lock held. */
static void note(enum kind kind, int64_t result, uint64_t file, uint64_t offset, const char *path,
                 const char *other, const void *data, size_t length) {
    size_t lengths[] = { path ? strlen(path) : 0, other ? strlen(other) : 0 };
    struct event event = { 0, kind, result, file, offset, lengths[0], lengths[1] };
    event.bytes = sizeof event + lengths[0] + lengths[1] + length;
    struct iovec parts[] = { { &event, sizeof event }, { (void *)path, lengths[0] },
                             { (void *)other, lengths[1] }, { (void *)data, length } };
    if (syscall(SYS_writev, record, parts, 4) != (long)event.bytes) die("SHIM_LOG cannot be written");
    recorded += event.bytes;
}

static int fails(long *count, int is_meant) {
    ++*count;
    return is_meant && (*count == fault.number || (fault.goes_on && *count > fault.number));
}

static int opens(int at, const char *given, int flags, mode_t mode) {
    char buffer[PATH_MAX];
    const char *path = whole(at, given, buffer);
    struct stat found;
    if (!is_below(path)) {
        int opened = REAL(openat)(at, given, flags, mode);
        if (opened >= 0 && record >= 0) forget(opened);
        return opened;
    }
    pthread_mutex_lock(&lock);
    int is_new = (flags & O_CREAT) && lstat(path, &found);
    int opened = -1;
    /* A full disk has no room for a name either. */
    if (is_new && fault.error == ENOSPC && fails(&writes, fault.on_write)) errno = ENOSPC;
    else opened = REAL(openat)(at, given, flags, mode);
    int error = errno;
    if (opened >= 0 && !is_known(opened, &found) && !fstat(opened, &found)) {
        if (file_count == FILES) die("too many files");
        files[file_count++] = (struct file){ found.st_dev, found.st_ino };
    }
    note(is_new ? CREATE : OPEN, opened < 0 ? -error : 0, opened < 0 ? 0 : found.st_ino, 0, path, NULL, NULL, 0);
    if (opened >= 0 && (flags & O_TRUNC) && !is_new)
        note(TRUNCATE, 0, found.st_ino, 0, NULL, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return opened;
}

#define MODE(flags) ({ mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; \
    va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } mode; })

int open(const char *path, int flags, ...) { return opens(AT_FDCWD, path, flags, MODE(flags)); }
int open64(const char *path, int flags, ...) { return opens(AT_FDCWD, path, flags, MODE(flags)); }
int openat(int at, const char *path, int flags, ...) { return opens(at, path, flags, MODE(flags)); }
int openat64(int at, const char *path, int flags, ...) { return opens(at, path, flags, MODE(flags)); }
int creat(const char *path, mode_t mode) { return opens(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return opens(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

static void wait_while_hanging(const char *calls, int descriptor) {
    char link[64], path[PATH_MAX];
    if (!hang_file[0] || strcmp(calls, hang_calls)) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    size_t end = strlen(hang_end);
    if (length < (ssize_t)end || memcmp(path + length - end, hang_end, end)) return;
    while (!access(hang_file, F_OK)) usleep(1000);
}

static int is_refused(const void *data, size_t length) {
    return refuse_file[0] && memmem(data, length, refused_text, strlen(refused_text)) && !access(refuse_file, F_OK);
}

/* At `offset`, or where the descriptor stands if that is negative. */
static ssize_t writes_to(int descriptor, const void *data, size_t length, off_t offset) {
    struct stat found;
    wait_while_hanging("write", descriptor);
    if (record < 0) return offset < 0 ? REAL(write)(descriptor, data, length) : REAL(pwrite)(descriptor, data, length, offset);
    pthread_mutex_lock(&lock);
    if (!is_known(descriptor, &found)) {
        pthread_mutex_unlock(&lock);
        return offset < 0 ? REAL(write)(descriptor, data, length) : REAL(pwrite)(descriptor, data, length, offset);
    }
    int appends = fcntl(descriptor, F_GETFL) & O_APPEND;
    off_t where = offset >= 0 ? offset : appends ? found.st_size : lseek(descriptor, 0, SEEK_CUR);
    ssize_t written = -1;
    int is_failing = fails(&writes, fault.on_write), refused = is_refused(data, length);
    if (is_failing && fault.is_short && length > 1) length /= 2;
    else if (is_failing || refused) errno = refused ? ENOSPC : fault.error;
    if (refused) is_failing = 1;
    if (!is_failing || (fault.is_short && length > 0))
        written = offset < 0 ? REAL(write)(descriptor, data, length) : REAL(pwrite)(descriptor, data, length, offset);
    int error = errno;
    note(WRITE, written < 0 ? -error : 0, found.st_ino, where, NULL, NULL, data, written < 0 ? 0 : written);
    pthread_mutex_unlock(&lock);
    errno = error;
    return written;
}

ssize_t write(int descriptor, const void *data, size_t length) { return writes_to(descriptor, data, length, -1); }
ssize_t pwrite(int descriptor, const void *data, size_t length, off_t at) { return writes_to(descriptor, data, length, at); }
ssize_t pwrite64(int descriptor, const void *data, size_t length, off64_t at) { return writes_to(descriptor, data, length, at); }

ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    struct stat found;
    pthread_mutex_lock(&lock);
    int known = is_known(descriptor, &found);
    pthread_mutex_unlock(&lock);
    if (!known) return REAL(writev)(descriptor, parts, count);
    ssize_t all = 0;
    for (int i = 0; i < count; i++) {
        ssize_t written = writes_to(descriptor, parts[i].iov_base, parts[i].iov_len, -1);
        if (written < 0) return all ? all : written;
        all += written;
        if ((size_t)written < parts[i].iov_len) break;
    }
    return all;
}

static int syncs_to(int descriptor, enum kind kind, int (*sync)(int), off64_t from, off64_t length, unsigned flags) {
    struct stat found;
    wait_while_hanging("sync", descriptor);
    pthread_mutex_lock(&lock);
    int known = is_known(descriptor, &found);
    uint64_t began = recorded;
    int is_failing = known && fails(&syncs, fault.on_sync);
    pthread_mutex_unlock(&lock);
    int result = -1;
    if (is_failing) errno = fault.error;
    else result = sync ? sync(descriptor) : REAL(sync_file_range)(descriptor, from, length, flags);
    if (!known) return result;
    int error = errno;
    pthread_mutex_lock(&lock);
    note(kind, result < 0 ? -error : 0, found.st_ino, began, NULL, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int fsync(int descriptor) { return syncs_to(descriptor, SYNC, REAL(fsync), 0, 0, 0); }
int fdatasync(int descriptor) { return syncs_to(descriptor, SYNC, REAL(fdatasync), 0, 0, 0); }
int sync_file_range(int descriptor, off64_t from, off64_t length, unsigned flags) {
    return syncs_to(descriptor, RANGE_SYNC, NULL, from, length, flags);
}

int ftruncate(int descriptor, off_t length) {
    struct stat found;
    pthread_mutex_lock(&lock);
    int result = REAL(ftruncate)(descriptor, length), error = errno;
    if (is_known(descriptor, &found)) note(TRUNCATE, result ? -error : 0, found.st_ino, length, NULL, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int ftruncate64(int descriptor, off64_t length) { return ftruncate(descriptor, length); }

/* A change of names: `call` does it. */
#define NAMES(kind, at, path, other_at, other, call) ({ \
    char first[PATH_MAX], second[PATH_MAX]; \
    const char *one = whole(at, path, first), *two = whole(other_at, other, second); \
    int seen = is_below(one) || (two && is_below(two)); \
    if (seen) pthread_mutex_lock(&lock); \
    int result = call, error = errno; \
    if (seen) { note(kind, result ? -error : 0, 0, 0, one, two, NULL, 0); pthread_mutex_unlock(&lock); } \
    errno = error; result; })

int rename(const char *from, const char *to) { return NAMES(RENAME, AT_FDCWD, from, AT_FDCWD, to, REAL(rename)(from, to)); }
int renameat(int at, const char *from, int to_at, const char *to) { return NAMES(RENAME, at, from, to_at, to, REAL(renameat)(at, from, to_at, to)); }
int link(const char *from, const char *to) { return NAMES(LINK, AT_FDCWD, from, AT_FDCWD, to, REAL(link)(from, to)); }
int unlink(const char *path) { return NAMES(UNLINK, AT_FDCWD, path, 0, (char *)NULL, REAL(unlink)(path)); }
int unlinkat(int at, const char *path, int flags) { return NAMES(UNLINK, at, path, 0, (char *)NULL, REAL(unlinkat)(at, path, flags)); }
int mkdir(const char *path, mode_t mode) { return NAMES(MKDIR, AT_FDCWD, path, 0, (char *)NULL, REAL(mkdir)(path, mode)); }
int mkdirat(int at, const char *path, mode_t mode) { return NAMES(MKDIR, at, path, 0, (char *)NULL, REAL(mkdirat)(at, path, mode)); }
