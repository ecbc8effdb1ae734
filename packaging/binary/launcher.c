/* The launcher: the first process of the one-file program, and of every program in the folder that it unpacks.
 *
 * As the one file, it has a compressed folder appended. It unpacks that once, into a private place named by its digest,
 * and becomes the program in there. As a file in the folder's bin/, it becomes the folder's Python, under the name that
 * it was called by. Both by exec, so that the process that was started is the one that runs.
 *
 * Static, and linked with musl: the host's libraries, loader and LD_* variables have no part in it. Python is started
 * through the loader that the folder brings, with the libraries that the folder brings.
 *
 * Nobody but root and the caller may be able to change what is executed: every folder on the way to it is checked, at
 * each start. Whoever unpacks holds an exclusive lock, writes under another name, syncs, and renames. Whoever starts
 * holds a shared lock on the folder up to the very exec; old folders go only under the exclusive one, when no process
 * is seen to run from them.
 */
#define _GNU_SOURCE
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define EXTRA_ARGUMENTS 16

static const char MAGIC[8] = "PROVFILE";

static const char ORCHESTRATOR[] = "provisioning-orchestrator";

static const char *base_name(const char *path) {
    const char *slash = strrchr(path ? path : "", '/');
    return slash ? slash + 1 : path ? path : "";
}

_Noreturn void fail(int code, const char *hint, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("error: ", stderr);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\nhint: %s\n", hint);
    exit(code);
}

const char ELSEWHERE[] = "name a folder of your own on a disk that allows execution: PROVISIONING_CACHE=/path";
const char COPY_AGAIN[] = "copy the file again, and compare it with SHA256SUMS";

void join(char *to, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(to, PATH_MAX, format, arguments);
    va_end(arguments);
    if (length < 0 || length >= PATH_MAX) fail(UNUSABLE, ELSEWHERE, "a path is too long: %.60s...", to);
}

/* --- becoming the program -------------------------------------------------------------------------------------- */

/* Variables with which the caller's own loader and C library are told what to load: ours are others. */
static void forget_foreign_libraries(char **environment) {
    static const char *const dropped[] = {"LD_", "GLIBC_TUNABLES=", "GCONV_PATH=", "LOCPATH=", "NLSPATH=", NULL};
    char **kept = environment;
    for (char **variable = environment; *variable; variable++) {
        int drop = 0;
        for (const char *const *prefix = dropped; *prefix; prefix++)
            drop |= !strncmp(*variable, *prefix, strlen(*prefix));
        if (!drop) *kept++ = *variable;
    }
    *kept = NULL;
}

/* Replaces this process by the folder's Python. `called` decides what it runs: the Python itself, or the program. */
static _Noreturn void become(const char *folder, const char *called, int argc, char **argv, char **environment) {
    static char loader[PATH_MAX], executable[PATH_MAX], libraries[PATH_MAX], python[PATH_MAX];
    join(loader, "%s/libexec/provisioning", folder);
    join(executable, "%s/bin/python", folder);
    join(libraries, "%s/lib", folder);
    join(python, "%s/libexec/python", folder);
    char **command = calloc((size_t)argc + EXTRA_ARGUMENTS, sizeof *command);
    if (!command) fail(UNUSABLE, "free some", "there is no memory");
    char **next = command;
    *next++ = loader;
    *next++ = "--argv0";
    *next++ = executable;
    *next++ = "--inhibit-cache";
    *next++ = "--library-path";
    *next++ = libraries;
    *next++ = python;
    /* Isolated from the caller's PYTHON* variables and folders, without site, writing no bytecode, text is UTF-8. */
    *next++ = "-ISB";
    *next++ = "-Xutf8";
    if (strcmp(called, "python")) {
        *next++ = "-c";
        *next++ = strcmp(called, ORCHESTRATOR)
                      ? "from provisioning.__main__ import main; main()"
                      : "from provisioning.__main__ import orchestrator; orchestrator()";
    }
    for (int i = 1; i < argc; i++) *next++ = argv[i];
    forget_foreign_libraries(environment);
    execve(loader, command, environment);
    if (errno == ENOENT || errno == ENOTDIR)
        fail(UNUSABLE, COPY_AGAIN, "%s is not there: this installation, or this file, is not whole", loader);
    fail(UNUSABLE, ELSEWHERE, "cannot execute %s: %s", loader, strerror(errno));
}

/* A shared lock until exec closes it: by then /proc says that a program of this folder runs. -1 if it has gone. */
static int hold(const char *folder) {
    struct stat held, named;
    int descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (descriptor < 0) return -1;
    if (flock(descriptor, LOCK_SH | LOCK_NB) || fstat(descriptor, &held) || lstat(folder, &named) ||
        held.st_ino != named.st_ino || held.st_dev != named.st_dev) {
        close(descriptor);
        return -1;
    }
    return descriptor;
}

/* --- where it is unpacked -------------------------------------------------------------------------------------- */

/* Refuses a folder that others than root and the caller could change; root's sticky folders pass. */
static void refuse_unless_ours(const char *path) {
    struct stat found;
    if (lstat(path, &found)) fail(UNUSABLE, ELSEWHERE, "cannot look at %s: %s", path, strerror(errno));
    if (found.st_uid != 0 && found.st_uid != geteuid())
        fail(REFUSED, ELSEWHERE, "%s belongs to uid %u: it could change what is run", path, (unsigned)found.st_uid);
    int sticky = S_ISDIR(found.st_mode) && (found.st_mode & S_ISVTX) && found.st_uid == 0;
    if ((found.st_mode & (S_IWGRP | S_IWOTH)) && !S_ISLNK(found.st_mode) && !sticky)
        fail(REFUSED, ELSEWHERE, "others may write %s: they could change what is run", path);
}

