/* Pages that are to be had of Python alone, for as long as they change: see `Table.hide`. */

#include "store.h"

#include <stdlib.h>
#include <string.h>

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
