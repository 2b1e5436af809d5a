/* What the files of the store share. */

#ifndef TMEMFS_PARTS_H
#define TMEMFS_PARTS_H

#include "store.h"

#define PAGE 4096u
#define FEWEST_BUCKETS 64u

static inline void *at(const struct store *store, uint64_t offset)
{
    return store->base + offset;
}

static inline uint64_t offset_of(const struct store *store, const void *place)
{
    return (uint64_t)((const char *)place - store->base);
}

/* hash.c: what is in a bucket is a reference: the number of an object and one, or where a node is. */

enum kind { OBJECTS, NODES };

uint64_t object_key(uint32_t table, const struct wide *id);
uint64_t node_key(uint32_t object, uint64_t number);
uint64_t *bucket_of(const struct store *store, const struct hash *hash, uint64_t key);
void hash_insert(struct store *store, enum kind kind, uint64_t reference);
void hash_remove(struct store *store, enum kind kind, uint64_t reference);

/* segments.c: let a page more (1) or less (-1) live at a place in the arena. */

void segment_count(struct store *store, uint64_t location, int sign);

/* slab.c: memory for *size* bytes, NULL without, and its end. */

void *slab_allocate(struct store *store, size_t size);
void slab_release(struct store *store, void *place);

#endif
