/* The lane: threads that read requests from the kernel, and answer what the store can answer alone.

   A READ of a file that Python has granted, whose pages are all there, is answered on the spot,
   without the interpreter, and so is a WRITE where that is granted, of a swap volume a discard as well.
   Everything else is queued for pyfuse3, which sees no difference: its session takes requests out of the queue in the place of the device (tmemfs/fuse/_session.c).

   While there is little to answer, the threads are parked and the session reads the device itself,
   because a request that goes from hand to hand takes longer. */

#ifndef TMEMFS_LANE_H
#define TMEMFS_LANE_H

#include <stddef.h>
#include <stdint.h>

#include "serve.h"

struct lane;

/* A lane of *threads* threads for a device, for requests of up to *largest* bytes of data. With
   *touch*, all its memory is there from now on, and that of the stage of swap volumes. NULL with errno where it cannot be. */
struct lane *lane_new(struct store *store, int device, unsigned threads, size_t largest, int touch);
/* End all threads: when it returns none is left, and the session reads the device. */
void lane_stop(struct lane *lane);
/* After lane_stop(). */
void lane_free(struct lane *lane);

/* Readable while the session has something to do, for poll(2); and while there are notes. */
int lane_events(const struct lane *lane);
int lane_note_event(const struct lane *lane);

/* For Python, whose lock is held. */

int lane_grant(struct lane *lane, const struct grant *grant);
/* No thread uses it any more when this returns. */
void lane_revoke(struct lane *lane, uint64_t handle);
/* It is of another size; nobody is answered by the old one when this returns. */
void lane_resize(struct lane *lane, uint64_t handle, uint64_t size);
/* Whether nothing is being written of a granted file, and Python knows of all that was. */
int lane_is_settled(const struct lane *lane, uint64_t handle);
/* Where the reader of a granted file is, and whether in order after what Python was told before; 0
   where it is not granted. */
uint64_t lane_follow(struct lane *lane, uint64_t handle, int *in_order);
/* Python has read a granted file up to page *position* (excluded). */
void lane_move(struct lane *lane, uint64_t handle, uint64_t position);
/* Note who reads in order and beyond page *edge* of a granted file. */
void lane_watch(struct lane *lane, uint64_t handle, uint64_t edge);
/* 0 where there is none. */
int lane_take_note(struct lane *lane, struct note *note);

/* What was written of a file, with the bytes that were kept; 0 where all is settled. The same is told
   again until it is, which means that the pages have been dropped. */
int lane_written(struct lane *lane, struct written *written, const char **kept);
void lane_settle(struct lane *lane);

/* Write whole pages of a swap volume; 0 where the stage does not take them. */
int lane_stage(struct lane *lane, const struct stored *what, const char *data);
/* Wait until all that is in the stage has been compressed, while others may have the turn. Returns
   what is missing for the rest of it (see `stage_move`). */
int lane_settle_stage(struct lane *lane);
int lane_stage_missing(struct lane *lane);
/* What was missing is there. */
void lane_poke_stage(struct lane *lane);
/* Readable when something is missing; -1 where there is no stage. */
int lane_stage_event(const struct lane *lane);

struct lane_figures {
    uint64_t threads, parked, grants, answered, handed;
};
void lane_count(struct lane *lane, struct lane_figures *figures);

/* For the session, in one thread: a table, because it is in another extension. */
struct lane_session {
    /* Take a request out of the queue: its size, 0 where there is none. The memory is the session's
       until it takes the next one. */
    size_t (*take)(struct lane *lane, void **request);
    /* Whether the session has to read the device, because no thread does. */
    int (*reads)(struct lane *lane);
    /* Answer a request that the session has read; 0 where that is Python's. */
    int (*answer)(struct lane *lane, void *request, size_t size);
    /* How often Python has to hear of writes before it sees the next request. */
    int (*unsettled)(struct lane *lane);
};
extern const struct lane_session lane_session;

#define LANE_CAPSULE "tmemfs.native.lane"

/* What the capsule of a lane holds. */
struct lane_capsule {
    struct lane *lane;
    const struct lane_session *session;
};

#endif
