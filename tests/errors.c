/* What a disk or a system answers when it fails, for tests/errors.py: preloaded into a command and all its processes.
 *
 * Calls that concern files below ROOT are counted by kind, over all processes, in a small shared file; the Nth of one
 * kind fails with an errno, once. Kind CUT is a power cut at the Nth call that changes anything: everything ends there
 * and then. So that it can be played, what is flushed is copied to SHADOW as it is flushed: a file's content by its
 * inode, a folder's entries by its own.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { OPEN, READ, WRITE, FSYNC, RENAME, LINK, FLOCK, FORK, ALLOCATE, CUT, KINDS, NONE };

struct state {
    int64_t kind, nth, error;      /* what to do; nth 0: only count */
    _Atomic int64_t delivered;     /* whether it was done */
    _Atomic int64_t counts[KINDS]; /* calls so far, by kind */
};

static struct state *state;
static const char *root, *shadow;
static size_t root_length;

#define REAL(name)                                                                             \
    ({                                                                                         \
        static __typeof__(&name) real;                                                         \
        if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name);                          \
        real;                                                                                  \
    })

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("AFNO_ERRORS_STATE");
    root = getenv("AFNO_ERRORS_ROOT");
    shadow = getenv("AFNO_ERRORS_SHADOW");
    if (!file || !root || !shadow) return;
    root_length = strlen(root);
    int fd = REAL(open64)(file, O_RDWR | O_CLOEXEC);
    void *at = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at != MAP_FAILED) state = at;
    close(fd);
}

