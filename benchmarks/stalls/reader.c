/* Reads pages of a file at random and past the kernel's cache, and times each.
 *
 *     reader FILE PAGES
 *
 * A page is due each millisecond, and is read when the one before it is there. What it took
 * counts from when it was due, so that a read that waits long is not a single one among many.
 *
 * It says "ready" on standard output, reads until its standard input ends, and then says in one line
 * of JSON how many reads there were, and quantiles of what they took, in nanoseconds.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define PERIOD_NS 1000000
#define MOST (16 << 20)

static int64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

/* Return when a read counts as begun: when it was due, or now, where we have slept until then. */
static int64_t begin(int64_t due)
{
    struct timespec until = {due / INT64_C(1000000000), due % INT64_C(1000000000)};

    if (now() >= due)
        return due;
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    return now();
}

static int ascending(const void *one, const void *other)
{
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;

    return (a > b) - (a < b);
}

static uint64_t quantile(const uint64_t *sorted, uint64_t count, double part)
{
    return count ? sorted[(uint64_t)(part * (double)(count - 1))] : 0;
}

int main(int argc, char **argv)
{
    uint64_t *took = malloc(MOST * sizeof *took), count = 0, state = UINT64_C(0x9E3779B97F4A7C15);
    uint64_t pages = argc == 3 ? strtoull(argv[2], NULL, 10) : 0;
    int file = pages ? open(argv[1], O_RDONLY | O_DIRECT) : -1;
    struct pollfd end = {.fd = STDIN_FILENO, .events = POLLIN};
    void *page;

    if (file < 0 || took == NULL || posix_memalign(&page, PAGE, PAGE)) {
        perror("reader FILE PAGES");
        return 1;
    }
    puts("ready");
    fflush(stdout);
    for (int64_t due = now(); count < MOST && poll(&end, 1, 0) == 0; due += PERIOD_NS) {
        int64_t before = begin(due);

        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if (pread(file, page, PAGE, (off_t)(state % pages) * PAGE) != PAGE) {
            perror(argv[1]);
            return 1;
        }
        took[count++] = (uint64_t)(now() - before);
    }
    qsort(took, count, sizeof *took, ascending);
    printf("{\"reads\": %lu, \"p50\": %lu, \"p99\": %lu, \"p999\": %lu, \"max\": %lu}\n",
           (unsigned long)count, (unsigned long)quantile(took, count, 0.5),
           (unsigned long)quantile(took, count, 0.99), (unsigned long)quantile(took, count, 0.999),
           (unsigned long)quantile(took, count, 1));
    return 0;
}
