/* What the two halves of the launcher have in common. */
#ifndef LAUNCHER_H
#define LAUNCHER_H

#include <stdint.h>
#include <sys/types.h>

enum { REFUSED = 5, UNUSABLE = 6 }; /* as provisioning/errors.py has them */

#define DAY ((time_t)86400)

/* The last bytes of the one file; packaging/binary/pack.py writes them. */
struct trailer {
    char name[80];  /* of the unpacked folder: <version>-<digest of the payload> */
    uint64_t size;  /* of the payload, which ends where the trailer begins */
    char magic[8];
};

/* Says what is wrong and what to do, and ends with the code. */
_Noreturn void fail(int code, const char *hint, const char *format, ...);
extern const char ELSEWHERE[], COPY_AGAIN[]; /* hints */

/* Formats a path into PATH_MAX bytes. */
void join(char *to, const char *format, ...);

/* The file has been changed since it was built. */
_Noreturn void damaged(void);

/* Makes the folder `place`/<name of the trailer>, unless it is there, from the payload that begins at `start`. */
void unpack_once(int file, const struct trailer *trailer, off_t start, const char *place, const char *folder);

#endif
