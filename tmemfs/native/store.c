#include "parts.h"

#include <stdlib.h>
#include <string.h>

#include "../pages/codec.h"

/* What the tables are charged with: as the Python ones are, so that the same pages fit into the same
   budget. It is more than they take here. */
#define OBJECT_OVERHEAD 440
#define NODE_OVERHEAD 160
#define SLOT_BYTES 8
#define MAPS 2u   /* words of marks */
#define GROWTH 4u /* nodes grow by so many pages at a time */

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
    hash_insert(store, OBJECTS, (uint64_t)object->number + 1);
}

/* Its last page has gone. */
static void leave(struct store *store, struct object *object)
{
    struct header *head = store->head;
    hash_remove(store, OBJECTS, (uint64_t)object->number + 1);
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

uint64_t most_charged(uint64_t pages)
{
    uint64_t node = NODE_OVERHEAD + SLOT_BYTES * (MAPS + NODE_PAGES);
    return OBJECT_OVERHEAD + (pages / NODE_PAGES + 2) * node + pages * ROW_BYTES;
}

static struct node *new_node(struct store *store, struct object *object, uint64_t number,
                             uint32_t length)
{
    struct node *node = slab_allocate(store, node_size(length));
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
    hash_insert(store, NODES, offset);
}

static void unlink_node(struct store *store, struct object *object, struct node *node)
{
    hash_remove(store, NODES, offset_of(store, node));
    if (node->after)
        ((struct node *)at(store, node->after))->before = node->before;
    if (node->before)
        ((struct node *)at(store, node->before))->after = node->after;
    else
        object->nodes = node->after;
    slab_release(store, node);
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

static int is_in_segment(const struct store *store, uint64_t location)
{
    return location && !is_outside(location) && !is_staged(store, location);
}

/* Let slot *low* of a node be *location*, and all figures agree. */
static void set(struct store *store, struct object *object, struct node *node, unsigned low,
                uint64_t location)
{
    struct table *table = &store->head->tables[object->table];
    uint64_t before = node->at[low];
    node->at[low] = location;
    if (is_in_segment(store, location) && !store->clears)
        segment_count(store, location, 1);
    if (is_in_segment(store, before) && !store->clears)
        segment_count(store, before, -1);
    object->pages += (uint32_t)((location != 0) - (before != 0));
    table->pages += (uint64_t)((location != 0) - (before != 0));
    table->overflowed += (uint64_t)(is_outside(location) - is_outside(before));
    table->staged += (uint64_t)(is_staged(store, location) - is_staged(store, before));
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
        set(store, object, node, low + i, locations[i]);
    node->used &= ~store_marks(low, count);
    node->again &= ~store_marks(low, count);
    return 0;
}

void store_relocate(struct store *store, struct object *object, uint64_t index, uint64_t location)
{
    struct node *node = store_node(store, object, index >> NODE_BITS);
    set(store, object, node, (unsigned)(index % NODE_PAGES), location);
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
        set(store, object, node, (unsigned)low, 0);
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
    for (unsigned kind = 0; kind < HEADS; kind++)
        store_show_head(store, table, kind, 0);
    store->head->tables[table].in_use = 0;
}

void store_clear(struct store *store, uint32_t table)
{
    store->clears = 1;
    for (uint64_t number = 0; number < store->head->object_count; number++) {
        struct object *object = store_object(store, (uint32_t)number);
        while (object->table == table && object->pages) {
            const struct node *node = store_first(store, object);
            uint64_t first = (uint64_t)node->number << NODE_BITS;
            store_remove(store, object, first, first + NODE_PAGES);
        }
    }
    store->clears = 0;
}

int store_page(const struct store *store, uint64_t location, char *page, unsigned page_size)
{
    uint64_t start = location >> SIZE_BITS, size = location & SIZE_MASK;
    return location && size <= page_size && start + size <= store->tables + STAGE_BYTES &&
           decode_page(store->base + start, (unsigned)size, page, page_size);
}

/* -- beginning and end ----------------------------------------------------------------------- */

static uint64_t rounded(uint64_t size, uint64_t unit)
{
    return (size + unit - 1) / unit * unit;
}

/* Lay out the tables for a capacity; the header is filled in where there is one. There can be no more
   objects and nodes than what they are charged with fits into, and nodes take less than that. */
static uint64_t lay_out(uint64_t capacity, uint64_t segment_size, uint64_t start,
                        struct header *head)
{
    uint64_t smallest = NODE_OVERHEAD + SLOT_BYTES * (MAPS + GROWTH + 1);
    uint64_t nodes = capacity / smallest + 1, place = start + STAGE_BYTES;
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
    h->segment_bits = 0;
    while (UINT64_C(1) << h->segment_bits < segment_size)
        h->segment_bits++;
    h->segments = (capacity >> h->segment_bits) + 1;
    h->segment_array = place;
    place += rounded(h->segments * sizeof(struct segment), PAGE);
    h->staged_array = place;
    place += rounded(STAGE_PAGES * sizeof(struct staged), PAGE);
    h->free_slabs = place;
    place = rounded(place + slabs * sizeof(uint32_t), SLAB_BYTES);
    h->slab_array = place;
    h->slab_most = slabs;
    return place + slabs * SLAB_BYTES - start;
}

uint64_t store_tables_size(uint64_t capacity, uint64_t segment_size)
{
    return lay_out(capacity, segment_size, capacity, NULL);
}

int store_begin(struct store *store, char *base, uint64_t size, uint64_t tables,
                uint64_t segment_size, int fd)
{
    pthread_rwlockattr_t kind;
    store->base = base;
    store->size = size;
    store->tables = size - tables;
    store->head = at(store, store->tables + STAGE_BYTES);
    store->fd = fd;
    store->clears = 0;
    memset(store->hidden, 0, sizeof store->hidden);
    pthread_rwlockattr_init(&kind);
#ifdef __GLIBC__
    /* Else those who read without end would keep out the one who changes something. */
    pthread_rwlockattr_setkind_np(&kind, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
#endif
    int failed = pthread_rwlock_init(&store->lock, &kind);
    pthread_rwlockattr_destroy(&kind);
    if (!failed && (failed = turn_begin(&store->turn)))
        pthread_rwlock_destroy(&store->lock);
    if (!failed)
        lay_out(store->tables, segment_size, store->tables, store->head);
    return failed;
}

void store_end(struct store *store)
{
    for (uint32_t number = 0; number < MOST_TABLES; number++)
        store_forget_table(store, number);
    turn_end(&store->turn);
    pthread_rwlock_destroy(&store->lock);
}
