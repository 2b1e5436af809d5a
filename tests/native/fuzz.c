/* The store beside a plain array, with whatever is asked of it, and payloads that are damaged.

       fuzz SEEDS BYTES           inputs of so many random bytes, from seeds 0, 1, 2, ...

   or, linked with libFuzzer (-DLIBFUZZER), whatever inputs that finds. */

#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../tmemfs/pages/codec.h"
#include "../../tmemfs/native/store.h"
#include "check.h"

#define SEGMENT (UINT64_C(64) << 10)
#define ARENA (UINT64_C(1) << 20)
#define TABLES 2u
#define OBJECTS 3u
#define PAGES 200u /* of each object, near its start and near the end of all indices */
#define PAGE 4096u

/* What should be there. */
struct model {
    uint64_t at[PAGES];
    unsigned char uses[PAGES];
};

static struct model model[TABLES][OBJECTS];
#define SEGMENTS (ARENA / SEGMENT)

/* What should live in each segment, and be appended to it. */
static struct {
    uint64_t pages, bytes, same;
    uint64_t position;
    unsigned rows;
    struct row row[SEGMENT / 32];
} segments[SEGMENTS];
static struct store store;
static uint32_t tables[TABLES];

struct input {
    const uint8_t *bytes;
    size_t left;
};

static unsigned take(struct input *input)
{
    if (!input->left)
        return 0;
    input->left--;
    return *input->bytes++;
}

static unsigned take_below(struct input *input, unsigned limit)
{
    return (take(input) << 8 | take(input)) % limit;
}

static uint64_t index_of(unsigned page)
{
    return page < PAGES / 2 ? page : (UINT64_C(1) << 32) - PAGES + page;
}

static struct wide id_of(unsigned object)
{
    return (struct wide){{object, UINT64_MAX - object, object % 2}};
}

static struct object *find(unsigned table, unsigned object)
{
    struct wide id = id_of(object);
    return store_find(&store, tables[table], &id);
}

/* How many of the pages from *page* on are of the same node, up to *count*. */
static unsigned within(unsigned page, unsigned count)
{
    unsigned end = page < PAGES / 2 ? PAGES / 2 : PAGES;
    unsigned node = NODE_PAGES - (unsigned)(index_of(page) % NODE_PAGES);
    count = count < end - page ? count : end - page;
    return count < node ? count : node;
}

static void count_page(uint64_t location, int sign)
{
    uint64_t size = location & SIZE_MASK;
    if (!location || size == OUTSIDE)
        return;
    uint64_t number = location >> SIZE_BITS >> 16;
    segments[number].pages += (uint64_t)sign;
    segments[number].bytes += (uint64_t)sign * size;
    segments[number].same += (uint64_t)(size <= WORD ? sign : 0);
}

static void put(struct input *input, unsigned table, unsigned object)
{
    unsigned page = take_below(input, PAGES), count = within(page, 1 + take(input) % 70);
    struct wide id = id_of(object);
    struct object *found = store_obtain(&store, tables[table], &id);
    uint64_t locations[NODE_PAGES];
    CHECK(found != NULL);
    for (unsigned i = 0; i < count; i++) {
        uint64_t start = SEGMENT * (1 + take(input) % (SEGMENTS - 1));
        locations[i] = (start + take(input)) << SIZE_BITS | take(input);
        if (take(input) % 8 == 0)
            locations[i] |= OUTSIDE;
        count_page(locations[i], 1);
        count_page(model[table][object].at[page + i], -1);
        model[table][object].at[page + i] = locations[i];
        model[table][object].uses[page + i] = 0;
    }
    CHECK(store_put(&store, found, index_of(page), locations, count) == 0);
}

static void drop(struct input *input, unsigned table, unsigned object)
{
    unsigned page = take_below(input, PAGES), count = within(page, 1 + take(input) % 70), gone = 0;
    struct object *found = find(table, object);
    for (unsigned i = 0; i < count; i++) {
        count_page(model[table][object].at[page + i], -1);
        gone += model[table][object].at[page + i] != 0;
        model[table][object].at[page + i] = 0;
    }
    if (found == NULL)
        CHECK(gone == 0);
    else
        CHECK(store_remove(&store, found, index_of(page), index_of(page) + count) == gone);
}

