/* What the files of the lane share. */

#ifndef TMEMFS_LANE_INSIDE_H
#define TMEMFS_LANE_INSIDE_H

#include "lane.h"

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
    unsigned could; /* how many more the session could have answered than not; its own */
    char *room;     /* where the session answers */
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
