/* Writes of granted files: to the backing file here and now, and for Python to hear of later.

   A file is *unsettled* from before its bytes change until Python has dropped the pages that this
   made wrong: meanwhile nobody is answered with a page of it here. Python hears of it before it sees
   any request that came after the answer (`lane_session.unsettled`), so that to whoever asks, all is
   as if it had made the write itself. */

#ifndef TMEMFS_WRITES_H
#define TMEMFS_WRITES_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "store.h"

#define FILE_BUCKETS 1024u
/* Bytes of a write that are kept for Python to put. */
#define MOST_KEPT (UINT32_C(128) << 10)

/* What tells whether somebody has changed a file: see tmemfs/cachefs/source/stamps.py. */
struct times {
    int64_t modified, changed; /* ns */
    int64_t size;
};

/* Writes of one file that Python has not heard of. */
struct written {
    uint64_t handle;       /* of one of those that wrote */
    uint64_t start, end;   /* all of it is between them */
    uint64_t count, bytes; /* of the writes */
    struct times before, after;
    int alone; /* whether nobody else was seen to change the file between the first and the last */
    uint32_t kept; /* bytes that were kept, from `start` on: of a single write that is not large */
};

enum state { SETTLED, WRITTEN, TOLD };

/* What all who have a file open share. */
struct file {
    struct file *next; /* in the bucket */
    struct file *next_written;
    struct wide id;
    uint32_t table;
    unsigned grants;        /* with the lock of the store alone */
    unsigned under_way;     /* atomic: writes */
    int state;              /* atomic as well; with the lock of the files */
    struct written written; /* with the lock of the files */
};

struct files {
    struct file *buckets[FILE_BUCKETS]; /* with the lock of the store */
    pthread_mutex_t lock;               /* of what follows; within the lock of the store, if at all */
    struct file *first, **last;         /* those that are WRITTEN */
    int unsettled;                      /* atomic as well: how often Python has to be told */
    struct file *told;                  /* what it has been told of, and has not settled */
    struct written told_written;
    struct file *keeps;
    char *kept;
};

/* 0 or an errno. */
int files_begin(struct files *files);
void files_end(struct files *files);

/* With the lock of the store alone: one more grant of a file, NULL without memory, or one less. */
struct file *files_enter(struct files *files, uint32_t table, const struct wide *id);
void files_leave(struct files *files, struct file *file);

static inline int file_is_settled(const struct file *file)
{
    return !__atomic_load_n(&file->under_way, __ATOMIC_SEQ_CST) &&
           __atomic_load_n(&file->state, __ATOMIC_SEQ_CST) == SETTLED;
}

/* With the lock of the store: a write begins. Then without, and to the end: write it and note it. How
   many bytes were written; -1 where Python has to write them (again). */
void file_begin_write(struct file *file);
ssize_t file_write(struct files *files, struct file *file, uint64_t handle, int fd,
                   const char *data, size_t size, uint64_t offset);

/* For Python: what was written of a file, with the bytes that were kept; 0 where all is settled. The
   same is told again until it is. */
int files_tell(struct files *files, struct written *written, const char **kept);
/* With the lock of the store alone: the pages of what was told last have been dropped. */
void files_settle(struct files *files);

#endif