static void use(struct input *input, unsigned table, unsigned object)
{
    unsigned page = take_below(input, PAGES), low = (unsigned)(index_of(page) % NODE_PAGES);
    struct object *found = find(table, object);
    struct node *node = found ? store_node(&store, found, index_of(page) >> NODE_BITS) : NULL;
    if (node == NULL || !model[table][object].at[page])
        return;
    store_mark(node, store_marks(low, 1));
    unsigned char *uses = &model[table][object].uses[page];
    *uses += *uses < 2;
}

/* Append to a segment, or begin it anew: only what its rows say, for pages are put elsewhere. */
static void append(struct input *input)
{
    static char bytes[512];
    uint64_t number = 1 + take(input) % (SEGMENTS - 1), locations[NODE_PAGES];
    unsigned count = 1 + take(input) % NODE_PAGES, owner = take(input), index = take(input);
    const char *payloads[NODE_PAGES];
    uint32_t sizes[NODE_PAGES];
    if (take(input) % 16 == 0 && !segments[number].pages) {
        segment_begin(&store, number, PAGE);
        segments[number].rows = 0;
        segments[number].position = 0;
    }
    for (unsigned i = 0; i < count; i++) {
        payloads[i] = bytes;
        sizes[i] = take(input) % 2 * take(input);
    }
    unsigned fit = segment_fits(&store, store_segment(&store, number), sizes, count);
    CHECK(fit <= count);
    CHECK(segment_append(&store, number, owner, index, payloads, sizes, fit, locations) == 0);
    for (unsigned i = 0; i < fit; i++) {
        uint64_t offset = sizes[i] ? segments[number].position : 0;
        CHECK(locations[i] == ((number * SEGMENT + offset) << SIZE_BITS | sizes[i]));
        segments[number].row[segments[number].rows++] =
            (struct row){owner, index + i, (uint32_t)offset};
        segments[number].position += sizes[i];
    }
    CHECK(segments[number].position <= SEGMENT && segments[number].rows <= SEGMENT / 32);
    if (fit < count)
        CHECK(segments[number].rows == SEGMENT / 32 ||
              segments[number].position + sizes[fit] > SEGMENT);
}

/* Returns how many rows there are. */
static uint64_t compare_segments(void)
{
    uint64_t rows = 0;
    for (uint64_t number = 1; number < SEGMENTS; number++) {
        const struct segment *segment = store_segment(&store, number);
        CHECK(segment->pages == segments[number].pages && segment->bytes == segments[number].bytes);
        CHECK(segment->same == segments[number].same && segment->rows == segments[number].rows);
        CHECK(segment->position == segments[number].position);
        uint64_t offset = segment->first;
        for (unsigned i = 0; i < segment->rows; i++) {
            const struct rows *chunk = (const void *)(store.base + offset);
            CHECK(memcmp(&chunk->row[i % ROWS_OF_A_CHUNK], &segments[number].row[i],
                         sizeof(struct row)) == 0);
            if (i % ROWS_OF_A_CHUNK == ROWS_OF_A_CHUNK - 1)
                offset = chunk->next;
        }
        rows += segment->rows;
    }
    for (uint32_t number; (number = segment_take_empty(&store)) != 0;)
        CHECK(!segments[number].pages);
    return rows;
}

/* A page is what its payload decodes to, whatever it is; and lz4 has to be worth it. */
static void encode(struct input *input)
{
    char page[PAGE], room[PAGE], back[PAGE];
    unsigned kind = take(input) % 4, size;
    for (unsigned i = 0; i < PAGE; i++)
        page[i] = (char)(kind == 0 ? 0 : kind == 1 ? i % WORD : kind == 2 ? i / 100 : random());
    for (unsigned changes = take(input) % 3; changes > 0; changes--)
        page[take_below(input, PAGE)] = (char)take(input);
    const char *payload = encode_page(page, PAGE, room, &size);
    CHECK(size <= WORD || size == PAGE || size < PAGE - PAGE / 8);
    CHECK(decode_page(payload, size, back, PAGE) && memcmp(page, back, PAGE) == 0);
}

