#define _GNU_SOURCE
#include "lane_inside.h"

#include "../pages/codec.h"

#include <errno.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* So many requests for Python in a row, and the threads are parked ... */
#define HANDED_TO_PARK 16
/* ... until the session could have answered so many more than it could not. */
#define ANSWERED_TO_BEGIN 8
/* Where all memory is to be there from the start, swap is what counts, of which nobody asks for more
   at once. */
#define MOST_TOUCHED (UINT32_C(256) << 10)
/* Requests of so many bytes, or more requests at once than one thread answers, and one more thread
   reads as well. */
#define LARGE (UINT32_C(64) << 10)
/* Wakes a thread that waits for a request, and does nothing else. */
#define KICK (SIGRTMIN + 3)

/* Take memory for a request, if there is some: with the lock. */
static struct request *take_spare(struct lane *lane)
{
    struct request *request = lane->spare;
    if (request != NULL) {
        lane->spare = request->next;
        request->next = NULL;
    }
    return request;
}

/* With the lock: let the session read, but not before those are back who are writing. */
static void park(struct lane *lane)
{
    __atomic_store_n(&lane->wanted, 0, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&lane->writers, __ATOMIC_SEQ_CST)) {
        let(&lane->wanted, 1);
        pthread_cond_broadcast(&lane->wake);
    }
}

/* -- threads ---------------------------------------------------------------------------------- */

/* Queue what a thread has read, and wait until it has memory for the next. */
static void hand_over(struct thread *thread)
{
    struct lane *lane = thread->lane;
    pthread_mutex_lock(&lane->lock);
    *lane->last = thread->request;
    lane->last = &thread->request->next;
    thread->request = NULL;
    tell(lane->queue_event);
    __atomic_fetch_add(&lane->handed, 1, __ATOMIC_RELAXED);
    if (__atomic_add_fetch(&lane->in_a_row, 1, __ATOMIC_RELAXED) >= HANDED_TO_PARK)
        park(lane);
    if (lane->spare == NULL) /* who can be answered is not to wait for Python, too */
        device_wake_one_more(lane);
    while (lane->spare == NULL && !lane->stop)
        pthread_cond_wait(&lane->wake, &lane->lock);
    thread->request = take_spare(lane);
    pthread_mutex_unlock(&lane->lock);
}

/* Whether others should be answered beside a request. Not where it is a write, which is only copied,
   as a rule. */
static int is_long(const struct lane *lane, const struct request *request)
{
    const struct fuse_read_in *in = (const void *)(request->bytes + sizeof(struct fuse_in_header));
    if (is_request(request, FUSE_WRITE, 0))
        return 0;
    return (is_request(request, FUSE_READ, sizeof *in) && in->size >= LARGE) ||
           device_has_more(lane);
}

/* Read one request, and answer it or hand it over. 0 where the mount has gone. */
static int serve_one(struct thread *thread)
{
    struct lane *lane = thread->lane;
    ssize_t size = device_read(thread);
    if (size < 0) /* interrupted, or who has asked is gone; the session may have it be so soon */
        return errno == EINTR || errno == ENOENT || errno == EAGAIN;
    thread->request->size = (size_t)size;
    if (__atomic_load_n(&lane->awake, __ATOMIC_RELAXED) < lane->threads &&
        is_long(lane, thread->request)) {
        pthread_mutex_lock(&lane->lock);
        device_wake_one_more(lane);
        pthread_mutex_unlock(&lane->lock);
    }
    if (answer_read(lane, thread->request, thread->room) ||
        answer_change(lane, thread->request, thread->room) ||
        answer_write(lane, thread->request, &thread->caller))
        __atomic_store_n(&lane->in_a_row, 0, __ATOMIC_RELAXED);
    else
        hand_over(thread);
    return 1;
}

static void *run(void *argument)
{
    struct thread *thread = argument;
    struct lane *lane = thread->lane;
    int goes_on = 1;
    caller_of_thread(&thread->caller);
    caller_strip(&thread->caller);
    if (lane->stager.begun)
        touch_encoder(thread->room, STAGE_PAGE);
    while (goes_on && !is_set(&lane->stop)) {
        if (device_is_to_read(thread)) {
            goes_on = serve_one(thread);
            continue;
        }
        pthread_mutex_lock(&lane->lock);
        device_park(thread);
        pthread_mutex_unlock(&lane->lock);
    }
    pthread_mutex_lock(&lane->lock);
    /* The session finds out for itself that the mount has gone. */
    if (!lane->session_reads)
        device_let_session_read(lane, 1);
    let(&lane->wanted, 0);
    lane->parked++;
    let(&thread->ended, 1);
    pthread_cond_broadcast(&lane->wake);
    pthread_mutex_unlock(&lane->lock);
    return NULL;
}

static void kicked(int number)
{
    (void)number;
}

static int begin_thread(struct lane *lane, unsigned number)
{
    struct thread *thread = &lane->thread[number];
    sigset_t all, before;
    thread->lane = lane;
    thread->number = number;
    sigfillset(&all);
    sigdelset(&all, KICK);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&thread->id, NULL, run, thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    thread->begun = !failed;
    return failed;
}

