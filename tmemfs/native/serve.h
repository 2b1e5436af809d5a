/* What the lane may answer, and how: grants, reads and writes of granted files. */

#ifndef TMEMFS_SERVE_H
#define TMEMFS_SERVE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "store.h"
#include "writes.h"

#define NEVER UINT64_MAX
#define LARGEST_PAGE (UINT32_C(1) << 16)
#define GRANT_BUCKETS 1024u

/* What may be answered of an open file, until it is revoked. Guarded by the lock of the store, but
   that who shares it may move the position. */
struct grant {
    struct grant *next; /* in the bucket */
    struct file *file;
    uint64_t handle;
    struct wide id; /* of the object that has its pages */
    uint32_t table;
    uint32_t page_size;
    uint64_t size;     /* of the file: a read beyond it is Python's */
    int zeros;         /* whether a page that is not there is zeros; else Python has to find it */
    uint64_t position; /* the page behind the last one that was read */
    uint64_t edge;     /* who reads in order and beyond this page is noted; NEVER: nobody is */
    int jumped;        /* whether it was moved elsewhere since Python was told of it */
    int fd;            /* by which it may be written; -1: that is Python's */
    int stores;        /* whether what is written to it is put, in the store */
};

struct grants {
    struct grant *buckets[GRANT_BUCKETS];
    uint64_t count;
    struct files files;
};

/* A read that Python wants to know of, because it may have to read ahead. */
struct note {
    uint64_t handle, first, last;
    int in_order; /* after what Python was told of before */
};

/* With the lock alone. 0, or -1 without memory. */
int serve_grant(struct grants *grants, const struct grant *grant);
void serve_revoke(struct grants *grants, uint64_t handle);
/* With the lock. */
struct grant *serve_find(const struct grants *grants, uint64_t handle);

/* Read what a request asks for, at *bytes* of the memory at *room*, which is for so many bytes and
   two of the largest pages. Returns how many; -1 where Python has to. *note* is filled in, its
   `last` is else 0. Takes the lock. */
ssize_t serve_read(struct store *store, const struct grants *grants, uint64_t handle,
                   uint64_t offset, size_t size, char *room, char **bytes, struct note *note);

/* Whether writes are granted. Takes the lock. */
int serve_may_write(struct store *store, const struct grants *grants, uint64_t handle);
/* Write what a request asks for. Returns how many bytes were written, which is all; -1 where Python
   has to. Takes the lock, but not while it writes. */
ssize_t serve_write(struct store *store, struct grants *grants, uint64_t handle, uint64_t offset,
                    const char *data, size_t size);

/* Whole pages of a file that is in the store, to be put or removed by one who has the turn, because
   that is Python's thread; or takes it, unless *most* wait for Python by now. */
struct stored {
    uint64_t handle, offset, size;
    int has_turn;
    unsigned most;
};

/* Whether others than Python may do that at all. */
int serve_is_swap(struct store *store, const struct grants *grants, const struct stored *what);
/* Each 0 where Python has to. To the stage, which is to be told of it: */
int serve_stage(struct store *store, const struct grants *grants, const struct stored *what,
                const char *data);
/* Compressed, in *room* for MOST_PUT pages, where the stage has none. */
int serve_put(struct store *store, const struct grants *grants, const struct stored *what,
              const char *data, char *room);
int serve_flush(struct store *store, const struct grants *grants, const struct stored *what);

#endif
