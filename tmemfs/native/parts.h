/* What the files of the store share. */

#ifndef TMEMFS_PARTS_H
#define TMEMFS_PARTS_H

#include "store.h"

#define PAGE 4096u
#define FEWEST_BUCKETS 64u
/* What a row is charged with: as in tmemfs/pages/log.py, so that the same pages fit into the same
   budget. */
#define ROW_BYTES 13

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

/* store.c: what the tables are charged with, at most, for so many pages of an object in a row. */

uint64_t most_charged(uint64_t pages);

/* segments.c: let a page more (1) or less (-1) live at a place in the arena. */

void segment_count(struct store *store, uint64_t location, int sign);

/* stage.c: whether a location is there. */

int is_staged(const struct store *store, uint64_t location);

/* puts.c: the head of a table for a payload of that size, NULL without one; and what is charged by
   then, since it was *before*, was charged when it was lent. */

struct segment *head_for(const struct store *store, const struct table *table, uint32_t size);
void take_from_loan(struct header *head, uint64_t before);

/* slab.c: memory for *size* bytes, NULL without, and its end. */

void *slab_allocate(struct store *store, size_t size);
void slab_release(struct store *store, void *place);

#endif
