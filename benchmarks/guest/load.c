/* Fills memory, checks every byte of it, in runs in random order, and says whether the machine
   goes on.

     load MIB RANDOM SECONDS STALL PID

   takes MIB mebibytes, in four processes at once, of pages of which RANDOM in a hundred do not
   compress; the others compress to a tenth or less. Until they are all checked, or SECONDS have passed, it prints a line with
   what was swapped and what process PID, the daemon, took, every ten seconds and at the end:

     at S pages N out N in N minflt N majflt N rss KIB hwm KIB

   and last of all one of

     end right     every byte was right
     end wrong     one was not
     end on        the time is up, and pages were touched until then
     end killed    by signal, or could not have the memory
     end hung      no page was touched for STALL seconds; the stacks of all tasks are on the console

   The machine is to run out of memory. So one more process asks the kernel for the figures, which
   may wait, and the first one, locked in memory, real time and with all that it needs open, watches
   them all. */

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORDS 512 /* of a page */
#define TOUCHERS 4
#define RUN 8 /* pages, as many as the kernel reads ahead */
#define PRIME 1000003 /* so that every run is met once */
#define SAMPLE 10 /* seconds */

static volatile unsigned long *touched; /* pages, by each process that touches them */
static int vmstat, stat_of, status_of;

static unsigned long all_touched(void)
{
    unsigned long sum = 0;
    for (int i = 0; i < TOUCHERS; i++)
        sum += touched[i];
    return sum;
}

static uint64_t mixed(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static void fill(uint64_t *page, uint64_t index, unsigned random)
{
    uint64_t key = mixed(index + 1);
    for (unsigned i = 0; i < WORDS; i++)
        page[i] = key % 100 < random ? mixed(key + i) : key & 1 ? 0 : (key & 255) + (i & 7 ? 0 : i);
    page[WORDS - 1] = index;
}

/* Fills and checks so many pages, counting each twice, and stays; returns only where it cannot. */
static int touch_all(unsigned long pages, unsigned random, volatile unsigned long *counter)
{
    uint64_t *memory = mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), wanted[WORDS];
    unsigned long run = 0;
    if (memory == MAP_FAILED)
        return 2;
    for (unsigned long i = 0; i < pages; i++, ++*counter)
        fill(memory + i * WORDS, i, random);
    for (unsigned long i = 0; i < pages / RUN; i++) {
        run = (run + PRIME) % (pages / RUN);
        for (unsigned long index = run * RUN; index < (run + 1) * RUN; index++, ++*counter) {
            fill(wanted, index, random);
            if (memcmp(wanted, memory + index * WORDS, sizeof wanted))
                return 1;
        }
    }
    for (;;)
        pause();
}

/* The number behind `name` in what a file of /proc says now. */
static unsigned long number(int file, const char *name)
{
    static char text[16384];
    ssize_t length = pread(file, text, sizeof text - 1, 0);
    text[length > 0 ? length : 0] = 0;
    char *found = strstr(text, name);
    return found ? strtoul(found + strlen(name), NULL, 10) : 0;
}

/* Field 10 of /proc/PID/stat, and field 12: counted behind the name, which ends with a bracket. */
static void faults(unsigned long *minor, unsigned long *major)
{
    static char text[1024];
    ssize_t length = pread(stat_of, text, sizeof text - 1, 0);
    text[length > 0 ? length : 0] = 0;
    char *behind = strrchr(text, ')');
    *minor = *major = 0;
    if (behind)
        sscanf(behind, ") %*c %*d %*d %*d %*d %*d %*u %lu %*u %lu", minor, major);
}

static void say_figures(int second)
{
    unsigned long minor, major;
    faults(&minor, &major);
    printf("at %d pages %lu out %lu in %lu minflt %lu majflt %lu rss %lu hwm %lu\n", second,
           all_touched(), number(vmstat, "pswpout "), number(vmstat, "pswpin "), minor, major,
           number(status_of, "VmRSS:"), number(status_of, "VmHWM:"));
}

static void sample(void)
{
    for (int second = 0;; second += SAMPLE, sleep(SAMPLE))
        say_figures(second);
}

static int open_of(const char *pid, const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%s/%s", pid, name);
    return open(path, O_RDONLY);
}

int main(int count, char **word)
{
    if (count != 6)
        return 64;
    int limit = atoi(word[3]), stall = atoi(word[4]), second, still = 0, status = 0;
    unsigned long before = 0, minor, major;
    int sysrq = open("/proc/sysrq-trigger", O_WRONLY), spared;
    vmstat = open("/proc/vmstat", O_RDONLY);
    stat_of = open_of(word[5], "stat");
    status_of = open_of(word[5], "status");
    touched = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    if (sysrq < 0 || vmstat < 0 || stat_of < 0 || status_of < 0 || touched == MAP_FAILED)
        return 65;

    unsigned long pages = strtoul(word[1], NULL, 10) * 256 / TOUCHERS / RUN * RUN;
    pid_t toucher[TOUCHERS];
    for (int i = 0; i < TOUCHERS; i++)
        if ((toucher[i] = fork()) == 0)
            _exit(touch_all(pages, atoi(word[2]), touched + i));
    spared = open("/proc/self/oom_score_adj", O_WRONLY);
    if (write(spared, "-1000", 5) < 0)
        return 65;
    pid_t sampler = fork();
    if (sampler == 0)
        sample();
    if (mlockall(MCL_CURRENT | MCL_FUTURE))
        return 65;
    sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 10});

    pid_t ended = 0;
    for (second = 0; second < limit && still < stall; second++, sleep(1)) {
        if (all_touched() == TOUCHERS * pages * 2 || (ended = waitpid(-1, &status, WNOHANG)) != 0)
            break;
        still = all_touched() == before ? still + 1 : 0;
        before = all_touched();
    }
    if (still >= stall) {
        /* Nothing here may ask for memory, so there is less to say. */
        faults(&minor, &major);
        printf("at %d pages %lu minflt %lu majflt %lu\nend hung\n", second, all_touched(), minor, major);
        if (write(sysrq, "t", 1) > 0 && write(sysrq, "m", 1) > 0)
            sleep(5);
        return write(sysrq, "o", 1) < 0;
    }
    for (int i = 0; i < TOUCHERS; i++)
        kill(toucher[i], SIGKILL);
    kill(sampler, SIGKILL);
    say_figures(second);
    printf("end %s\n", ended == 0 ? second < limit ? "right" : "on"
                       : WIFEXITED(status) && WEXITSTATUS(status) == 1 ? "wrong" : "killed");
    return 0;
}
