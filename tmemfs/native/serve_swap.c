/* Writes and discards of files that are in the store alone: of swap volumes. */

#include "serve.h"

#include "../pages/codec.h"

/* So much is changed at once: pages are removed in the time in which a read is answered. */
#define MOST_BYTES (UINT64_C(4) << 20)

/* Whole pages of a granted file, of which none is in the hands of Python. With the lock. */
static const struct grant *granted(const struct store *store, const struct grants *grants,
                                   const struct stored *what)
{
    const struct grant *grant = serve_find(grants, what->handle);
    if (grant == NULL || !grant->stores || grant->page_size != STAGE_PAGE || !what->size ||
        (what->offset | what->size) % STAGE_PAGE || what->size > grant->size ||
        what->offset > grant->size - what->size)
        return NULL;
    uint64_t first = what->offset / STAGE_PAGE, last = first + what->size / STAGE_PAGE;
    return store_hides(store, grant->table, first, last) ? NULL : grant;
}

static void encode(struct payloads *payloads, const char *data, char *room)
{
    for (unsigned i = 0; i < payloads->count; i++, data += STAGE_PAGE, room += STAGE_PAGE)
        payloads->bytes[i] = encode_page(data, STAGE_PAGE, room, &payloads->size[i]);
}

/* With the lock, and the turn: 0 without. */
static int enter(struct store *store, const struct stored *what)
{
    if (!what->has_turn && !turn_try(&store->turn, what->most))
        return 0;
    store_alone(store);
    return 1;
}

static void leave(struct store *store, const struct stored *what)
{
    store_leave(store);
    if (!what->has_turn)
        turn_give(&store->turn);
}

/* Put pages that are *data* in the stage, or encoded by now. */
static int put(struct store *store, const struct grants *grants, const struct stored *what,
               const char *data, const struct payloads *payloads)
{
    int done = 0;
    if (!enter(store, what))
        return 0;
    /* Meanwhile it may have become another file's handle, or none. */
    const struct grant *grant = granted(store, grants, what);
    if (grant != NULL) {
        uint64_t first = what->offset / STAGE_PAGE;
        unsigned count = (unsigned)(what->size / STAGE_PAGE);
        done = payloads == NULL
                   ? stage_take(store, grant->table, &grant->id, first, data, count)
                   : store_take(store, grant->table, &grant->id, first, payloads);
    }
    leave(store, what);
    return done;
}

int serve_is_swap(struct store *store, const struct grants *grants, const struct stored *what)
{
    if (!store->head->stage_pages || what->size > MOST_BYTES)
        return 0;
    store_share(store);
    int is = granted(store, grants, what) != NULL;
    store_leave(store);
    return is;
}

int serve_stage(struct store *store, const struct grants *grants, const struct stored *what,
                const char *data)
{
    return put(store, grants, what, data, NULL);
}

int serve_put(struct store *store, const struct grants *grants, const struct stored *what,
              const char *data, char *room)
{
    struct payloads payloads;
    struct stored part = *what;
    int done = 1;
    for (uint64_t at = 0; at < what->size && done; at += part.size) {
        part.offset = what->offset + at;
        part.size = what->size - at < MOST_PUT * STAGE_PAGE ? what->size - at : MOST_PUT * STAGE_PAGE;
        payloads.count = (unsigned)(part.size / STAGE_PAGE);
        encode(&payloads, data + at, room);
        done = put(store, grants, &part, data, &payloads);
    }
    return done;
}

int serve_flush(struct store *store, const struct grants *grants, const struct stored *what)
{
    if (!serve_is_swap(store, grants, what) || !enter(store, what))
        return 0;
    const struct grant *grant = granted(store, grants, what);
    if (grant != NULL) {
        uint64_t first = what->offset / STAGE_PAGE;
        store_flush(store, grant->table, &grant->id, first, first + what->size / STAGE_PAGE);
    }
    leave(store, what);
    return grant != NULL;
}
