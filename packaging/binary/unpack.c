/* Unpacks the appended folder, so that it is there whole or not at all, and clears away what is not wanted any more. */
#define _GNU_SOURCE
#include "launcher.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>

#define KEPT_DAYS 30 /* a version that was not started for so long, and does not run, goes with the next unpacking */

struct source {
    int file;
    uint64_t left; /* compressed bytes still to be read */
    ZSTD_DStream *stream;
    ZSTD_inBuffer in;
    int whole; /* the frame has ended, and its checksum was right */
    unsigned char buffer[1 << 17];
};

_Noreturn void damaged(void) { fail(UNUSABLE, COPY_AGAIN, "this file is damaged: it cannot be unpacked"); }

static void read_unpacked(struct source *source, void *to, size_t size) {
    ZSTD_outBuffer out = {to, size, 0};
    while (out.pos < out.size) {
        if (source->in.pos == source->in.size && source->left) {
            size_t want = source->left < sizeof source->buffer ? source->left : sizeof source->buffer;
            ssize_t got = read(source->file, source->buffer, want);
            if (got <= 0) damaged();
            source->in = (ZSTD_inBuffer){source->buffer, (size_t)got, 0};
            source->left -= (uint64_t)got;
        }
        size_t before = out.pos, result = ZSTD_decompressStream(source->stream, &out, &source->in);
        if (ZSTD_isError(result)) damaged();
        source->whole = !result;
        if (out.pos == before && source->in.pos == source->in.size && !source->left) damaged();
    }
}

static _Noreturn void unwritable(const char *what) {
    fail(UNUSABLE, errno == ENOSPC || errno == EDQUOT ? "make room there, or name another folder: PROVISIONING_CACHE=/path"
                                                      : ELSEWHERE,
         "cannot unpack %s: %s", what, strerror(errno));
}

static void write_file(struct source *source, int folder, const char *name, uint64_t size, mode_t mode) {
    static unsigned char data[1 << 17];
    int file = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (file < 0) unwritable(name);
    for (uint64_t left = size; left;) {
        size_t part = left < sizeof data ? left : sizeof data;
        read_unpacked(source, data, part);
        for (size_t done = 0; done < part;) {
            ssize_t written = write(file, data + done, part - done);
            if (written < 0) unwritable(name);
            done += (size_t)written;
        }
        left -= part;
    }
    if (fchmod(file, mode) || close(file)) unwritable(name);
    unsigned char padding[512];
    if (size % 512) read_unpacked(source, padding, 512 - size % 512);
}

static int safe_name(const char *name) {
    if (!*name || *name == '/') return 0;
    for (const char *part = name; part; part = strchr(part, '/') ? strchr(part, '/') + 1 : NULL)
        if (!strncmp(part, "..", 2) && (part[2] == '/' || !part[2])) return 0;
    return 1;
}

/* Unpacks a POSIX ustar archive of folders, files and links; its two last blocks are zeros. */
static void unpack(struct source *source, int folder) {
    for (;;) {
        char header[513] = {0}, name[400], target[101] = {0};
        read_unpacked(source, header, 512);
        if (!*header) {
            read_unpacked(source, header, 512);
            if (*header) damaged();
            break;
        }
        char prefix[156] = {0}, base[101] = {0}, number[13] = {0};
        memcpy(prefix, header + 345, 155);
        memcpy(base, header, 100);
        memcpy(target, header + 157, 100);
        snprintf(name, sizeof name, "%s%s%s", prefix, *prefix ? "/" : "", base);
        memcpy(number, header + 124, 12);
        uint64_t size = strtoull(number, NULL, 8);
        mode_t mode = (mode_t)strtoul(header + 100, NULL, 8) & 0755;
        if (!safe_name(name)) damaged();
        size_t length = strlen(name);
        if (name[length - 1] == '/') name[length - 1] = '\0';
        switch (header[156]) {
        case '5': if (mkdirat(folder, name, 0755)) unwritable(name); break;
        case '2': if (symlinkat(target, folder, name)) unwritable(name); break;
        case '0': write_file(source, folder, name, size, mode); break;
        default: damaged();
        }
    }
    /* tar fills up its last record with zeros; the frame's checksum comes after them. */
    unsigned char rest[512];
    while (!source->whole) read_unpacked(source, rest, sizeof rest);
}

static void remove_tree(int parent, const char *name) {
    int folder = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *entries = folder < 0 ? NULL : fdopendir(folder);
    for (struct dirent *entry; entries && (entry = readdir(entries));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") && unlinkat(folder, entry->d_name, 0))
            remove_tree(folder, entry->d_name);
    if (entries) closedir(entries);
    unlinkat(parent, name, AT_REMOVEDIR);
}

/* Whether a process that can be seen executes a file below the folder. */
static int runs(const char *folder) {
    DIR *processes = opendir("/proc");
    if (!processes) return 1;
    int found = 0;
    size_t length = strlen(folder);
    for (struct dirent *entry; !found && (entry = readdir(processes));) {
        char link[300], executable[PATH_MAX];
        snprintf(link, sizeof link, "/proc/%s/exe", entry->d_name);
        ssize_t size = readlink(link, executable, sizeof executable - 1);
        found = size > (ssize_t)length && !memcmp(executable, folder, length) && executable[length] == '/';
    }
    closedir(processes);
    return found;
}

/* Removes what a killed unpacking left, and versions that have not been used for long. Called under the lock. */
static void clean_up(int place, const char *path, const char *ours) {
    DIR *entries = fdopendir(openat(place, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    for (struct dirent *entry; entries && (entry = readdir(entries));) {
        const char *name = entry->d_name;
        if (!strncmp(name, ".partial-", 9)) remove_tree(place, name);
        if (*name == '.' || !strcmp(name, ours)) continue;
        struct stat found;
        char folder[PATH_MAX], gone[NAME_MAX + 16];
        join(folder, "%s/%s", path, name);
        int held = openat(place, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (held < 0) continue;
        snprintf(gone, sizeof gone, ".partial-%s", name);
        if (!fstat(held, &found) && found.st_mtime < time(NULL) - KEPT_DAYS * DAY &&
            !flock(held, LOCK_EX | LOCK_NB) && !runs(folder) && !renameat(place, name, place, gone))
            remove_tree(place, gone);
        close(held);
    }
    if (entries) closedir(entries);
}

void unpack_once(int file, const struct trailer *trailer, off_t start, const char *place, const char *folder) {
    char name[PATH_MAX];
    join(name, "%s/.lock", place);
    int lock = open(name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    int parent = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lock < 0 || parent < 0) unwritable(place);
    while (flock(lock, LOCK_EX))
        if (errno != EINTR) unwritable(name);
    if (!access(folder, F_OK)) { /* someone else was first */
        close(lock);
        close(parent);
        return;
    }
    clean_up(parent, place, trailer->name);
    join(name, ".partial-%s", trailer->name);
    if (mkdirat(parent, name, 0700)) unwritable(place);
    int into = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct source *source = calloc(1, sizeof *source);
    if (into < 0 || !source || !(source->stream = ZSTD_createDStream())) unwritable(place);
    source->file = file;
    source->left = trailer->size;
    if (lseek(file, start, SEEK_SET) < 0) damaged();
    unpack(source, into);
    if (syncfs(into)) unwritable(place); /* one flush for all files: after a power cut the folder is whole or not there */
    if (renameat(parent, name, parent, trailer->name) || fsync(parent)) unwritable(place);
    ZSTD_freeDStream(source->stream);
    free(source);
    close(into);
    close(parent);
    close(lock);
}
