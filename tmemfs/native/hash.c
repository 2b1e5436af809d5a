/* Linear hashing: a table grows and shrinks by one bucket at a time. */

#include "parts.h"

static struct hash *hash_of(const struct store *store, enum kind kind)
{
    return kind == OBJECTS ? &store->head->objects : &store->head->nodes;
}

static uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= UINT64_C(0xbf58476d1ce4e5b9);
    x ^= x >> 27;
    x *= UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

uint64_t object_key(uint32_t table, const struct wide *id)
{
    return mix(id->part[0] ^ mix(id->part[1] ^ mix(id->part[2] ^ mix(table))));
}

uint64_t node_key(uint32_t object, uint64_t number)
{
    return mix((uint64_t)object << 32 | number);
}

static uint64_t key_of(const struct store *store, enum kind kind, uint64_t reference)
{
    if (kind == OBJECTS) {
        const struct object *object = store_object(store, (uint32_t)(reference - 1));
        return object_key(object->table, &object->id);
    }
    const struct node *node = at(store, reference);
    return node_key(node->object, node->number);
}

static uint64_t *next_of(const struct store *store, enum kind kind, uint64_t reference)
{
    if (kind == OBJECTS)
        return &store_object(store, (uint32_t)(reference - 1))->next;
    return &((struct node *)at(store, reference))->next;
}

/* The largest power of two that is not above *size*. */
static uint64_t power_within(uint64_t size)
{
    return UINT64_C(1) << (63 - __builtin_clzll(size));
}

uint64_t *bucket_of(const struct store *store, const struct hash *hash, uint64_t key)
{
    uint64_t power = power_within(hash->size), place = key & (2 * power - 1);
    if (place >= hash->size) /* that half has not been split yet */
        place &= power - 1;
    return (uint64_t *)at(store, hash->buckets) + place;
}

/* Put all that is chained from *reference* on into the buckets where it belongs by now. */
static void place_again(struct store *store, enum kind kind, uint64_t reference)
{
    while (reference) {
        uint64_t *next = next_of(store, kind, reference), following = *next;
        uint64_t *bucket =
            bucket_of(store, hash_of(store, kind), key_of(store, kind, reference));
        *next = *bucket;
        *bucket = reference;
        reference = following;
    }
}

void hash_insert(struct store *store, enum kind kind, uint64_t reference)
{
    struct hash *hash = hash_of(store, kind);
    uint64_t *buckets = at(store, hash->buckets);
    *next_of(store, kind, reference) = 0;
    place_again(store, kind, reference);
    if (++hash->count > hash->size && hash->size < hash->most) {
        uint64_t split = hash->size - power_within(hash->size), chain = buckets[split];
        buckets[hash->size++] = buckets[split] = 0;
        place_again(store, kind, chain);
    }
}

void hash_remove(struct store *store, enum kind kind, uint64_t reference)
{
    struct hash *hash = hash_of(store, kind);
    uint64_t *buckets = at(store, hash->buckets);
    uint64_t *link = bucket_of(store, hash, key_of(store, kind, reference));
    while (*link != reference)
        link = next_of(store, kind, *link);
    *link = *next_of(store, kind, reference);
    if (--hash->count < hash->size / 2 && hash->size > FEWEST_BUCKETS) {
        uint64_t chain = buckets[--hash->size];
        place_again(store, kind, chain);
    }
}
