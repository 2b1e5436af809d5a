/* The stage: pages of swap as they came, which are compressed later.

   Whoever swaps out waits until a write is acknowledged, and to copy a page takes a tenth of what it
   takes to compress it. The pages are found where they are, like any others, and are memory that the
   mount has beside its budget. */

#include "parts.h"

#include <string.h>

int is_staged(const struct store *store, uint64_t location)
{
    return location >> SIZE_BITS >= store->tables && (location & SIZE_MASK) == STAGE_PAGE;
}

void stage_begin(struct store *store)
{
    if (store->head->stage_pages)
        return;
    memset(at(store, store->tables), 0, STAGE_BYTES);
    memset(at(store, store->head->staged_array), 0, STAGE_PAGES * sizeof(struct staged));
    store->head->stage_pages = STAGE_PAGES;
}

static uint64_t place_of(const struct store *store, uint64_t number)
{
    return (number - store->head->stage_start) % STAGE_PAGES;
}

static struct staged *staged(const struct store *store, uint64_t number)
{
    return (struct staged *)at(store, store->head->staged_array) + place_of(store, number);
}

static uint64_t location_of(const struct store *store, uint64_t number)
{
    return (store->tables + place_of(store, number) * STAGE_PAGE) << SIZE_BITS | STAGE_PAGE;
}

static int is_zeros(const char *page)
{
    return !page[0] && !memcmp(page, page + 1, STAGE_PAGE - 1);
}

/* How many pages from the first on are zeros, or are not, with *zeros* 0; not beyond a node. */
static unsigned alike(const char *data, unsigned count, uint64_t index, int zeros)
{
    unsigned found = 0, most = (unsigned)(NODE_PAGES - index % NODE_PAGES);
    while (found < count && found < most && is_zeros(data + found * STAGE_PAGE) == zeros)
        found++;
    return found;
}

/* Put a run of pages of one node; 0 without memory for the tables. */
static int put(struct store *store, struct table *table, const struct wide *id, uint64_t index,
               const char *data, unsigned count)
{
    struct header *head = store->head;
    uint64_t locations[NODE_PAGES], before = table->pages;
    uint32_t number = (uint32_t)(table - head->tables);
    struct object *object = store_obtain(store, number, id);
    for (unsigned i = 0; i < count; i++) {
        uint64_t slot = head->stage_next + i;
        locations[i] = location_of(store, slot);
        memcpy(at(store, locations[i] >> SIZE_BITS), data + i * STAGE_PAGE, STAGE_PAGE);
        *staged(store, slot) = (struct staged){*id, number, (uint32_t)(index + i)};
    }
    if (object == NULL || store_put(store, object, index, locations, count))
        return 0;
    head->stage_next += count;
    table->puts += count;
    table->replaced += count - (table->pages - before);
    return 1;
}

int stage_take(struct store *store, uint32_t number, const struct wide *id, uint64_t index,
               const char *data, unsigned count)
{
    struct header *head = store->head;
    uint64_t before = head->charged, room = head->stage_pages - (head->stage_next - head->stage_first);
    unsigned done = 0, part = 0;
    if (room < count || !store_may_take(store, count))
        return 0;
    if (room == head->stage_pages) /* in memory that was used of late */
        head->stage_start = head->stage_next;
    for (; done < count; done += part) {
        const char *page = data + done * STAGE_PAGE;
        part = alike(page, count - done, index + done, 1);
        if (part) {
            store_flush(store, number, id, index + done, index + done + part);
            continue;
        }
        part = alike(page, count - done, index + done, 0);
        if (!put(store, &head->tables[number], id, index + done, page, part))
            break;
    }
    take_from_loan(head, before);
    return done == count;
}

/* -- out of it -------------------------------------------------------------------------------- */

/* The object of a page that is still where it was put; NULL where it is not. */
static struct object *owner(const struct store *store, uint64_t number)
{
    const struct staged *page = staged(store, number);
    struct object *object = store_find(store, page->table, &page->id);
    return object != NULL && store_location(store, object, page->index) == location_of(store, number)
               ? object
               : NULL;
}

uint32_t stage_next_table(const struct store *store)
{
    const struct header *head = store->head;
    return head->stage_first < head->stage_next ? staged(store, head->stage_first)->table : 0;
}

void stage_next(const struct store *store, struct from_stage *pages)
{
    uint64_t left = store->head->stage_next - store->head->stage_first;
    pages->first = store->head->stage_first;
    pages->count = left < AT_ONCE_FROM_STAGE ? (unsigned)left : AT_ONCE_FROM_STAGE;
    for (unsigned i = 0; i < pages->count; i++) {
        uint64_t number = pages->first + i, place = location_of(store, number) >> SIZE_BITS;
        pages->page[i] = owner(store, number) != NULL ? at(store, place) : NULL;
    }
}

static int move(struct store *store, uint64_t number, const char *payload, uint32_t size)
{
    const struct staged *page = staged(store, number);
    struct object *object = owner(store, number);
    if (object == NULL)
        return NOTHING;
    struct segment *head = head_for(store, &store->head->tables[page->table], size);
    uint64_t location;
    if (head == NULL || !segment_fits(store, head, &size, 1))
        return size == STAGE_PAGE ? ROOM_FOR_RAW : ROOM_FOR_COMPRESSED;
    uint32_t segment = (uint32_t)(head - store_segment(store, 0));
    if (store->head->lent < ROW_BYTES ||
        segment_append(store, segment, object->number, page->index, &payload, &size, 1, &location))
        return LOAN;
    store_relocate(store, object, page->index, location);
    return NOTHING;
}

int stage_move(struct store *store, const struct from_stage *pages, const struct payloads *payloads)
{
    struct header *head = store->head;
    uint64_t before = head->charged;
    int missing = NOTHING;
    for (unsigned i = 0; i < pages->count && !missing; i++) {
        if (pages->page[i] != NULL)
            missing = move(store, pages->first + i, payloads->bytes[i], payloads->size[i]);
        head->stage_first += !missing;
        take_from_loan(head, before);
        before = head->charged;
    }
    return missing;
}
