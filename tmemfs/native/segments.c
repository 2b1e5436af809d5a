/* What each segment of the arena has: how full it is, what lives in it, and a row for each append. */

#include "parts.h"

#include <string.h>

/* As in tmemfs/pages/log.py. */
#define BYTES_PER_ROW 32u

struct segment *store_segment(const struct store *store, uint64_t number)
{
    return (struct segment *)at(store, store->head->segment_array) + number;
}

static struct segment *segment_of(const struct store *store, uint64_t location)
{
    return store_segment(store, location >> SIZE_BITS >> store->head->segment_bits);
}

static uint64_t bytes_of_segment(const struct store *store)
{
    return UINT64_C(1) << store->head->segment_bits;
}

static void charge(struct store *store, int64_t rows)
{
    store->head->charged += (uint64_t)(rows * ROW_BYTES);
}

void segment_begin(struct store *store, uint64_t number, uint32_t page_size)
{
    struct segment *segment = store_segment(store, number);
    segment_end(store, number);
    segment->page_size = page_size;
}

void segment_end(struct store *store, uint64_t number)
{
    struct segment *segment = store_segment(store, number);
    for (unsigned kind = 0; kind < HEADS; kind++)
        if (store->head->tables[segment->head_of].heads[kind] == number)
            store_show_head(store, segment->head_of, kind, 0);
    for (uint64_t offset = segment->first, next; offset; offset = next) {
        next = ((struct rows *)at(store, offset))->next;
        slab_release(store, at(store, offset));
    }
    charge(store, -(int64_t)segment->rows);
    uint32_t is_noted = segment->is_noted, next_empty = segment->next_empty;
    memset(segment, 0, sizeof *segment);
    segment->is_noted = is_noted;
    segment->next_empty = next_empty;
}

uint64_t segment_dead(const struct store *store, const struct segment *segment)
{
    if (!segment->pages)
        return bytes_of_segment(store);
    return segment->position - segment->bytes +
           (uint64_t)(segment->rows - segment->pages) * BYTES_PER_ROW;
}

uint64_t segment_rows_left(const struct store *store, const struct segment *segment)
{
    return bytes_of_segment(store) / BYTES_PER_ROW - segment->rows;
}

unsigned segment_fits(const struct store *store, const struct segment *segment,
                      const uint32_t *sizes, unsigned count)
{
    uint64_t room = bytes_of_segment(store) - segment->position;
    uint64_t rows = segment_rows_left(store, segment);
    unsigned fit = 0;
    for (; fit < count && fit < rows && sizes[fit] <= room; fit++)
        room -= sizes[fit];
    return fit;
}

/* Have room for *count* more rows; -1 without memory, and none is lost. */
static int extend_rows(struct store *store, struct segment *segment, unsigned count)
{
    uint64_t room = segment->chunks * ROWS_OF_A_CHUNK - segment->rows;
    while (room < count) {
        struct rows *rows = slab_allocate(store, sizeof *rows);
        if (rows == NULL)
            return -1;
        rows->next = 0;
        if (segment->first)
            ((struct rows *)at(store, segment->last))->next = offset_of(store, rows);
        else
            segment->first = offset_of(store, rows);
        if (room == 0 && segment->rows == segment->chunks * ROWS_OF_A_CHUNK)
            segment->filling = offset_of(store, rows);
        segment->last = offset_of(store, rows);
        segment->chunks++;
        room += ROWS_OF_A_CHUNK;
    }
    return 0;
}

static void add_row(const struct store *store, struct segment *segment, struct row row)
{
    struct rows *rows = at(store, segment->filling);
    rows->row[segment->rows++ % ROWS_OF_A_CHUNK] = row;
    if (segment->rows % ROWS_OF_A_CHUNK == 0)
        segment->filling = rows->next;
}

int segment_append(struct store *store, uint64_t number, uint32_t owner, uint32_t index,
                   const char *const *payloads, const uint32_t *sizes, unsigned count,
                   uint64_t *locations)
{
    struct segment *segment = store_segment(store, number);
    uint64_t start = number << store->head->segment_bits;
    if (extend_rows(store, segment, count))
        return -1;
    for (unsigned i = 0; i < count; i++) {
        /* What takes nothing is at the start: where a full segment ends, another begins. */
        uint64_t offset = sizes[i] ? segment->position : 0;
        memcpy(store->base + start + offset, payloads[i], sizes[i]);
        add_row(store, segment, (struct row){owner, index + i, (uint32_t)offset});
        segment->position += sizes[i];
        locations[i] = (start + offset) << SIZE_BITS | sizes[i];
    }
    charge(store, count);
    return 0;
}

/* Let one page more, or with *sign* -1 one less, live where *location* says. */
void segment_count(struct store *store, uint64_t location, int sign)
{
    struct segment *segment = segment_of(store, location);
    uint32_t size = (uint32_t)(location & SIZE_MASK), one = (uint32_t)sign;
    segment->pages += one;
    segment->bytes += (uint64_t)((int64_t)sign * (int64_t)size);
    if (size <= 8)
        segment->same += one;
    if (size == segment->page_size)
        segment->huge += one;
    if (sign < 0 && !segment->pages && !segment->is_noted) {
        segment->is_noted = 1;
        segment->next_empty = store->head->empty;
        store->head->empty = (uint32_t)(segment - store_segment(store, 0));
    }
}

uint32_t segment_take_empty(struct store *store)
{
    while (store->head->empty) {
        uint32_t number = store->head->empty;
        struct segment *segment = store_segment(store, number);
        store->head->empty = segment->next_empty;
        segment->is_noted = 0;
        /* Others may live there since. */
        if (!segment->pages)
            return number;
    }
    return 0;
}