/* The same for each folder and link from / to the path. */
static void refuse_unless_all_ours(const char *path) {
    char part[PATH_MAX];
    refuse_unless_ours("/");
    for (const char *slash = strchr(path + 1, '/');; slash = strchr(slash + 1, '/')) {
        size_t length = slash ? (size_t)(slash - path) : strlen(path);
        memcpy(part, path, length);
        part[length] = '\0';
        refuse_unless_ours(part);
        if (!slash) return;
    }
}

static int make_folders(const char *path) {
    char part[PATH_MAX];
    join(part, "%s", path);
    for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(part, 0700) && errno != EEXIST && access(part, F_OK)) return -1;
        *slash = '/';
    }
    return mkdir(part, 0700) && errno != EEXIST ? -1 : 0;
}

/* Whether programs can be kept there. The reason is in errno otherwise. */
static int usable(const char *folder) {
    struct statvfs found;
    if (make_folders(folder) || statvfs(folder, &found)) return 0;
    if (found.f_flag & ST_NOEXEC) return errno = EACCES, 0;
    char probe[PATH_MAX];
    join(probe, "%s/.lock", folder);
    int lock = open(probe, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (lock >= 0) return close(lock), 1;
    return errno == EROFS; /* what is unpacked already can be started all the same */
}

static const char *own_home(void) {
    const char *home = getenv("HOME");
    if (home && *home == '/') return home;
    struct passwd *user = getpwuid(geteuid()); /* musl's reads /etc/passwd, and no library of the host */
    return user && user->pw_dir && *user->pw_dir == '/' ? user->pw_dir : NULL;
}

/* The folder that holds the unpacked versions. Never one below /tmp: what cleans up there would leave half a program. */
static void choose_place(char *place) {
    char wanted[3][PATH_MAX];
    int count = 0;
    const char *chosen = getenv("PROVISIONING_CACHE"), *cache = getenv("XDG_CACHE_HOME"), *home = own_home();
    const char *run = getenv("XDG_RUNTIME_DIR");
    if (chosen && *chosen) {
        if (*chosen != '/') fail(2, "write its whole path", "PROVISIONING_CACHE=%s is not an absolute path", chosen);
        join(wanted[count++], "%s/unpacked", chosen);
    } else if (!geteuid()) {
        join(wanted[count++], "/var/cache/provisioning/unpacked");
    } else {
        if (cache && *cache == '/') join(wanted[count++], "%s/provisioning/unpacked", cache);
        else if (home) join(wanted[count++], "%s/.cache/provisioning/unpacked", home);
        if (run && *run == '/') join(wanted[count++], "%s/provisioning/unpacked", run);
    }
    for (int i = 0; i < count; i++) {
        if (!usable(wanted[i])) continue;
        char real[PATH_MAX];
        if (!realpath(wanted[i], real)) continue;
        refuse_unless_all_ours(wanted[i]);
        if (strcmp(real, wanted[i])) refuse_unless_all_ours(real);
        strcpy(place, real);
        return;
    }
    if (!count) fail(UNUSABLE, ELSEWHERE, "this user has no home: there is no place to unpack the program into");
    fail(UNUSABLE, ELSEWHERE, "cannot unpack the program into %s: %s", wanted[0],
         errno == EACCES ? "not allowed, or mounted noexec" : strerror(errno));
}

static _Noreturn void run_unpacked(int file, const struct trailer *trailer, off_t start, int argc, char **argv, char **env) {
    const char *called = !strcmp(base_name(*argv), ORCHESTRATOR) ? ORCHESTRATOR : "provisioning";
    char place[PATH_MAX], folder[PATH_MAX];
    choose_place(place);
    join(folder, "%s/%s", place, trailer->name);
    for (int tries = 0; tries < 3; tries++) {
        struct stat found;
        int held = hold(folder);
        if (held < 0) {
            unpack_once(file, trailer, start, place, folder);
            continue;
        }
        refuse_unless_ours(folder);
        if (!fstat(held, &found) && found.st_mtime < time(NULL) - DAY) futimens(held, NULL); /* is in use: see clean_up */
        become(folder, called, argc, argv, env);
    }
    fail(UNUSABLE, "try again", "%s was removed while it was being started", folder);
}

int main(int argc, char **argv, char **environment) {
    char self[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length > 0) self[length] = '\0';
    else if (!realpath((const char *)getauxval(AT_EXECFN), self)) /* no /proc: what was executed, as it was named */
        fail(UNUSABLE, "mount /proc", "cannot find out which file this is: %s", strerror(errno));
    int file = open(length > 0 ? "/proc/self/exe" : self, O_RDONLY | O_CLOEXEC);
    if (file < 0) fail(UNUSABLE, "give this user the right to read it", "cannot read %s: %s", self, strerror(errno));
    struct trailer trailer;
    off_t end = lseek(file, -(off_t)sizeof trailer, SEEK_END);
    if (end > 0 && read(file, &trailer, sizeof trailer) == sizeof trailer && !memcmp(trailer.magic, MAGIC, sizeof MAGIC)) {
        trailer.name[sizeof trailer.name - 1] = '\0';
        if (trailer.size > (uint64_t)end || strchr(trailer.name, '/') || *trailer.name == '.' || !*trailer.name) damaged();
        run_unpacked(file, &trailer, end - (off_t)trailer.size, argc, argv, environment);
    }
    close(file);
    char *bin = strrchr(self, '/');
    *bin = '\0';
    char *folder_end = strrchr(self, '/');
    if (!folder_end || strcmp(folder_end, "/bin")) damaged();
    *folder_end = '\0';
    hold(self); /* an upgrade must not take the folder away while it is being started */
    become(self, base_name(*argv), argc, argv, environment);
}
