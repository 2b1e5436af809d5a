#include "turn.h"

int turn_begin(struct turn *turn)
{
    int failed = pthread_mutex_init(&turn->lock, NULL);
    if (failed)
        return failed;
    pthread_cond_init(&turn->given, NULL); /* glibc's cannot fail */
    turn->next = 0;
    turn->taken = 1;
    turn->waiting = 0;
    turn->python_has_it = 1;
    return 0;
}

void turn_end(struct turn *turn)
{
    pthread_cond_destroy(&turn->given);
    pthread_mutex_destroy(&turn->lock);
}

/* With the lock: wait for it. */
static void wait(struct turn *turn)
{
    uint64_t ours = turn->taken++;
    while (turn->next != ours)
        pthread_cond_wait(&turn->given, &turn->lock);
}

void turn_give(struct turn *turn)
{
    pthread_mutex_lock(&turn->lock);
    if (++turn->next != turn->taken)
        pthread_cond_broadcast(&turn->given);
    pthread_mutex_unlock(&turn->lock);
}

void turn_leave(struct turn *turn)
{
    if (turn->python_has_it) {
        __atomic_store_n(&turn->python_has_it, 0, __ATOMIC_RELAXED);
        turn_give(turn);
    }
}

void turn_enter(struct turn *turn)
{
    if (turn->python_has_it)
        return;
    pthread_mutex_lock(&turn->lock);
    __atomic_store_n(&turn->python_has_it, 1, __ATOMIC_RELAXED);
    wait(turn);
    pthread_mutex_unlock(&turn->lock);
}

int turn_is_python(const struct turn *turn)
{
    return __atomic_load_n(&turn->python_has_it, __ATOMIC_RELAXED);
}

void turn_take(struct turn *turn)
{
    pthread_mutex_lock(&turn->lock);
    wait(turn);
    pthread_mutex_unlock(&turn->lock);
}

int turn_try(struct turn *turn, unsigned most)
{
    pthread_mutex_lock(&turn->lock);
    int may = !turn_is_python(turn) || turn->waiting < most;
    if (may) {
        turn->waiting++;
        wait(turn);
        turn->waiting--;
    }
    pthread_mutex_unlock(&turn->lock);
    return may;
}
