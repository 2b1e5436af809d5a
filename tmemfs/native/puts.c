/* Puts and flushes by others than Python: into the segments that it has shown, and within what it has
   lent of the budget. What it would have to decide is left to it. */

#include "parts.h"

void store_show_head(struct store *store, uint32_t table, unsigned kind, uint32_t segment)
{
    struct table *shown = &store->head->tables[table];
    uint32_t *heads = shown->heads, before = heads[kind];
    heads[kind] = segment;
    if (before && before != heads[COMPRESSED] && before != heads[RAW])
        store_segment(store, before)->head_of = 0;
    if (segment) {
        store_segment(store, segment)->head_of = table;
        shown->page_size = store_segment(store, segment)->page_size;
    }
}

void store_lend(struct store *store, uint64_t bytes)
{
    store->head->charged += bytes - store->head->lent;
    store->head->lent = bytes;
}

int store_may_take(const struct store *store, uint64_t pages)
{
    return store->head->lent >= most_charged(pages);
}

void take_from_loan(struct header *head, uint64_t before)
{
    uint64_t grown = head->charged > before ? head->charged - before : 0;
    uint64_t part = grown < head->lent ? grown : head->lent;
    head->charged -= part;
    head->lent -= part;
}

static unsigned kind_of(const struct table *table, uint32_t size)
{
    return size == table->page_size ? RAW : COMPRESSED;
}

struct segment *head_for(const struct store *store, const struct table *table, uint32_t size)
{
    uint32_t number = table->heads[kind_of(table, size)];
    return number ? store_segment(store, number) : NULL;
}

/* Whether all of them have room in the heads. */
static int fits(const struct store *store, const struct table *table,
                const struct payloads *payloads)
{
    uint32_t sizes[HEADS][MOST_PUT];
    unsigned counts[HEADS] = {0, 0};
    int is_one = table->heads[RAW] == table->heads[COMPRESSED];
    if (!store_may_take(store, payloads->count))
        return 0;
    for (unsigned i = 0; i < payloads->count; i++) {
        unsigned kind = is_one ? COMPRESSED : kind_of(table, payloads->size[i]);
        sizes[kind][counts[kind]++] = payloads->size[i];
    }
    for (unsigned kind = 0; kind < HEADS; kind++) {
        const struct segment *head = store_segment(store, table->heads[kind]);
        if (counts[kind] && (!table->heads[kind] ||
                             segment_fits(store, head, sizes[kind], counts[kind]) < counts[kind]))
            return 0;
    }
    return 1;
}

/* How many pages from *first* on go the same way: to one node by one head, or nowhere. */
static unsigned alike(const struct store *store, const struct table *table, uint64_t index,
                      const struct payloads *payloads, unsigned first)
{
    const uint32_t *size = payloads->size;
    unsigned last = first + 1;
    while (last < payloads->count && !size[last] == !size[first] &&
           (!size[first] ||
            ((index + last) % NODE_PAGES &&
             head_for(store, table, size[last]) == head_for(store, table, size[first]))))
        last++;
    return last - first;
}

static uint64_t count_pages(const struct store *store, const struct object *object, uint64_t index,
                            unsigned count)
{
    uint64_t found = 0;
    for (unsigned i = 0; i < count; i++)
        found += store_location(store, object, index + i) != 0;
    return found;
}

/* Put pages of one node in one head; 0 without memory for their tables. */
static int put(struct store *store, struct table *table, const struct wide *id, uint64_t index,
               const struct payloads *payloads, unsigned first, unsigned count)
{
    uint64_t locations[MOST_PUT];
    const uint32_t *sizes = payloads->size + first;
    const struct segment *head = head_for(store, table, sizes[0]);
    uint32_t number = (uint32_t)(head - store_segment(store, 0));
    struct object *object = store_obtain(store, (uint32_t)(table - store->head->tables), id);
    if (object == NULL)
        return 0;
    uint64_t before = object->pages ? count_pages(store, object, index, count) : 0;
    if (segment_append(store, number, object->number, (uint32_t)index, payloads->bytes + first, sizes,
                       count, locations) ||
        store_put(store, object, index, locations, count))
        return 0;
    table->puts += count;
    table->replaced += before;
    return 1;
}

static void flush(struct store *store, struct table *table, const struct wide *id, uint64_t first,
                  uint64_t last)
{
    struct object *object = store_find(store, (uint32_t)(table - store->head->tables), id);
    while (object != NULL && object->pages && first < last) {
        uint64_t next = (first / NODE_PAGES + 1) * NODE_PAGES;
        table->flushed += store_remove(store, object, first, next < last ? next : last);
        first = next;
    }
}

int store_take(struct store *store, uint32_t number, const struct wide *id, uint64_t index,
               const struct payloads *payloads)
{
    struct table *table = &store->head->tables[number];
    uint64_t before = store->head->charged;
    unsigned done = 0;
    if (!fits(store, table, payloads))
        return 0;
    while (done < payloads->count) {
        unsigned count = alike(store, table, index, payloads, done);
        if (!payloads->size[done]) {
            table->flushs++;
            flush(store, table, id, index + done, index + done + count);
        } else if (!put(store, table, id, index + done, payloads, done, count)) {
            break;
        }
        done += count;
    }
    take_from_loan(store->head, before);
    return done == payloads->count;
}

void store_flush(struct store *store, uint32_t number, const struct wide *id, uint64_t first,
                 uint64_t last)
{
    struct table *table = &store->head->tables[number];
    table->flushs++;
    flush(store, table, id, first, last);
}
