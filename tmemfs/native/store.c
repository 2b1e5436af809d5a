#define _GNU_SOURCE
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "codec.h"

/* What the tables are charged with: as the Python ones are, so that the same pages fit into the same
   budget. It is more than they take here. */
#define OBJECT_OVERHEAD 440
#define NODE_OVERHEAD 160
#define SLOT_BYTES 8
#define MAPS 2u   /* words of marks */
#define GROWTH 4u /* nodes grow by so many pages at a time */

#define FEWEST_BUCKETS 64u
#define PAGE 4096u

static void *at(const struct store *store, uint64_t offset)
{
    return store->base + offset;
}

static uint64_t offset_of(const struct store *store, const void *place)
{
    return (uint64_t)((const char *)place - store->base);
}

/* -- the lock -------------------------------------------------------------------------------- */

void store_share(struct store *store)
{
    pthread_rwlock_rdlock(&store->lock);
}

void store_alone(struct store *store)
{
    pthread_rwlock_wrlock(&store->lock);
}

void store_leave(struct store *store)
{
    pthread_rwlock_unlock(&store->lock);
}

/* -- hash tables ----------------------------------------------------------------------------- */

enum kind { OBJECTS, NODES };

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

static uint64_t object_key(uint32_t table, const struct wide *id)
{
    return mix(id->part[0] ^ mix(id->part[1] ^ mix(id->part[2] ^ mix(table))));
}

static uint64_t node_key(uint32_t object, uint64_t number)
{
    return mix((uint64_t)object << 32 | number);
}

/* What is in a bucket is a reference: the number of an object and one, or where a node is. */
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

static uint64_t *bucket_of(const struct store *store, const struct hash *hash, uint64_t key)
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

static void insert(struct store *store, enum kind kind, uint64_t reference)
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

static void take_out(struct store *store, enum kind kind, uint64_t reference)
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

/* -- memory for nodes ------------------------------------------------------------------------ */

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

/* Memory for *size* bytes; NULL without. */
static void *allocate(struct store *store, size_t size)
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

static void release(struct store *store, void *place)
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

void store_keep(struct store *store, uint64_t size)
{
    struct header *head = store->head;
    uint64_t slabs = size / SLAB_BYTES;
    head->kept = slabs < head->slab_most ? slabs : head->slab_most;
    for (uint64_t page = 0; page < head->kept * SLAB_BYTES; page += PAGE) {
        volatile char *first = at(store, head->slab_array + page);
        *first = *first; /* memory that is only read is not there yet */
    }
}

/* -- objects --------------------------------------------------------------------------------- */

struct object *store_object(const struct store *store, uint32_t number)
{
    return (struct object *)at(store, store->head->object_array) + number;
}

static int is_id(const struct wide *one, const struct wide *other)
{
    return memcmp(one, other, sizeof *one) == 0;
}

struct object *store_find(const struct store *store, uint32_t table, const struct wide *id)
{
    uint64_t reference = *bucket_of(store, &store->head->objects, object_key(table, id));
    while (reference) {
        struct object *object = store_object(store, (uint32_t)(reference - 1));
        if (object->table == table && is_id(&object->id, id))
            return object;
        reference = object->next;
    }
    return NULL;
}

struct object *store_obtain(struct store *store, uint32_t table, const struct wide *id)
{
    struct header *head = store->head;
    struct object *object = store_find(store, table, id);
    if (object != NULL)
        return object;
    if (!head->pending) {
        if (head->free_object) {
            head->pending = head->free_object;
            head->free_object = store_object(store, (uint32_t)(head->pending - 1))->next;
        } else if (head->object_count < head->object_most) {
            head->pending = ++head->object_count;
        } else {
            return NULL;
        }
    }
    object = store_object(store, (uint32_t)(head->pending - 1));
    object->id = *id;
    memset(&object->stamp, 0, sizeof object->stamp);
    object->table = table;
    object->number = (uint32_t)(head->pending - 1);
    object->incarnation++;
    object->nodes = object->pages = 0;
    return object;
}

/* It has its first page. */
static void join(struct store *store, struct object *object)
{
    store->head->pending = 0;
    store->head->tables[object->table].objects++;
    insert(store, OBJECTS, (uint64_t)object->number + 1);
}

