/* Whose turn it is to change what is stored.

   Python changes it in many steps, and relies on that nobody else does between two of them: so it has
   the turn for as long as it does anything at all, and lets others have it while it sleeps. A thread
   of the lane takes it for one request. Who comes first is served first. */

#ifndef TMEMFS_TURN_H
#define TMEMFS_TURN_H

#include <pthread.h>
#include <stdint.h>

struct turn {
    pthread_mutex_t lock;
    pthread_cond_t given;
    uint64_t taken, next; /* how often it was asked for, and which of these has it */
    unsigned waiting;     /* so many who need not */
    int python_has_it;    /* or waits for it; changed by its thread alone */
};

/* Begin with Python's. 0 or an errno. */
int turn_begin(struct turn *turn);
void turn_end(struct turn *turn);

/* For Python: let others have it, and have it again. Either may be said twice. */
void turn_leave(struct turn *turn);
void turn_enter(struct turn *turn);

/* Whether Python has it, or waits for it. */
int turn_is_python(const struct turn *turn);
/* For others: take it, and give it back. */
void turn_take(struct turn *turn);
void turn_give(struct turn *turn);
/* Take it; 0 where it is Python's, for which *most* who ask so wait already. */
int turn_try(struct turn *turn, unsigned most);

#endif
