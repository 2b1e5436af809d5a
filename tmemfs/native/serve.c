#include "serve.h"

#include <stdlib.h>
#include <string.h>

/* So many bytes are decoded before others may have the lock. */
#define AT_ONCE (UINT32_C(64) << 10)

static struct grant **bucket_of(const struct grants *grants, uint64_t handle)
{
    return (struct grant **)&grants->buckets[handle % GRANT_BUCKETS];
}

struct grant *serve_find(const struct grants *grants, uint64_t handle)
{
    struct grant *grant = *bucket_of(grants, handle);
    while (grant != NULL && grant->handle != handle)
        grant = grant->next;
    return grant;
}

int serve_grant(struct grants *grants, const struct grant *grant)
{
    struct grant *copy = malloc(sizeof *copy), **bucket = bucket_of(grants, grant->handle);
    if (copy == NULL)
        return -1;
    struct file *file = files_enter(&grants->files, grant->table, &grant->id);
    if (file == NULL) {
        free(copy);
        return -1;
    }
    serve_revoke(grants, grant->handle);
    *copy = *grant;
    copy->file = file;
    copy->next = *bucket;
    *bucket = copy;
    grants->count++;
    return 0;
}

void serve_revoke(struct grants *grants, uint64_t handle)
{
    struct grant **link = bucket_of(grants, handle), *grant;
    while ((grant = *link) != NULL && grant->handle != handle)
        link = &grant->next;
    if (grant == NULL)
        return;
    *link = grant->next;
    files_leave(&grants->files, grant->file);
    free(grant);
    grants->count--;
}

/* Pages of a granted file. */
struct run {
    uint64_t first, last; /* excluded */
};

/* Whether the pages of a run can be had here: all are in the arena, or known to be zeros. */
static int is_there(const struct store *store, const struct grant *grant, struct run run)
{
    const struct object *object = store_find(store, grant->table, &grant->id);
    if (store_hides(store, grant->table, run.first, run.last))
        return 0;
    for (uint64_t index = run.first; index < run.last; index++) {
        uint64_t location = object != NULL ? store_location(store, object, index) : 0;
        if (location ? (location & SIZE_MASK) == OUTSIDE : !grant->zeros)
            return 0;
    }
    return 1;
}

/* Decode the pages of a run of one node. 0 where one of them has gone, or is damaged. */
static int decode(const struct store *store, const struct grant *grant, struct run run, char *bytes)
{
    const struct object *object = store_find(store, grant->table, &grant->id);
    struct node *node =
        object != NULL ? store_node(store, object, run.first >> NODE_BITS) : NULL;
    unsigned low = (unsigned)(run.first % NODE_PAGES);
    unsigned length = (unsigned)(run.last - run.first);
    for (unsigned i = 0; i < length; i++, bytes += grant->page_size) {
        uint64_t location = node != NULL && low + i < node->length ? node->at[low + i] : 0;
        if (location ? !store_page(store, location, bytes, grant->page_size) : !grant->zeros)
            return 0;
        if (!location)
            memset(bytes, 0, grant->page_size);
    }
    if (node != NULL) /* marks of absent pages do no harm: a put clears them */
        store_mark(node, store_marks(low, length));
    return 1;
}

/* The grant of that handle, with the lock shared, if the pages of the run can be had; else without
   the lock. */
static struct grant *enter(struct store *store, const struct grants *grants, uint64_t handle,
                           struct run run)
{
    store_share(store);
    struct grant *grant = serve_find(grants, handle);
    if (grant != NULL && file_is_settled(grant->file) &&
        !store_hides(store, grant->table, run.first, run.last))
        return grant;
    store_leave(store);
    return NULL;
}

/* Move the reader on; fill in *note* where it reads in order and has come far enough. */
static void follow(struct grant *grant, struct run run, struct note *note)
{
    uint64_t edge = __atomic_load_n(&grant->edge, __ATOMIC_RELAXED), count = run.last - run.first;
    uint64_t position = __atomic_exchange_n(&grant->position, run.last, __ATOMIC_RELAXED);
    note->last = 0;
    if (edge == NEVER)
        return;
    /* Requests of one reader may pass each other by one; a page may be read in parts. */
    if (run.first + count + 1 < position || run.first > position) {
        __atomic_store_n(&grant->edge, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&grant->jumped, 1, __ATOMIC_RELAXED);
    } else if (run.last > edge) {
        int jumped = __atomic_exchange_n(&grant->jumped, 0, __ATOMIC_RELAXED);
        *note = (struct note){grant->handle, run.first, run.last, !jumped};
        __atomic_store_n(&grant->edge, NEVER, __ATOMIC_RELAXED); /* until Python says on */
    }
}

ssize_t serve_read(struct store *store, const struct grants *grants, uint64_t handle,
                   uint64_t offset, size_t size, char *room, char **bytes, struct note *note)
{
    store_share(store);
    struct grant *grant = serve_find(grants, handle);
    uint64_t end = offset + size;
    if (grant == NULL || !size || end < offset || end > grant->size ||
        !file_is_settled(grant->file)) {
        store_leave(store);
        return -1;
    }
    const uint32_t page_size = grant->page_size;
    struct run run = {offset / page_size, (end - 1) / page_size + 1};
    if (!is_there(store, grant, run)) {
        store_leave(store);
        return -1;
    }
    struct run part = {run.first, run.first};
    while (grant != NULL && part.last < run.last) {
        part.first = part.last;
        part.last = (part.first / NODE_PAGES + 1) * NODE_PAGES;
        if (part.last - part.first > AT_ONCE / page_size)
            part.last = part.first + AT_ONCE / page_size;
        part.last = part.last < run.last ? part.last : run.last;
        if (!decode(store, grant, part, room + (part.first - run.first) * page_size)) {
            store_leave(store);
            return -1;
        }
        if (part.last == run.last) {
            uint64_t *hits = &store->head->tables[grant->table].hits;
            __atomic_fetch_add(hits, run.last - run.first, __ATOMIC_RELAXED);
            follow(grant, run, note);
        }
        store_leave(store);
        /* Who wants to change something has had its turn; what was granted may be so no more. */
        if (part.last < run.last)
            grant = enter(store, grants, handle, run);
    }
    *bytes = room + (offset - run.first * page_size);
    return grant != NULL ? (ssize_t)size : -1;
}

int serve_may_write(struct store *store, const struct grants *grants, uint64_t handle)
{
    store_share(store);
    const struct grant *grant = serve_find(grants, handle);
    int may = grant != NULL && grant->fd >= 0;
    store_leave(store);
    return may;
}

ssize_t serve_write(struct store *store, struct grants *grants, uint64_t handle, uint64_t offset,
                    const char *data, size_t size)
{
    uint64_t end = offset + size;
    store_share(store);
    struct grant *grant = serve_find(grants, handle);
    if (grant == NULL || grant->fd < 0 || !size || end < offset ||
        (end - 1) / grant->page_size > UINT32_MAX) {
        store_leave(store);
        return -1;
    }
    struct file *file = grant->file;
    int fd = grant->fd;
    file_begin_write(file);
    store_leave(store);
    return file_write(&grants->files, file, handle, fd, data, size, offset);
}