/* Its last page has gone. */
static void leave(struct store *store, struct object *object)
{
    struct header *head = store->head;
    take_out(store, OBJECTS, (uint64_t)object->number + 1);
    head->tables[object->table].objects--;
    object->table = 0;
    object->incarnation++;
    object->next = head->free_object;
    head->free_object = (uint64_t)object->number + 1;
}

/* -- nodes ----------------------------------------------------------------------------------- */

struct node *store_node(const struct store *store, const struct object *object, uint64_t number)
{
    uint64_t reference =
        *bucket_of(store, &store->head->nodes, node_key(object->number, number));
    while (reference) {
        struct node *node = at(store, reference);
        if (node->object == object->number && node->number == number)
            return node;
        reference = node->next;
    }
    return NULL;
}

struct node *store_first(const struct store *store, const struct object *object)
{
    return object->nodes ? at(store, object->nodes) : NULL;
}

struct node *store_next(const struct store *store, const struct node *node)
{
    return node->after ? at(store, node->after) : NULL;
}

static uint64_t slot(const struct node *node, uint64_t index)
{
    uint64_t low = index % NODE_PAGES;
    return node != NULL && low < node->length ? node->at[low] : 0;
}

uint64_t store_location(const struct store *store, const struct object *object, uint64_t index)
{
    return slot(store_node(store, object, index >> NODE_BITS), index);
}

uint64_t store_marks(unsigned low, unsigned length)
{
    return (length < NODE_PAGES ? (UINT64_C(1) << length) - 1 : UINT64_MAX) << low;
}

void store_mark(struct node *node, uint64_t marks)
{
    /* Most uses are of pages that have both marks. */
    if ((__atomic_load_n(&node->again, __ATOMIC_RELAXED) & marks) == marks)
        return;
    uint64_t before = __atomic_fetch_or(&node->used, marks, __ATOMIC_RELAXED);
    __atomic_fetch_or(&node->again, before & marks, __ATOMIC_RELAXED);
}

static size_t node_size(uint32_t length)
{
    return sizeof(struct node) + length * sizeof(uint64_t);
}

static int64_t node_charge(const struct node *node)
{
    return NODE_OVERHEAD + SLOT_BYTES * (int64_t)(MAPS + node->length);
}

static struct node *new_node(struct store *store, struct object *object, uint64_t number,
                             uint32_t length)
{
    struct node *node = allocate(store, node_size(length));
    if (node == NULL)
        return NULL;
    memset(node, 0, node_size(length));
    node->object = object->number;
    node->number = (uint32_t)number;
    node->length = length;
    return node;
}

static void link_node(struct store *store, struct object *object, struct node *node)
{
    uint64_t offset = offset_of(store, node);
    node->before = 0;
    node->after = object->nodes;
    if (object->nodes)
        ((struct node *)at(store, object->nodes))->before = offset;
    object->nodes = offset;
    insert(store, NODES, offset);
}

static void unlink_node(struct store *store, struct object *object, struct node *node)
{
    take_out(store, NODES, offset_of(store, node));
    if (node->after)
        ((struct node *)at(store, node->after))->before = node->before;
    if (node->before)
        ((struct node *)at(store, node->before))->after = node->after;
    else
        object->nodes = node->after;
    release(store, node);
}

/* The node of that number, with *length* slots or more: made, or made longer. NULL without room. */
static struct node *node_of(struct store *store, struct object *object, uint64_t number,
                            uint32_t length)
{
    struct node *node = store_node(store, object, number), *longer;
    if (node != NULL && node->length >= length)
        return node;
    length = length + GROWTH < NODE_PAGES ? length + GROWTH : NODE_PAGES;
    longer = new_node(store, object, number, length);
    if (longer == NULL)
        return NULL;
    if (node != NULL) {
        longer->used = node->used;
        longer->again = node->again;
        memcpy(longer->at, node->at, node->length * sizeof *node->at);
        unlink_node(store, object, node);
    }
    link_node(store, object, longer);
    return longer;
}

