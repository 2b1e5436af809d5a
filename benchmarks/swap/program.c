/* A program with more pages than memory, which knows every byte of them and times every access.
 *
 *     program CORPUS PAGES ACCESSES SEED [SPOIL]
 *
 * CORPUS is a file descriptor of real bytes. Page p in version v is page p + 7919 v of the corpus,
 * round and round, with p and v stamped at its head, so that no two pages are the same. It writes
 * PAGES pages, reads them in order, reads and then rewrites ACCESSES of them at random, and checks
 * each page that it reads, all of them once more at the end. SPOIL is a page to falsify after it
 * was written: the check has to find it.
 *
 * On standard output one line of JSON for each step: nanoseconds for all of it, checks included,
 * and quantiles of the single accesses that were page faults, those included that found what the
 * kernel had read ahead, or was still reading. Then it waits for the end of its standard input, so
 * that one may look at the swap device. Exit code 1, and a line on standard error for
 * each of the first ten, where pages were wrong.
 *
 * All of it but the pages is locked in memory, which leaves the pressure to them.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define STRIDE 7919

struct stamp {
    uint64_t page, version, seed, end;
};

static const char *corpus;
static char *pages;
static uint64_t corpus_pages, page_count, seed, wrong;
static uint32_t *versions, *fault_ns;

static int64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static long faults_so_far(void)
{
    struct rusage usage;

    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_majflt + usage.ru_minflt;
}

static uint64_t at_random(void)
{
    static uint64_t state = UINT64_C(0x9E3779B97F4A7C15);

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % page_count;
}

static const char *body(uint64_t page)
{
    return corpus + (page + STRIDE * (uint64_t)versions[page]) % corpus_pages * PAGE;
}

static struct stamp stamp(uint64_t page)
{
    return (struct stamp){page, versions[page], seed, ~page};
}

static void put(uint64_t page)
{
    struct stamp head = stamp(page);

    memcpy(pages + page * PAGE, body(page), PAGE);
    memcpy(pages + page * PAGE, &head, sizeof head);
}

static void check(uint64_t page)
{
    const char *found = pages + page * PAGE;
    struct stamp head = stamp(page), there;

    if (!memcmp(found, &head, sizeof head) &&
        !memcmp(found + sizeof head, body(page) + sizeof head, PAGE - sizeof head))
        return;
    if (++wrong > 10)
        return;
    memcpy(&there, found, sizeof there);
    fprintf(stderr, "page %lu, version %u, is wrong; its head: page %lu, version %lu\n",
            (unsigned long)page, versions[page], (unsigned long)there.page,
            (unsigned long)there.version);
}

static int ascending(const void *one, const void *other)
{
    uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;

    return (a > b) - (a < b);
}

/* A quantile of the first COUNT of fault_ns, which are sorted. */
static unsigned quantile(uint64_t count, double part)
{
    return count ? fault_ns[(uint64_t)(part * (double)(count - 1))] : 0;
}

enum order { IN_ORDER, AT_RANDOM };
enum access { READ, WRITE };

static void step(const char *name, uint64_t count, enum order order, enum access access)
{
    uint64_t faults = 0;
    int64_t start = now();
    long seen = faults_so_far();

    for (uint64_t i = 0; i < count; i++) {
        uint64_t page = order == IN_ORDER ? i : at_random();
        int64_t before, took;
        long more;

        if (access != READ)
            versions[page]++;
        before = now();
        if (access == READ)
            *(volatile char *)(pages + page * PAGE);
        else
            put(page);
        took = now() - before;
        more = faults_so_far();
        if (more != seen)
            fault_ns[faults++] = took < UINT32_MAX ? (uint32_t)took : UINT32_MAX;
        seen = more;
        if (access == READ)
            check(page);
    }
    start = now() - start;
    qsort(fault_ns, faults, sizeof *fault_ns, ascending);
    printf("{\"step\": \"%s\", \"pages\": %lu, \"ns\": %ld, \"faults\": %lu, \"p50\": %u, "
           "\"p90\": %u, \"p99\": %u, \"max\": %u}\n",
           name, (unsigned long)count, (long)start, (unsigned long)faults, quantile(faults, 0.5),
           quantile(faults, 0.9), quantile(faults, 0.99), quantile(faults, 1));
    fflush(stdout);
}

static int prepare(char *argv[])
{
    uint64_t accesses = strtoull(argv[3], NULL, 10), most;
    int file = atoi(argv[1]);
    struct stat found;

    page_count = strtoull(argv[2], NULL, 10);
    seed = strtoull(argv[4], NULL, 10);
    most = accesses > page_count ? accesses : page_count;
    if (!page_count || fstat(file, &found) || found.st_size < PAGE)
        return -1;
    corpus_pages = (uint64_t)found.st_size / PAGE;
    corpus = mmap(NULL, corpus_pages * PAGE, PROT_READ, MAP_SHARED | MAP_POPULATE, file, 0);
    versions = calloc(page_count, sizeof *versions);
    fault_ns = calloc(most, sizeof *fault_ns);
    if (corpus == MAP_FAILED || !versions || !fault_ns)
        return -1;
    /* What is mapped later, the pages, is not locked. */
    if (mlockall(MCL_CURRENT))
        perror("not locked in memory");
    pages = mmap(NULL, page_count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                 0);
    if (pages == MAP_FAILED)
        return -1;
    return madvise(pages, page_count * PAGE, MADV_NOHUGEPAGE);
}

/* Stay on the processor that it is on. The kernel tells every processor that a program was on of late
   about each page that it unmaps; so it would depend on where the scheduler has put it once in a
   second whether a page takes 7 us or 12. */
static void stay(void)
{
    int processor = sched_getcpu();
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET(processor < 0 ? 0 : processor, &one);
    if (sched_setaffinity(0, sizeof one, &one))
        perror("not held on one processor");
}

int main(int argc, char *argv[])
{
    uint64_t accesses;

    if (argc < 5 || prepare(argv)) {
        fprintf(stderr, "usage: program CORPUS PAGES ACCESSES SEED [SPOIL]\n");
        return 2;
    }
    stay();
    accesses = strtoull(argv[3], NULL, 10);
    step("fill", page_count, IN_ORDER, WRITE);
    if (argc > 5)
        pages[strtoull(argv[5], NULL, 10) * PAGE + PAGE / 2] ^= 1;
    step("scan", page_count, IN_ORDER, READ);
    step("random read", accesses, AT_RANDOM, READ);
    step("random write", accesses, AT_RANDOM, WRITE);
    step("last check", page_count, IN_ORDER, READ);
    while (getchar() != EOF)
        ;
    return wrong != 0;
}
