/* What the C programs of the tests share. */

#ifndef TMEMFS_TESTS_CHECK_H
#define TMEMFS_TESTS_CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* End the program where something does not hold. */
#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* A number of 31 bits, made up; the same from the same *state*. */
static inline uint64_t next(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}

#endif