static int is_outside(uint64_t location)
{
    return location && (location & SIZE_MASK) == OUTSIDE;
}

/* Let slot *low* of a node be *location*, and the table's figures agree. */
static void set(struct table *table, struct object *object, struct node *node, unsigned low,
                uint64_t location)
{
    uint64_t before = node->at[low];
    node->at[low] = location;
    object->pages += (uint32_t)((location != 0) - (before != 0));
    table->pages += (uint64_t)((location != 0) - (before != 0));
    table->overflowed += (uint64_t)(is_outside(location) - is_outside(before));
}

/* Let the tables be charged with so much more. */
static void charge(struct store *store, struct table *table, int64_t size)
{
    table->charged += (uint64_t)size;
    store->head->charged += (uint64_t)size;
}

int store_put(struct store *store, struct object *object, uint64_t index, const uint64_t *locations,
              unsigned count)
{
    struct table *table = &store->head->tables[object->table];
    unsigned low = (unsigned)(index % NODE_PAGES);
    const struct node *before = store_node(store, object, index >> NODE_BITS);
    int64_t charged = before != NULL ? node_charge(before) : 0;
    struct node *node = node_of(store, object, index >> NODE_BITS, low + count);
    if (node == NULL)
        return -1;
    charge(store, table, node_charge(node) - charged);
    if (!object->pages) {
        charge(store, table, OBJECT_OVERHEAD);
        join(store, object);
    }
    for (unsigned i = 0; i < count; i++)
        set(table, object, node, low + i, locations[i]);
    node->used &= ~store_marks(low, count);
    node->again &= ~store_marks(low, count);
    return 0;
}

static int is_empty(const struct node *node)
{
    for (unsigned i = 0; i < node->length; i++)
        if (node->at[i])
            return 0;
    return 1;
}

unsigned store_remove(struct store *store, struct object *object, uint64_t first, uint64_t last)
{
    struct table *table = &store->head->tables[object->table];
    struct node *node = store_node(store, object, first >> NODE_BITS);
    uint32_t pages = object->pages;
    if (node == NULL)
        return 0;
    for (uint64_t low = first % NODE_PAGES; low < node->length && first < last; low++, first++)
        set(table, object, node, (unsigned)low, 0);
    unsigned gone = pages - object->pages;
    if (gone && is_empty(node)) {
        charge(store, table, -node_charge(node));
        unlink_node(store, object, node);
    }
    if (gone && !object->pages) {
        charge(store, table, -OBJECT_OVERHEAD);
        leave(store, object);
    }
    return gone;
}

/* -- pages that are hidden -------------------------------------------------------------------- */

int store_watch(struct store *store, uint32_t table, uint64_t pages)
{
    struct hidden *hidden = &store->hidden[table];
    size_t size = (pages / 64 + 1) * sizeof *hidden->bits;
    free(hidden->bits);
    hidden->pages = 0;
    hidden->bits = malloc(size);
    if (hidden->bits == NULL)
        return -1;
    memset(hidden->bits, 0xff, size); /* to have the memory */
    memset(hidden->bits, 0, size);
    hidden->pages = pages;
    return 0;
}

void store_hide(struct store *store, uint32_t table, uint64_t first, uint64_t last, int hide)
{
    struct hidden *hidden = &store->hidden[table];
    for (uint64_t index = first; index < last && index < hidden->pages; index++) {
        uint64_t *word = &hidden->bits[index / 64], bit = UINT64_C(1) << (index % 64);
        if (hide)
            __atomic_fetch_or(word, bit, __ATOMIC_SEQ_CST);
        else
            __atomic_fetch_and(word, ~bit, __ATOMIC_SEQ_CST);
    }
}

int store_hides(const struct store *store, uint32_t table, uint64_t first, uint64_t last)
{
    const struct hidden *hidden = &store->hidden[table];
    for (uint64_t index = first; index < last && index < hidden->pages; index++)
        if (__atomic_load_n(&hidden->bits[index / 64], __ATOMIC_SEQ_CST) >> (index % 64) & 1)
            return 1;
    return 0;
}

/* -- tables and pages ------------------------------------------------------------------------ */

