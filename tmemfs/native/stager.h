/* The thread that compresses what is in the stage. */

#ifndef TMEMFS_STAGER_H
#define TMEMFS_STAGER_H

#include "store.h"

struct stager {
    struct store *store;
    pthread_t id;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    int begun, stop, poked, sleeps;
    int missing;   /* why it sleeps, though there are pages; 0 where there are none */
    uint64_t done; /* up to which number all have gone (excluded) */
    int event;     /* readable when something is missing: an eventfd */
    char room[AT_ONCE_FROM_STAGE * STAGE_PAGE];
};

/* Begin the stage and its thread. 0 or an errno. */
int stager_begin(struct stager *stager, struct store *store);
/* After others have left the turn; nothing happens where it was not begun. */
void stager_end(struct stager *stager);
/* Pages were put, or there is what was missing. */
void stager_poke(struct stager *stager);
int stager_missing(struct stager *stager);
/* Wait until all pages below that number have gone, or something is missing. Returns what. */
int stager_wait(struct stager *stager, uint64_t number);

#endif
