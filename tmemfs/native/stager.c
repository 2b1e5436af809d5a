#include "stager.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../pages/codec.h"

/* Compress some of the pages that have waited longest. Returns whether there may be more of them. */
static int compress_some(struct stager *stager)
{
    struct store *store = stager->store;
    struct from_stage pages;
    struct payloads payloads;
    store_share(store);
    stage_next(store, &pages);
    store_leave(store);
    /* Nobody else takes pages out, so that they stay where they are meanwhile. */
    for (unsigned i = 0; i < pages.count; i++)
        if (pages.page[i] != NULL)
            payloads.bytes[i] = encode_page(pages.page[i], STAGE_PAGE,
                                            stager->room + i * STAGE_PAGE, &payloads.size[i]);
    turn_take(&store->turn);
    store_alone(store);
    int missing = stage_move(store, &pages, &payloads);
    uint64_t done = store->head->stage_first;
    store_leave(store);
    turn_give(&store->turn);
    pthread_mutex_lock(&stager->lock);
    stager->missing = missing;
    stager->done = done;
    pthread_cond_broadcast(&stager->changed);
    pthread_mutex_unlock(&stager->lock);
    return pages.count && !missing;
}

static void *run(void *argument)
{
    struct stager *stager = argument;
    uint64_t one = 1;
    /* Of no lower priority than others: who has the turn and waits for a processor keeps them all. */
    touch_encoder(stager->room, STAGE_PAGE);
    pthread_mutex_lock(&stager->lock);
    while (!stager->stop) {
        if (!stager->poked) {
            stager->sleeps = 1;
            pthread_cond_broadcast(&stager->changed);
            pthread_cond_wait(&stager->changed, &stager->lock);
            continue;
        }
        stager->poked = stager->sleeps = 0;
        pthread_mutex_unlock(&stager->lock);
        while (compress_some(stager))
            ;
        pthread_mutex_lock(&stager->lock);
        if (stager->missing)
            (void)!write(stager->event, &one, sizeof one);
    }
    pthread_mutex_unlock(&stager->lock);
    return NULL;
}

int stager_begin(struct stager *stager, struct store *store)
{
    pthread_mutex_init(&stager->lock, NULL);
    pthread_cond_init(&stager->changed, NULL);
    stager->store = store;
    memset(stager->room, 0, sizeof stager->room); /* to have the memory */
    stage_begin(store);
    stager->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int failed = stager->event < 0 ? errno : pthread_create(&stager->id, NULL, run, stager);
    stager->begun = !failed;
    if (failed && stager->event >= 0)
        close(stager->event);
    return failed;
}

void stager_end(struct stager *stager)
{
    if (!stager->begun)
        return;
    pthread_mutex_lock(&stager->lock);
    stager->stop = 1;
    pthread_cond_broadcast(&stager->changed);
    pthread_mutex_unlock(&stager->lock);
    pthread_join(stager->id, NULL);
    close(stager->event);
    stager->begun = 0;
}

void stager_poke(struct stager *stager)
{
    if (!stager->begun)
        return;
    pthread_mutex_lock(&stager->lock);
    stager->poked = 1;
    if (stager->sleeps)
        pthread_cond_broadcast(&stager->changed);
    pthread_mutex_unlock(&stager->lock);
}

int stager_missing(struct stager *stager)
{
    if (!stager->begun)
        return NOTHING;
    pthread_mutex_lock(&stager->lock);
    int missing = stager->missing;
    pthread_mutex_unlock(&stager->lock);
    return missing;
}

int stager_wait(struct stager *stager, uint64_t number)
{
    if (!stager->begun)
        return NOTHING;
    stager_poke(stager);
    pthread_mutex_lock(&stager->lock);
    while (stager->done < number && !(stager->missing && stager->sleeps && !stager->poked))
        pthread_cond_wait(&stager->changed, &stager->lock);
    int missing = stager->done < number ? stager->missing : NOTHING;
    pthread_mutex_unlock(&stager->lock);
    return missing;
}