uint32_t store_new_table(struct store *store)
{
    struct table *tables = store->head->tables;
    for (uint32_t number = 1; number < MOST_TABLES; number++)
        if (!tables[number].in_use) {
            tables[number] = (struct table){.in_use = 1};
            return number;
        }
    return 0;
}

void store_forget_table(struct store *store, uint32_t table)
{
    free(store->hidden[table].bits);
    store->hidden[table] = (struct hidden){NULL, 0};
    store->head->tables[table].in_use = 0;
}

void store_clear(struct store *store, uint32_t table)
{
    for (uint64_t number = 0; number < store->head->object_count; number++) {
        struct object *object = store_object(store, (uint32_t)number);
        while (object->table == table && object->pages) {
            const struct node *node = store_first(store, object);
            uint64_t first = (uint64_t)node->number << NODE_BITS;
            store_remove(store, object, first, first + NODE_PAGES);
        }
    }
}

int store_page(const struct store *store, uint64_t location, char *page, unsigned page_size)
{
    uint64_t start = location >> SIZE_BITS, size = location & SIZE_MASK;
    return location && size <= page_size && start + size <= store->tables &&
           decode_page(store->base + start, (unsigned)size, page, page_size);
}

/* -- beginning and end ----------------------------------------------------------------------- */

static uint64_t rounded(uint64_t size, uint64_t unit)
{
    return (size + unit - 1) / unit * unit;
}

/* Lay out the tables for a capacity; the header is filled in where there is one. There can be no more
   objects and nodes than what they are charged with fits into, and nodes take less than that. */
static uint64_t lay_out(uint64_t capacity, uint64_t start, struct header *head)
{
    uint64_t smallest = NODE_OVERHEAD + SLOT_BYTES * (MAPS + GROWTH + 1);
    uint64_t nodes = capacity / smallest + 1, place = start;
    uint64_t objects = capacity / (OBJECT_OVERHEAD + smallest) + 1;
    uint64_t slabs = capacity / SLAB_BYTES + SLAB_CLASSES;
    struct header none, *h = head != NULL ? head : &none;
    objects = objects < NO_OBJECT ? objects : NO_OBJECT;
    place += rounded(sizeof *h, PAGE);
    h->object_array = place;
    h->object_most = objects;
    place += rounded(objects * sizeof(struct object), PAGE);
    objects = objects > FEWEST_BUCKETS ? objects : FEWEST_BUCKETS;
    h->objects = (struct hash){.buckets = place, .most = objects, .size = FEWEST_BUCKETS};
    place += rounded(objects * sizeof(uint64_t), PAGE);
    nodes = nodes > FEWEST_BUCKETS ? nodes : FEWEST_BUCKETS;
    h->nodes = (struct hash){.buckets = place, .most = nodes, .size = FEWEST_BUCKETS};
    place += rounded(nodes * sizeof(uint64_t), PAGE);
    h->free_slabs = place;
    place = rounded(place + slabs * sizeof(uint32_t), SLAB_BYTES);
    h->slab_array = place;
    h->slab_most = slabs;
    return place + slabs * SLAB_BYTES - start;
}

uint64_t store_tables_size(uint64_t capacity)
{
    return lay_out(capacity, capacity, NULL);
}

int store_begin(struct store *store, char *base, uint64_t size, uint64_t tables, int fd)
{
    pthread_rwlockattr_t kind;
    store->base = base;
    store->size = size;
    store->tables = size - tables;
    store->head = at(store, store->tables);
    store->fd = fd;
    memset(store->hidden, 0, sizeof store->hidden);
    pthread_rwlockattr_init(&kind);
#ifdef __GLIBC__
    /* Else those who read without end would keep out the one who changes something. */
    pthread_rwlockattr_setkind_np(&kind, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
#endif
    int failed = pthread_rwlock_init(&store->lock, &kind);
    pthread_rwlockattr_destroy(&kind);
    if (!failed)
        lay_out(store->tables, store->tables, store->head);
    return failed;
}

void store_end(struct store *store)
{
    for (uint32_t number = 0; number < MOST_TABLES; number++)
        store_forget_table(store, number);
    pthread_rwlock_destroy(&store->lock);
}
