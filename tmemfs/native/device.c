/* Who reads the device: the session, or one thread, or more of them. */

#define _GNU_SOURCE
#include "lane_inside.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

/* A thread beside the first rests when it has found nothing waiting for so many times. */
#define IDLE_TO_REST 64
/* Who is answered asks again at once, as a rule. To wait for that awake takes half as long as to be
   woken, and is given up where it does not pay. */
#define AWAKE_NS 30000
#define SOON_NS (3 * AWAKE_NS) /* with the time that it takes to be woken */
#define MOST_CREDIT 16

/* With the lock: when no thread reads it, or none is to. */
void device_let_session_read(struct lane *lane, int reads)
{
    struct epoll_event event = {.events = reads ? EPOLLIN : 0, .data.fd = lane->device};
    int flags = fcntl(lane->device, F_GETFL);
    /* Threads wait in read(2), which takes less than poll(2) before it; the session must not wait. */
    (void)fcntl(lane->device, F_SETFL, reads ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
    (void)epoll_ctl(lane->events, EPOLL_CTL_MOD, lane->device, &event);
    let(&lane->session_reads, reads);
}

/* Whether a thread is to read. */
int device_is_to_read(const struct thread *thread)
{
    const struct lane *lane = thread->lane;
    return is_set(&lane->wanted) &&
           thread->number < __atomic_load_n(&lane->awake, __ATOMIC_RELAXED);
}

/* With the lock: wait until the thread is to read, or the end. */
void device_park(struct thread *thread)
{
    struct lane *lane = thread->lane;
    if (++lane->parked == lane->threads)
        device_let_session_read(lane, 1);
    while (!device_is_to_read(thread) && !lane->stop)
        pthread_cond_wait(&lane->wake, &lane->lock);
    lane->parked--;
    thread->idle = 0;
}

/* With the lock: let one more thread read. Two that wait in read(2) have their turns, each on a
   processor that has gone to sleep: where one is enough, only one does. */
void device_wake_one_more(struct lane *lane)
{
    if (lane->awake < lane->threads) {
        __atomic_store_n(&lane->awake, lane->awake + 1, __ATOMIC_RELAXED);
        pthread_cond_broadcast(&lane->wake);
    }
}

/* Whether a request waits. */
int device_has_more(const struct lane *lane)
{
    struct pollfd device = {.fd = lane->device, .events = POLLIN};
    return poll(&device, 1, 0) > 0;
}

/* Stay awake for a moment, or until a request waits: whether one does. */
static int wait_awake(const struct thread *thread)
{
    int64_t end = now() + (thread->credit > 0 ? AWAKE_NS : 0);
    do
        if (device_has_more(thread->lane))
            return 1;
    while (now() < end);
    return 0;
}

/* Let the last of those that read rest, when it finds nothing to do. */
static void rest(struct thread *thread)
{
    struct lane *lane = thread->lane;
    if (++thread->idle < IDLE_TO_REST || !thread->number)
        return;
    pthread_mutex_lock(&lane->lock);
    if (thread->number + 1 == lane->awake) {
        __atomic_store_n(&lane->awake, lane->awake - 1, __ATOMIC_SEQ_CST);
        /* Whoever writes has looked before whether there is another one, or is seen here. */
        if (__atomic_load_n(&lane->writers, __ATOMIC_SEQ_CST))
            __atomic_store_n(&lane->awake, lane->awake + 1, __ATOMIC_SEQ_CST);
    }
    pthread_mutex_unlock(&lane->lock);
}

/* Read a request, when there is one. */
ssize_t device_read(struct thread *thread)
{
    const struct lane *lane = thread->lane;
    if (wait_awake(thread)) {
        thread->idle = 0;
        thread->credit += thread->credit < MOST_CREDIT;
        return read(lane->device, thread->request->bytes, lane->largest + HEADER);
    }
    rest(thread);
    thread->credit -= thread->credit > 1 ? 2 : thread->credit;
    int64_t began = now();
    ssize_t size = read(lane->device, thread->request->bytes, lane->largest + HEADER);
    thread->credit += now() - began < SOON_NS && thread->credit < MOST_CREDIT;
    return size;
}

/* By the session, which finds much that could be answered. */
void device_begin(struct lane *lane)
{
    pthread_mutex_lock(&lane->lock);
    if (lane->session_reads && !lane->stop) {
        device_let_session_read(lane, 0);
        let(&lane->wanted, 1);
        __atomic_store_n(&lane->awake, 1, __ATOMIC_RELAXED);
        __atomic_store_n(&lane->in_a_row, 0, __ATOMIC_RELAXED);
        pthread_cond_broadcast(&lane->wake);
    }
    pthread_mutex_unlock(&lane->lock);
}