void lane_stop(struct lane *lane)
{
    struct timespec pause = {.tv_nsec = 1000000};
    pthread_mutex_lock(&lane->lock);
    let(&lane->stop, 1);
    pthread_cond_broadcast(&lane->wake);
    pthread_mutex_unlock(&lane->lock);
    for (unsigned i = 0; i < lane->threads; i++) {
        struct thread *thread = &lane->thread[i];
        /* Until it has heard: a signal that comes just before the read is lost. */
        while (thread->begun && !is_set(&thread->ended)) {
            pthread_kill(thread->id, KICK);
            nanosleep(&pause, NULL);
        }
        if (thread->begun)
            pthread_join(thread->id, NULL);
        thread->begun = 0;
    }
    stager_end(&lane->stager);
}

/* -- for Python ------------------------------------------------------------------------------- */

int lane_grant(struct lane *lane, const struct grant *grant)
{
    store_alone(lane->store);
    int failed = serve_grant(&lane->grants, grant);
    store_leave(lane->store);
    return failed;
}

void lane_revoke(struct lane *lane, uint64_t handle)
{
    store_alone(lane->store);
    serve_revoke(&lane->grants, handle);
    store_leave(lane->store);
}

void lane_resize(struct lane *lane, uint64_t handle, uint64_t size)
{
    store_alone(lane->store);
    struct grant *grant = serve_find(&lane->grants, handle);
    if (grant != NULL)
        grant->size = size;
    store_leave(lane->store);
}

int lane_is_settled(const struct lane *lane, uint64_t handle)
{
    const struct grant *grant = serve_find(&lane->grants, handle);
    return grant == NULL || file_is_settled(grant->file);
}

uint64_t lane_follow(struct lane *lane, uint64_t handle, int *in_order)
{
    struct grant *grant = serve_find(&lane->grants, handle);
    *in_order = grant == NULL || !__atomic_exchange_n(&grant->jumped, 0, __ATOMIC_RELAXED);
    return grant != NULL ? __atomic_load_n(&grant->position, __ATOMIC_RELAXED) : 0;
}

void lane_move(struct lane *lane, uint64_t handle, uint64_t position)
{
    struct grant *grant = serve_find(&lane->grants, handle);
    if (grant != NULL)
        __atomic_store_n(&grant->position, position, __ATOMIC_RELAXED);
}

void lane_watch(struct lane *lane, uint64_t handle, uint64_t edge)
{
    struct grant *grant = serve_find(&lane->grants, handle);
    if (grant != NULL)
        __atomic_store_n(&grant->edge, edge, __ATOMIC_RELAXED);
}

int lane_take_note(struct lane *lane, struct note *note)
{
    pthread_mutex_lock(&lane->lock);
    int found = lane->note_count > 0;
    if (found) {
        untell(lane->note_event);
        *note = lane->notes[lane->first_note];
        lane->first_note = (lane->first_note + 1) % NOTES;
        lane->note_count--;
    }
    pthread_mutex_unlock(&lane->lock);
    return found;
}

int lane_written(struct lane *lane, struct written *written, const char **kept)
{
    return files_tell(&lane->grants.files, written, kept);
}

void lane_settle(struct lane *lane)
{
    store_alone(lane->store);
    files_settle(&lane->grants.files);
    store_leave(lane->store);
}

void lane_count(struct lane *lane, struct lane_figures *figures)
{
    figures->threads = lane->threads;
    figures->parked = is_set(&lane->session_reads) != 0;
    figures->grants = lane->grants.count;
    figures->answered = __atomic_load_n(&lane->answered, __ATOMIC_RELAXED);
    figures->handed = __atomic_load_n(&lane->handed, __ATOMIC_RELAXED);
}

int lane_stage(struct lane *lane, const struct stored *what, const char *data)
{
    int done = serve_stage(lane->store, &lane->grants, what, data);
    if (done)
        stager_poke(&lane->stager);
    return done;
}

int lane_settle_stage(struct lane *lane)
{
    struct turn *turn = &lane->store->turn;
    uint64_t number = lane->store->head->stage_next;
    turn_leave(turn);
    int missing = stager_wait(&lane->stager, number);
    turn_enter(turn);
    return missing;
}

int lane_stage_missing(struct lane *lane)
{
    return stager_missing(&lane->stager);
}

void lane_poke_stage(struct lane *lane)
{
    stager_poke(&lane->stager);
}

int lane_stage_event(const struct lane *lane)
{
    return lane->stager.begun ? lane->stager.event : -1;
}

int lane_events(const struct lane *lane)
{
    return lane->events;
}

int lane_note_event(const struct lane *lane)
{
    return lane->note_event;
}

/* -- for the session -------------------------------------------------------------------------- */

