/* Writes with the rights of who asks, as tmemfs/linux/credentials.py does, but more strictly: with
   their ids, and no capability. What is refused for that, Python tries again and knows better.

   Ids, groups and capabilities are those of one thread. Where it may not change them, it acts with
   its own, as Python does. */

#ifndef TMEMFS_CALLER_H
#define TMEMFS_CALLER_H

#include <linux/capability.h>
#include <stdint.h>
#include <unistd.h>

#define MOST_GROUPS 64

struct caller {
    int switches; /* whether this thread may act as somebody else */
    uint32_t uid, gid, own_uid, own_gid;
    int group_count;
    gid_t groups[MOST_GROUPS];
    struct __user_cap_data_struct own[2];
};

/* Take note of what the calling thread is. */
void caller_of_thread(struct caller *caller);
/* Let it be nobody, with nothing but the right to be somebody else. */
void caller_strip(struct caller *caller);
/* 0 where it cannot: the system says nothing, and goes on as whoever it was. */
int caller_become(struct caller *caller, uint32_t uid, uint32_t gid);
/* Let it be what it was. */
void caller_restore(struct caller *caller);

#endif
