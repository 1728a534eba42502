// What a test takes from a program that loads this: the hours of the clock of the wall, and writing to files.
// FAULTS names a file of two numbers: seconds that the clock is ahead, and the error of every write (0: none).

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static volatile struct { int64_t seconds, error; } *faults;

__attribute__((constructor)) static void start(void) {
    int file = open(getenv("FAULTS"), O_RDONLY | O_CLOEXEC);
    faults = mmap(NULL, sizeof *faults, PROT_READ, MAP_SHARED, file, 0);
    if (file < 0 || faults == MAP_FAILED) abort();
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (!failed && clock == CLOCK_REALTIME) now->tv_sec += faults->seconds;
    return failed;
}

static int fails(int file) {
    struct stat about;
    if (!faults->error || fstat(file, &about) || !S_ISREG(about.st_mode)) return 0;
    errno = (int)faults->error;
    return 1;
}

ssize_t write(int file, const void *bytes, size_t length) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    return fails(file) ? -1 : real(file, bytes, length);
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t at) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real) real = (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    return fails(file) ? -1 : real(file, bytes, length, at);
}

ssize_t pwrite(int file, const void *bytes, size_t length, off_t at) { return pwrite64(file, bytes, length, at); }