/* Whether a path or a descriptor concerns ROOT. */
static int below(const char *path) {
    return !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

static int fd_below(int fd) {
    char link[64], path[PATH_MAX];
    if (!state) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return below(path);
}

static int path_below(int folder, const char *path) {
    char here[PATH_MAX];
    if (!state || !path) return 0;
    if (path[0] == '/') return below(path);
    return folder == AT_FDCWD ? getcwd(here, sizeof here) && below(here) : fd_below(folder);
}

/* Count a call; whether it is the one that fails, with errno set. The power fails for all processes. */
static int fails(enum kind kind) {
    if (!state) return 0;
    if (state->kind == CUT && atomic_load(&state->delivered)) kill(getpid(), SIGKILL);
    int64_t passage = atomic_fetch_add(&state->counts[kind], 1) + 1;
    if (state->kind != kind || passage != state->nth) return 0;
    atomic_store(&state->delivered, 1);
    if (kind == CUT) kill(getpid(), SIGKILL);
    errno = (int)state->error;
    return 1;
}

static int changes(enum kind kind) {
    fails(CUT);
    return kind != NONE && fails(kind);
}

/* Copy to SHADOW what was flushed; of a `new` file or folder, whose inode may be used again: nothing yet. */
static void remember(int fd, int new) {
    struct stat now;
    char to[4096], part[4200], link[64], block[1 << 14];
    if (state->kind != CUT || fstat(fd, &now)) return;
    int is_folder = S_ISDIR(now.st_mode);
    snprintf(to, sizeof to, "%.4000s/%llu%s", shadow, (unsigned long long)now.st_ino, is_folder ? ".folder" : "");
    snprintf(part, sizeof part, "%s.%d", to, getpid());
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    FILE *copy = fopen(part, "wb");
    if (!copy) return;
    if (is_folder && !new) {
        DIR *folder = opendir(link);
        for (struct dirent *entry; folder && (entry = readdir(folder));)
            if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
                fprintf(copy, "%d %llu %s\n", entry->d_type == DT_DIR, (unsigned long long)entry->d_ino, entry->d_name);
        if (folder) closedir(folder);
    } else if (!new) {
        FILE *from = fopen(link, "rb");
        for (size_t n; from && (n = fread(block, 1, sizeof block, from));) fwrite(block, 1, n, copy);
        if (from) fclose(from);
    }
    fclose(copy);
    REAL(rename)(part, to);
}

static int opened(int fd, int flags, int concerns) {
    struct stat now;
    if (fd >= 0 && concerns && flags & O_CREAT && !fstat(fd, &now) && !now.st_size) remember(fd, 1);
    return fd;
}

#define OPENING(name, folder, path, flags, ...)                                                \
    int mode = 0, concerns = path_below(folder, path);                                         \
    if (flags & (O_CREAT | __O_TMPFILE)) {                                                     \
        va_list rest;                                                                          \
        va_start(rest, flags);                                                                 \
        mode = va_arg(rest, int);                                                              \
        va_end(rest);                                                                          \
    }                                                                                          \
    if (concerns && (flags & (O_CREAT | O_TRUNC) ? changes(OPEN) : fails(OPEN))) return -1;    \
    return opened(REAL(name)(__VA_ARGS__, flags, mode), flags, concerns)

int open(const char *path, int flags, ...) { OPENING(open, AT_FDCWD, path, flags, path); }
int open64(const char *path, int flags, ...) { OPENING(open64, AT_FDCWD, path, flags, path); }
int openat(int folder, const char *path, int flags, ...) { OPENING(openat, folder, path, flags, folder, path); }
int openat64(int folder, const char *path, int flags, ...) { OPENING(openat64, folder, path, flags, folder, path); }

#define FAILING(name, failed, ...)                                                             \
    if (failed) return -1;                                                                     \
    return REAL(name)(__VA_ARGS__)

ssize_t read(int fd, void *to, size_t n) { FAILING(read, fd_below(fd) && fails(READ), fd, to, n); }
ssize_t pread(int fd, void *to, size_t n, off_t at) { FAILING(pread, fd_below(fd) && fails(READ), fd, to, n, at); }
ssize_t pread64(int fd, void *to, size_t n, off_t at) { FAILING(pread64, fd_below(fd) && fails(READ), fd, to, n, at); }
ssize_t write(int fd, const void *from, size_t n) { FAILING(write, fd_below(fd) && changes(WRITE), fd, from, n); }
ssize_t pwrite64(int fd, const void *from, size_t n, off_t at) {
    FAILING(pwrite64, fd_below(fd) && changes(WRITE), fd, from, n, at);
}
ssize_t writev(int fd, const struct iovec *from, int n) { FAILING(writev, fd_below(fd) && changes(WRITE), fd, from, n); }
int rename(const char *old, const char *new) {
    FAILING(rename, path_below(AT_FDCWD, new) && changes(RENAME), old, new);
}
int link(const char *old, const char *new) { FAILING(link, path_below(AT_FDCWD, new) && changes(LINK), old, new); }
int linkat(int a, const char *old, int b, const char *new, int flags) {
    FAILING(linkat, path_below(b, new) && changes(LINK), a, old, b, new, flags);
}
int unlink(const char *path) { FAILING(unlink, path_below(AT_FDCWD, path) && changes(NONE), path); }
int unlinkat(int folder, const char *path, int flags) {
    FAILING(unlinkat, path_below(folder, path) && changes(NONE), folder, path, flags);
}
int mkdir(const char *path, mode_t mode) {
    int concerns = path_below(AT_FDCWD, path);
    if (concerns) changes(NONE);
    int result = REAL(mkdir)(path, mode), fd = concerns && !result ? REAL(open64)(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        remember(fd, 1);
        close(fd);
    }
    return result;
}
int rmdir(const char *path) { FAILING(rmdir, path_below(AT_FDCWD, path) && changes(NONE), path); }
int flock(int fd, int how) { FAILING(flock, fd_below(fd) && how != LOCK_UN && fails(FLOCK), fd, how); }

int fsync(int fd) {
    int concerns = fd_below(fd);
    if (concerns && changes(FSYNC)) return -1;
    int result = REAL(fsync)(fd);
    if (concerns && !result) remember(fd, 0);
    return result;
}

pid_t fork(void) { FAILING(fork, fails(FORK), ); }
pid_t vfork(void) { return fork(); } /* which a function cannot pass on */

/* Of memory: what torch takes for tensors. */
int posix_memalign(void **to, size_t alignment, size_t n) {
    return n >= 1 << 12 && fails(ALLOCATE) ? ENOMEM : REAL(posix_memalign)(to, alignment, n);
}