static size_t take(struct lane *lane, void **request)
{
    pthread_mutex_lock(&lane->lock);
    if (lane->taken != NULL) {
        lane->taken->next = lane->spare;
        lane->spare = lane->taken;
        pthread_cond_broadcast(&lane->wake);
    }
    struct request *next = lane->taken = lane->first;
    if (next != NULL) {
        untell(lane->queue_event);
        if ((lane->first = next->next) == NULL)
            lane->last = &lane->first;
        next->next = NULL;
        *request = next->bytes;
    }
    pthread_mutex_unlock(&lane->lock);
    return next != NULL ? next->size : 0;
}

static int reads(struct lane *lane)
{
    return is_set(&lane->session_reads);
}

static int answer_for_session(struct lane *lane, void *bytes, size_t size)
{
    const struct request request = {.bytes = bytes, .size = size};
    if (!answer_read(lane, &request, lane->room) && !answer_change(lane, &request, NULL) &&
        !answer_write_for_session(lane, &request)) {
        lane->could -= lane->could > 0;
        return 0;
    }
    if (++lane->could >= ANSWERED_TO_BEGIN) {
        lane->could = 0;
        device_begin(lane);
    }
    return 1;
}

static int unsettled(struct lane *lane)
{
    return __atomic_load_n(&lane->grants.files.unsettled, __ATOMIC_SEQ_CST);
}

const struct lane_session lane_session = {take, reads, answer_for_session, unsettled};

/* -- beginning and end ------------------------------------------------------------------------ */

/* Memory for all requests and answers, in one mapping of its own: the heap is for others. */
static int share_out_memory(struct lane *lane, int touch)
{
    size_t bytes = lane->largest + HEADER, room = lane->most + 2 * LARGEST_PAGE;
    unsigned requests = lane->threads + QUEUE, rooms = lane->threads + 1;
    lane->memory_size = requests * bytes + rooms * room;
    lane->memory = mmap(NULL, lane->memory_size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (lane->memory == MAP_FAILED)
        return -1;
    if (touch) /* MAP_POPULATE does nothing where memory is locked as it is touched */
        memset(lane->memory, 0, lane->memory_size);
    char *next = lane->memory;
    for (unsigned i = 0; i < requests; i++, next += bytes) {
        lane->requests[i].bytes = next;
        lane->requests[i].next = lane->spare;
        lane->spare = &lane->requests[i];
    }
    for (unsigned i = 0; i < lane->threads; i++, next += room) {
        lane->thread[i].request = take_spare(lane);
        lane->thread[i].room = next;
    }
    lane->room = next;
    return 0;
}

static int prepare(struct lane *lane, int touch)
{
    struct epoll_event queue = {.events = EPOLLIN}, device = {.events = EPOLLIN};
    struct sigaction nothing = {.sa_handler = kicked};
    lane->queue_event = eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC);
    lane->note_event = eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC);
    lane->events = epoll_create1(EPOLL_CLOEXEC);
    if (lane->queue_event < 0 || lane->note_event < 0 || lane->events < 0 ||
        epoll_ctl(lane->events, EPOLL_CTL_ADD, lane->queue_event, &queue) ||
        epoll_ctl(lane->events, EPOLL_CTL_ADD, lane->device, &device) ||
        sigaction(KICK, &nothing, NULL) || (errno = files_begin(&lane->grants.files)))
        return -1;
    return share_out_memory(lane, touch);
}

struct lane *lane_new(struct store *store, int device, unsigned threads, size_t largest, int touch)
{
    struct lane *lane = calloc(1, sizeof *lane);
    if (lane == NULL)
        return NULL;
    threads = threads < MOST_THREADS ? threads : MOST_THREADS;
    lane->memory = MAP_FAILED;
    lane->store = store;
    lane->device = device;
    lane->largest = largest;
    lane->most = touch && largest > MOST_TOUCHED ? MOST_TOUCHED : largest;
    lane->threads = threads;
    lane->last = &lane->first;
    lane->queue_event = lane->note_event = lane->events = -1;
    lane->session_reads = 1;
    caller_of_thread(&lane->caller);
    pthread_mutex_init(&lane->lock, NULL);
    pthread_cond_init(&lane->wake, NULL);
    int failed = prepare(lane, touch) ? errno : 0;
    if (!failed && touch)
        failed = stager_begin(&lane->stager, store);
    for (unsigned i = 0; i < threads && !failed; i++)
        failed = begin_thread(lane, i);
    if (!failed)
        return lane;
    lane_stop(lane);
    lane_free(lane);
    errno = failed;
    return NULL;
}

void lane_free(struct lane *lane)
{
    for (unsigned i = 0; i < GRANT_BUCKETS; i++)
        while (lane->grants.buckets[i] != NULL)
            serve_revoke(&lane->grants, lane->grants.buckets[i]->handle);
    files_end(&lane->grants.files);
    int files[] = {lane->queue_event, lane->note_event, lane->events};
    for (unsigned i = 0; i < 3; i++)
        if (files[i] >= 0)
            close(files[i]);
    pthread_mutex_destroy(&lane->lock);
    pthread_cond_destroy(&lane->wake);
    if (lane->memory != MAP_FAILED)
        munmap(lane->memory, lane->memory_size);
    free(lane);
}
