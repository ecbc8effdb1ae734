/* The yardstick: starts one entry again and again and keeps no state. As fast as processes can be started here.

   limit one NU ENTRY REQUEST                     becomes one attempt's process: for xargs and make
   limit loop NU ENTRY REQUEST SLOTS < GRAPH      the loop; GRAPH: a line per task, the numbers of those it waits for

   The process has what an attempt's has: /dev/null as input, the request in a memory file on descriptor 3, an empty one
   for the answer on 4, a group of its own, an environment of a few names. Its output goes to /dev/null. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static char *environment[] = {"PATH=/nonexistent", "HOME=/nonexistent", "LANG=C.UTF-8", "NO_COLOR=1", NULL};

struct task {
    int waits, dependents, room, *dependent;
    pid_t pid;
};

static void die(const char *what) {
    perror(what);
    exit(2);
}

/* The two memory files, out of the way of 3 and 4. */
static void open_files(const char *request, int files[2]) {
    for (int i = 0; i < 2; i++) {
        int made = memfd_create(i ? "reply" : "request", MFD_CLOEXEC);
        if (made < 0 || (files[i] = fcntl(made, F_DUPFD_CLOEXEC, 16)) < 0) die("memfd_create");
        close(made);
    }
    if (write(files[0], request, strlen(request)) < 0 || lseek(files[0], 0, SEEK_SET) < 0) die("write");
}

static pid_t start(char **argv, const char *request, int nothing) {
    int files[2];
    pid_t pid;
    posix_spawn_file_actions_t moves;
    posix_spawnattr_t attributes;
    open_files(request, files);
    posix_spawn_file_actions_init(&moves);
    for (int i = 0; i < 3; i++) posix_spawn_file_actions_adddup2(&moves, nothing, i);
    for (int i = 0; i < 2; i++) posix_spawn_file_actions_adddup2(&moves, files[i], 3 + i);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    if (posix_spawn(&pid, argv[0], &moves, &attributes, argv, environment)) die(argv[0]);
    posix_spawn_file_actions_destroy(&moves);
    posix_spawnattr_destroy(&attributes);
    close(files[0]);
    close(files[1]);
    return pid;
}

static int loop(char **argv, const char *request, int slots) {
    int count = 0, room = 0, done = 0, running = 0, first = 0, last = 0, nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    struct task *tasks = NULL;
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, stdin) >= 0) {
        if (count == room) tasks = realloc(tasks, (room = room * 2 + 64) * sizeof *tasks);
        tasks[count] = (struct task){0};
        for (char *word = strtok(line, " \n"); word; word = strtok(NULL, " \n")) {
            struct task *before = &tasks[atoi(word)];
            if (before->dependents == before->room)
                before->dependent = realloc(before->dependent, (before->room = before->room * 2 + 4) * sizeof(int));
            before->dependent[before->dependents++] = count;
            tasks[count].waits++;
        }
        count++;
    }
    int *ready = malloc((count + 1) * sizeof *ready), *slot = malloc(slots * sizeof *slot);
    for (int i = 0; i < count; i++)
        if (!tasks[i].waits) ready[last++] = i;
    for (int i = 0; i < slots; i++) slot[i] = -1;
    while (done < count) {
        for (int i = 0; i < slots && first < last; i++)
            if (slot[i] < 0) {
                slot[i] = ready[first++];
                tasks[slot[i]].pid = start(argv, request, nothing);
                running++;
            }
        int status;
        pid_t pid = running ? wait(&status) : -1;
        if (pid < 0 || status) return 1;
        for (int i = 0; i < slots; i++)
            if (slot[i] >= 0 && tasks[slot[i]].pid == pid) {
                struct task *ended = &tasks[slot[i]];
                slot[i] = -1, done++, running--;
                for (int k = 0; k < ended->dependents; k++)
                    if (!--tasks[ended->dependent[k]].waits) ready[last++] = ended->dependent[k];
                break;
            }
    }
    return 0;
}

int main(int count, char **words) {
    if (count < 5) return 2;
    char *argv[] = {words[2], "--no-config-file", "--no-std-lib", words[3], NULL};
    if (!strcmp(words[1], "loop") && count == 6) return loop(argv, words[4], atoi(words[5]));
    int files[2], nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    open_files(words[4], files);
    for (int i = 0; i < 3; i++) dup2(nothing, i);
    for (int i = 0; i < 2; i++) dup2(files[i], 3 + i);
    execve(argv[0], argv, environment);
    die(argv[0]);
}