/* Everything that the store says, beside what it should. */
static void compare(void)
{
    uint64_t charged = 0;
    for (unsigned table = 0; table < TABLES; table++) {
        uint64_t pages = 0, outside = 0, objects = 0;
        for (unsigned object = 0; object < OBJECTS; object++) {
            const struct model *of = &model[table][object];
            const struct object *found = find(table, object);
            uint64_t mine = 0;
            for (unsigned page = 0; page < PAGES; page++) {
                uint64_t index = index_of(page), at = of->at[page];
                mine += at != 0;
                outside += (at & SIZE_MASK) == OUTSIDE;
                if (found == NULL) {
                    CHECK(!at);
                    continue;
                }
                CHECK(store_location(&store, found, index) == at);
                if (at) {
                    const struct node *node = store_node(&store, found, index >> NODE_BITS);
                    unsigned low = (unsigned)(index % NODE_PAGES);
                    CHECK((node->used >> low & 1) + (node->again >> low & 1) == of->uses[page]);
                }
            }
            CHECK(found == NULL || found->pages == mine);
            pages += mine;
            objects += mine > 0;
        }
        const struct table *figures = &store.head->tables[tables[table]];
        CHECK(figures->pages == pages && figures->objects == objects);
        CHECK(figures->overflowed == outside);
        charged += figures->charged;
    }
    CHECK(store.head->charged == charged + compare_segments() * 13);
}

/* A good payload with some bytes changed and its length too is a page, or is refused; nothing beyond
   it is touched. */
static void decode(struct input *input)
{
    char whole[PAGE], page[PAGE];
    for (unsigned i = 0; i < PAGE; i++)
        whole[i] = (char)(i % 7 * (i / 512) + (i % 32 ? 0 : take(input) % 3));
    int good = LZ4_compress_default(whole, page, PAGE, PAGE);
    CHECK(good > 0);
    unsigned size = take(input) % 4 ? (unsigned)good : take_below(input, PAGE + 2);
    char *payload = calloc(1, size ? size : 1);
    CHECK(payload != NULL);
    memcpy(payload, page, size < (unsigned)good ? size : (unsigned)good);
    for (unsigned changes = take(input) % 5; changes > 0 && size; changes--)
        payload[take_below(input, size)] = (char)take(input);
    int is_page = decode_page(payload, size, page, PAGE);
    CHECK(is_page || (size != 0 && size != WORD && size != PAGE));
    CHECK(!is_page || size <= PAGE);
    free(payload);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct input input = {bytes, size};
    while (input.left) {
        unsigned what = take(&input), table = take(&input) % TABLES, object = take(&input) % OBJECTS;
        if (what < 120) {
            put(&input, table, object);
        } else if (what < 190) {
            drop(&input, table, object);
        } else if (what < 235) {
            use(&input, table, object);
        } else if (what < 240) {
            decode(&input);
        } else if (what < 245) {
            encode(&input);
        } else if (what < 254) {
            append(&input);
        } else if (what == 255) {
            store_clear(&store, tables[table]); /* whose pages go with their segments */
            memset(model[table], 0, sizeof model[table]);
        }
    }
    compare();
    return 0;
}

int LLVMFuzzerInitialize(int *count, char ***words)
{
    uint64_t size = store_tables_size(ARENA, SEGMENT);
    int fd = memfd_create("fuzz", 0);
    (void)count;
    (void)words;
    CHECK(fd >= 0 && ftruncate(fd, (off_t)(ARENA + size)) == 0);
    char *base = mmap(NULL, ARENA + size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(base != MAP_FAILED && store_begin(&store, base, ARENA + size, size, SEGMENT, fd) == 0);
    for (unsigned table = 0; table < TABLES; table++)
        CHECK((tables[table] = store_new_table(&store)) != 0);
    return 0;
}

#ifndef LIBFUZZER
int main(int count, char **words)
{
    CHECK(count == 3);
    unsigned seeds = (unsigned)atoi(words[1]);
    size_t size = (size_t)atoi(words[2]);
    uint8_t *bytes = malloc(size);
    CHECK(bytes != NULL);
    LLVMFuzzerInitialize(&count, &words);
    for (unsigned seed = 0; seed < seeds; seed++) {
        srandom(seed);
        for (size_t i = 0; i < size; i++)
            bytes[i] = (uint8_t)random();
        LLVMFuzzerTestOneInput(bytes, size);
    }
    free(bytes);
    printf("%u seeds of %zu bytes\n", seeds, size);
    return 0;
}
#endif
