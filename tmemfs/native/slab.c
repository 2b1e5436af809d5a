/* Memory for nodes: slabs of pieces of one size, which go back to the system when they are empty. */

#define _GNU_SOURCE
#include "parts.h"

#include <fcntl.h>

static unsigned class_of(size_t size)
{
    return (unsigned)((size + SLAB_STEP - 1) / SLAB_STEP);
}

static void link_slab(struct store *store, struct slab *slab)
{
    uint64_t *first = &store->head->roomy[slab->size / SLAB_STEP], offset = offset_of(store, slab);
    slab->before = 0;
    slab->after = *first;
    if (*first)
        ((struct slab *)at(store, *first))->before = offset;
    *first = offset;
}

static void unlink_slab(struct store *store, struct slab *slab)
{
    if (slab->after)
        ((struct slab *)at(store, slab->after))->before = slab->before;
    if (slab->before)
        ((struct slab *)at(store, slab->before))->after = slab->after;
    else
        store->head->roomy[slab->size / SLAB_STEP] = slab->after;
}

static struct slab *new_slab(struct store *store, unsigned class)
{
    struct header *head = store->head;
    uint32_t *free_slabs = at(store, head->free_slabs);
    uint64_t number;
    if (head->free_slab_count)
        number = free_slabs[--head->free_slab_count];
    else if (head->slab_count < head->slab_most)
        number = head->slab_count++;
    else
        return NULL;
    struct slab *slab = at(store, head->slab_array + number * SLAB_BYTES);
    slab->size = class * SLAB_STEP;
    slab->used = 0;
    slab->free = 0;
    slab->fresh = offset_of(store, slab) + SLAB_STEP;
    link_slab(store, slab);
    return slab;
}

static int is_full(const struct store *store, const struct slab *slab)
{
    return !slab->free && slab->fresh + slab->size > offset_of(store, slab) + SLAB_BYTES;
}

void *slab_allocate(struct store *store, size_t size)
{
    unsigned class = class_of(size);
    uint64_t roomy = store->head->roomy[class], *piece;
    struct slab *slab = roomy ? at(store, roomy) : new_slab(store, class);
    if (slab == NULL)
        return NULL;
    if (slab->free) {
        piece = at(store, slab->free);
        slab->free = *piece;
    } else {
        piece = at(store, slab->fresh);
        slab->fresh += slab->size;
    }
    slab->used++;
    if (is_full(store, slab))
        unlink_slab(store, slab);
    return piece;
}

void slab_release(struct store *store, void *place)
{
    struct header *head = store->head;
    uint64_t offset = offset_of(store, place), *piece = place;
    struct slab *slab = at(store, offset & ~(uint64_t)(SLAB_BYTES - 1));
    if (is_full(store, slab))
        link_slab(store, slab);
    *piece = slab->free;
    slab->free = offset;
    if (--slab->used)
        return;
    unlink_slab(store, slab);
    uint64_t start = offset_of(store, slab), number = (start - head->slab_array) / SLAB_BYTES;
    ((uint32_t *)at(store, head->free_slabs))[head->free_slab_count++] = (uint32_t)number;
    if (number >= head->kept)
        /* Where the system does not take it back it stays, and the next slab has it. */
        (void)!fallocate(store->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)start,
                         SLAB_BYTES);
}

static void touch(const struct store *store, uint64_t start, uint64_t size)
{
    for (uint64_t page = start / PAGE * PAGE; page < start + size; page += PAGE) {
        volatile char *first = at(store, page);
        *first = *first; /* memory that is only read is not there yet */
    }
}

void store_keep(struct store *store, uint64_t size, uint64_t segments)
{
    struct header *head = store->head;
    uint64_t slabs = size / SLAB_BYTES;
    uint64_t nodes = size / (sizeof(struct node) + NODE_PAGES * sizeof(uint64_t));
    head->kept = slabs < head->slab_most ? slabs : head->slab_most;
    segments = segments < head->segments ? segments : head->segments;
    nodes = nodes < head->nodes.most ? nodes : head->nodes.most;
    touch(store, head->slab_array, head->kept * SLAB_BYTES);
    touch(store, head->segment_array, segments * sizeof(struct segment));
    touch(store, head->nodes.buckets, nodes * sizeof(uint64_t));
}
