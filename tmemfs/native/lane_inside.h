/* What the files of the lane share. */

#ifndef TMEMFS_LANE_INSIDE_H
#define TMEMFS_LANE_INSIDE_H

#include <linux/fuse.h>
#include <time.h>
#include <unistd.h>

#include "caller.h"
#include "lane.h"
#include "stager.h"

#define HEADER 4096 /* room for what is before the data of a request, as libfuse has it */
#define NOTES 64
#define MOST_THREADS 4u
/* Requests that are read and wait for Python. Where there are more, the kernel keeps them. */
#define QUEUE 2u

struct request {
    struct request *next;
    size_t size;
    char *bytes;
};

struct thread {
    struct lane *lane;
    pthread_t id;
    struct request *request; /* where it reads the next one to; NULL while it waits for memory */
    char *room;              /* where it answers */
    struct caller caller;
    unsigned number, idle;
    int credit; /* above 0: to stay awake has paid of late */
    int begun, ended;
};

struct lane {
    struct store *store;
    struct grants grants; /* guarded by the lock of the store */
    int device, queue_event, note_event, events;
    size_t largest;     /* bytes of data in a request ... */
    size_t most;        /* ... and in an answer: more is Python's */

    pthread_mutex_t lock; /* of what follows, as far as it is not atomic */
    pthread_cond_t wake;  /* something of it has changed */
    struct request *first, **last, *spare, *taken;
    struct note notes[NOTES];
    unsigned first_note, note_count;
    unsigned threads, parked;
    unsigned awake;                  /* atomic as well: so many, the first, are to read */
    int wanted, stop, session_reads; /* atomic as well */

    unsigned in_a_row;         /* atomic: requests handed over since one was answered */
    uint64_t answered, handed; /* atomic */
    unsigned writers;          /* atomic: threads that may be kept waiting by a disk */
    struct caller caller;      /* of the session's thread */
    int64_t slow_until;        /* the session does not write before */
    unsigned could; /* how many more the session could have answered than not; its own */
    struct stager stager;
    char *room; /* where the session answers */
    char *memory;
    size_t memory_size;
    struct request requests[MOST_THREADS + QUEUE];
    struct thread thread[MOST_THREADS];
};

static inline int is_set(const int *flag)
{
    return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}

static inline void let(int *flag, int value)
{
    __atomic_store_n(flag, value, __ATOMIC_RELEASE);
}

/* Of an eventfd. */
static inline void tell(int event)
{
    uint64_t one = 1;
    (void)!write(event, &one, sizeof one);
}

static inline void untell(int event)
{
    uint64_t count;
    (void)!read(event, &count, sizeof count);
}

/* In ns. */
static inline int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

/* Whether a request is one of that kind, with all that such a one begins with. */
static inline int is_request(const struct request *request, uint32_t opcode, size_t size)
{
    const struct fuse_in_header *header = (const void *)request->bytes;
    return request->size >= sizeof *header + size && header->opcode == opcode;
}

/* answer.c: 0 where it is Python's. A read is answered with the memory at *room*. */

int answer_read(struct lane *lane, const struct request *request, char *room);
/* By a thread, as *caller*, who is stripped; or by the session. */
int answer_write(struct lane *lane, const struct request *request, struct caller *caller);
int answer_write_for_session(struct lane *lane, const struct request *request);
/* What is written to a swap volume or discarded there; without *room* by the session. */
int answer_change(struct lane *lane, const struct request *request, char *room);

/* device.c: who reads the device. With the lock of the lane where that is said. */

/* With the lock, when no thread reads it or none is to: whether the session reads it. */
void device_let_session_read(struct lane *lane, int reads);
/* By the session, which finds much that could be answered: let the threads begin. */
void device_begin(struct lane *lane);
/* Whether a thread is to read; with the lock, wait until it is, or until the end. */
int device_is_to_read(const struct thread *thread);
void device_park(struct thread *thread);
/* With the lock: let one more thread read. */
void device_wake_one_more(struct lane *lane);
/* Whether a request waits. */
int device_has_more(const struct lane *lane);
/* Read a request, when there is one: as read(2). */
ssize_t device_read(struct thread *thread);

#endif
