/* A swap volume in the lane, without Python and without a kernel, for the sanitizers.

       swap_stress ROUNDS REQUESTS

   A socket is the device. One thread asks, with some requests under way at once: it writes pages,
   discards them and reads them. The other is Python: the session, and who has the turn now and then.
   While it has it, it looks twice at pages that nobody may change meanwhile, opens segments, moves
   what lives in others and overwrites these, hides pages, takes back what it has lent, and does what
   the lane has handed over. A page says which it is and how old, so that each answer can be judged;
   one of each few versions is no page. Each round is a lane, ended under load. */

#define _GNU_SOURCE
#include <errno.h>
#include <linux/falloc.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../tmemfs/native/lane.h"
#include "../../tmemfs/pages/codec.h"
#include "check.h"

#define PAGE STAGE_PAGE
#define PAGES 256u
#define SEGMENT (UINT64_C(64) << 10)
#define SEGMENTS 40u /* of which the first is nobody's */
#define HANDLE 7u
#define MOST 20u /* pages of a request */
#define UNDER_WAY 6u
#define NO_PAGE_EACH 8u
#define LOAN (UINT64_C(64) << 10)
#define VERSION ((UINT64_C(1) << 40) - 1)

static const struct wide ID = {{1, 2, 3}};
static struct store store;
static struct lane *lane;
static uint32_t table;
static int device, client, done; /* atomic: done */
static uint64_t newest[PAGES], oldest[PAGES]; /* of the one who asks: asked for, and answered */

/* A version of a page: of one word, or one that compresses, or that does not; or zeros. */
static void make_page(char *page, uint64_t index, uint64_t version)
{
    uint64_t word = index << 40 | version, state = word;
    if (version % NO_PAGE_EACH == 0)
        word = 0;
    for (unsigned at = 0; at < PAGE; at += WORD) {
        memcpy(page + at, &word, WORD);
        if (word && at && version % 3 == 1 && at % 64 == 0)
            memcpy(page + at, &at, sizeof at);
        if (word && at && version % 3 == 2) {
            uint64_t noise = next(&state) << 31 ^ next(&state);
            memcpy(page + at, &noise, WORD);
        }
    }
}

/* -- Python, with the turn ---------------------------------------------------------------------- */

static void renew_head(unsigned kind)
{
    const uint32_t *heads = store.head->tables[table].heads;
    uint32_t before = heads[kind];
    if (before && !store_segment(&store, before)->pages) {
        segment_end(&store, before); /* nobody puts anything there any more */
        CHECK(heads[COMPRESSED] != before && heads[RAW] != before);
    }
    for (uint32_t number = 1; number < SEGMENTS; number++) {
        const struct segment *segment = store_segment(&store, number);
        if (segment->pages || segment->head_of)
            continue;
        segment_begin(&store, number, PAGE);
        memset(store.base + number * SEGMENT, 0xaa, SEGMENT);
        store_show_head(&store, table, kind, number);
        return;
    }
}

/* Move what lives in a segment to the heads, and let it be nobody's. */
static void clean(uint32_t number)
{
    struct segment *segment = store_segment(&store, number);
    if (segment->head_of || !segment->rows)
        return;
    struct object *object = store_find(&store, table, &ID);
    uint64_t chunk = segment->first;
    for (uint32_t i = 0; i < segment->rows && object != NULL; i++) {
        const struct rows *rows = (const void *)(store.base + chunk);
        struct row row = rows->row[i % ROWS_OF_A_CHUNK];
        if (i % ROWS_OF_A_CHUNK == ROWS_OF_A_CHUNK - 1)
            chunk = rows->next;
        uint64_t location = store_location(&store, object, row.index), moved;
        if (!location || location >> SIZE_BITS != number * SEGMENT + row.offset)
            continue;
        uint32_t size = (uint32_t)(location & SIZE_MASK);
        unsigned kind = size == PAGE ? RAW : COMPRESSED;
        const char *payload = store.base + (location >> SIZE_BITS);
        uint32_t head = store.head->tables[table].heads[kind];
        if (!head || !segment_fits(&store, store_segment(&store, head), &size, 1)) {
            renew_head(kind);
            head = store.head->tables[table].heads[kind];
        }
        if (!head || !segment_fits(&store, store_segment(&store, head), &size, 1))
            return;
        CHECK(segment_append(&store, head, row.owner, row.index, &payload, &size, 1, &moved) == 0);
        store_relocate(&store, object, row.index, moved);
    }
    CHECK(segment->pages == 0);
    segment_end(&store, number);
    memset(store.base + number * SEGMENT, 0xaa, SEGMENT);
}

static uint64_t where(uint64_t index)
{
    const struct object *object = store_find(&store, table, &ID);
    return object != NULL ? store_location(&store, object, index) : 0;
}

static void something(uint64_t *state)
{
    uint64_t what = next(state) % 16, index = next(state) % PAGES, before = where(index);
    uint64_t charged = store.head->charged;
    sched_yield();
    CHECK(where(index) == before && store.head->charged == charged);
    store_alone(&store);
    if (what < 4)
        renew_head((unsigned)what % HEADS);
    else if (what < 8)
        clean((uint32_t)(1 + next(state) % (SEGMENTS - 1)));
    else if (what < 9)
        store_lend(&store, 0);
    else
        store_lend(&store, LOAN);
    while (segment_take_empty(&store))
        ;
    store_leave(&store);
    if (what == 9) {
        store_hide(&store, table, index, index + 4, 1);
        turn_leave(&store.turn);
        sched_yield();
        turn_enter(&store.turn);
        store_hide(&store, table, index, index + 4, 0);
    } else if (what == 10) {
        lane_revoke(lane, HANDLE);
    } else if (what == 11) {
        (void)lane_settle_stage(lane);
    } else if (what > 12) {
        struct grant grant = {.handle = HANDLE, .id = ID, .table = table, .page_size = PAGE,
                              .size = PAGES * PAGE, .zeros = 1, .edge = NEVER, .fd = -1,
                              .stores = 1};
        CHECK(lane_grant(lane, &grant) == 0);
    }
    lane_poke_stage(lane);
}

static void refuse(const void *request)
{
    struct fuse_out_header out = {.unique = ((const struct fuse_in_header *)request)->unique,
                                  .len = sizeof out, .error = -EAGAIN};
    CHECK(write(device, &out, sizeof out) == sizeof out);
}

/* Put by Python what was handed over, if it may: for who asks it is the same. */
static void take_over(const void *request)
{
    const struct fuse_in_header *header = request;
    const struct fuse_write_in *in = (const void *)(header + 1);
    const struct stored what = {in->fh, in->offset, in->size, 1, 0};
    struct fuse_write_out body = {.size = in->size};
    struct fuse_out_header out = {.unique = header->unique, .len = sizeof out + sizeof body};
    char answer[sizeof out + sizeof body];
    if (header->opcode != FUSE_WRITE || !lane_stage(lane, &what, (const char *)(in + 1))) {
        refuse(request);
        return;
    }
    memcpy(answer, &out, sizeof out);
    memcpy(answer + sizeof out, &body, sizeof body);
    CHECK(write(device, answer, sizeof answer) == sizeof answer);
}

static void *python(void *argument)
{
    static char buffer[MOST * PAGE + PAGE];
    struct pollfd event = {.fd = lane_events(lane), .events = POLLIN};
    uint64_t state = *(uint64_t *)argument;
    void *request;
    while (!__atomic_load_n(&done, __ATOMIC_SEQ_CST)) {
        turn_leave(&store.turn);
        int ready = poll(&event, 1, 1);
        turn_enter(&store.turn);
        something(&state);
        if (ready <= 0)
            continue;
        if (lane_session.take(lane, &request)) {
            take_over(request);
        } else if (lane_session.reads(lane)) {
            ssize_t size = read(device, buffer, sizeof buffer);
            if (size > 0 && !lane_session.answer(lane, buffer, (size_t)size))
                take_over(buffer);
        }
    }
    return NULL;
}

/* -- who asks ----------------------------------------------------------------------------------- */

struct asked {
    uint64_t unique, first, count;
    uint64_t least[MOST];
    uint32_t opcode;
};

static struct {
    struct fuse_in_header header;
    union {
        struct fuse_read_in read;
        struct fuse_write_in write;
        struct fuse_fallocate_in hole;
    } in;
    char pages[MOST * PAGE];
} message;

static int changing[PAGES]; /* whether a change of a page is under way */

/* Ask for the next version of pages that nobody else changes; fewer than asked for, or none. */
static void change(struct asked *asked, int discards)
{
    char *data = (char *)&message + sizeof message.header + sizeof message.in.write;
    uint64_t count = 0;
    for (; count < asked->count && !changing[asked->first + count]; count++) {
        uint64_t index = asked->first + count;
        changing[index] = 1;
        newest[index]++;
        while (discards && newest[index] % NO_PAGE_EACH)
            newest[index]++;
        make_page(data + count * PAGE, index, newest[index]);
    }
    asked->count = count;
    asked->opcode = discards ? FUSE_FALLOCATE : FUSE_WRITE;
    if (discards)
        message.in.hole = (struct fuse_fallocate_in){
            .fh = HANDLE, .offset = asked->first * PAGE, .length = count * PAGE,
            .mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE};
    else
        message.in.write = (struct fuse_write_in){
            .fh = HANDLE, .offset = asked->first * PAGE, .size = (uint32_t)(count * PAGE)};
}

static void ask(struct asked *asked, uint64_t unique, uint64_t *state)
{
    uint64_t what = next(state) % 8;
    size_t size = sizeof message.header;
    memset(&message, 0, sizeof message.header + sizeof message.in);
    *asked = (struct asked){.unique = unique, .opcode = FUSE_READ};
    asked->count = next(state) % 4 ? 1 : 1 + next(state) % MOST;
    asked->first = next(state) % (PAGES - asked->count + 1);
    if (what < 4)
        change(asked, what == 0);
    if (what >= 4 || !asked->count) {
        asked->opcode = FUSE_READ;
        asked->count = asked->count ? asked->count : 1;
        message.in.read = (struct fuse_read_in){.fh = HANDLE, .offset = asked->first * PAGE,
                                                .size = (uint32_t)(asked->count * PAGE)};
    }
    for (uint64_t i = 0; i < asked->count; i++)
        asked->least[i] = oldest[asked->first + i];
    size += asked->opcode == FUSE_WRITE ? sizeof message.in.write + asked->count * PAGE
            : asked->opcode == FUSE_READ ? sizeof message.in.read
                                         : sizeof message.in.hole;
    message.header.unique = unique;
    message.header.opcode = asked->opcode;
    message.header.len = (uint32_t)size;
    CHECK(write(client, &message, size) == (ssize_t)size);
}

/* Whether a page may be what was read, when it was one of these versions. */
static void judge(uint64_t index, const char *page, uint64_t least, uint64_t most)
{
    char expected[PAGE];
    uint64_t word;
    memcpy(&word, page, WORD);
    uint64_t version = word & VERSION;
    if (!word) /* the last that was none, if it is not too old */
        version = most / NO_PAGE_EACH * NO_PAGE_EACH;
    CHECK(least <= version && version <= most);
    CHECK(!word || (word >> 40 == index && version % NO_PAGE_EACH));
    make_page(expected, index, version);
    CHECK(memcmp(page, expected, PAGE) == 0);
}

static int hear(struct asked *asked, const struct fuse_out_header *out)
{
    const char *page = (const char *)(out + 1);
    for (uint64_t i = 0; i < asked->count; i++, page += PAGE) {
        uint64_t index = asked->first + i;
        if (asked->opcode == FUSE_READ && !out->error) {
            judge(index, page, asked->least[i], newest[index]);
        } else if (asked->opcode != FUSE_READ) {
            if (!out->error) /* what was refused may be there, or not */
                oldest[index] = newest[index];
            changing[index] = 0;
        }
    }
    asked->unique = UINT64_MAX;
    return !out->error;
}

static uint64_t work(uint64_t requests, uint64_t seed)
{
    static struct asked asked[UNDER_WAY];
    static char reply[MOST * PAGE + PAGE];
    uint64_t answered = 0, state = seed;
    for (uint64_t number = 0; number < requests + UNDER_WAY; number++) {
        uint64_t place = number % UNDER_WAY;
        if (number >= UNDER_WAY) {
            const struct fuse_out_header *out = (const void *)reply;
            ssize_t size = read(client, reply, sizeof reply);
            CHECK(size >= (ssize_t)sizeof *out && out->len == size);
            place = out->unique % UNDER_WAY;
            CHECK(asked[place].unique == out->unique);
            answered += (uint64_t)hear(&asked[place], out);
        }
        if (number < requests)
            ask(&asked[place], number * UNDER_WAY + place, &state);
    }
    return answered;
}

/* -- a round ------------------------------------------------------------------------------------ */

static void check_all(void)
{
    char page[PAGE];
    uint64_t pages = 0;
    for (uint64_t index = 0; index < PAGES; index++) {
        uint64_t location = where(index);
        memset(page, 0, PAGE);
        CHECK(!location || store_page(&store, location, page, PAGE));
        judge(index, page, oldest[index], newest[index]);
        pages += location != 0;
        /* What was refused in the end is settled by what is there. */
        uint64_t word;
        memcpy(&word, page, WORD);
        oldest[index] = word ? word & VERSION : newest[index] / NO_PAGE_EACH * NO_PAGE_EACH;
        changing[index] = 0;
    }
    CHECK(store.head->tables[table].pages == pages);
}

static void begin_round(void)
{
    int pair[2], room = (int)(2 * UNDER_WAY * MOST * PAGE);
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
    for (unsigned i = 0; i < 2; i++)
        CHECK(setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &room, sizeof room) == 0);
    device = pair[0];
    client = pair[1];
    done = 0;
    CHECK((lane = lane_new(&store, device, 3, MOST * PAGE, 1)) != NULL);
}

int main(int count, char **words)
{
    CHECK(count == 3);
    uint64_t rounds = strtoull(words[1], NULL, 10), requests = strtoull(words[2], NULL, 10);
    uint64_t arena = SEGMENTS * SEGMENT, answered = 0, handed = 0;
    uint64_t tables = store_tables_size(arena, SEGMENT);
    int fd = memfd_create("stress", 0);
    CHECK(fd >= 0 && ftruncate(fd, (off_t)(arena + tables)) == 0);
    char *base = mmap(NULL, arena + tables, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(base != MAP_FAILED);
    CHECK(store_begin(&store, base, arena + tables, tables, SEGMENT, fd) == 0);
    CHECK((table = store_new_table(&store)) != 0 && store_watch(&store, table, PAGES) == 0);
    for (uint64_t round = 1; round <= rounds; round++) {
        pthread_t of_python;
        begin_round();
        turn_leave(&store.turn);
        CHECK(pthread_create(&of_python, NULL, python, &round) == 0);
        answered += work(requests, round);
        static struct asked left[UNDER_WAY];
        uint64_t state = round;
        for (uint64_t i = 0; i < UNDER_WAY; i++)
            ask(&left[i], i, &state);
        __atomic_store_n(&done, 1, __ATOMIC_SEQ_CST);
        pthread_join(of_python, NULL);
        turn_leave(&store.turn);
        lane_stop(lane);
        turn_enter(&store.turn);
        struct lane_figures figures;
        lane_count(lane, &figures);
        handed += figures.handed;
        lane_free(lane);
        close(device);
        close(client);
        check_all();
    }
    store_clear(&store, table);
    for (uint32_t number = 1; number < SEGMENTS; number++)
        segment_end(&store, number);
    store_lend(&store, 0);
    CHECK(store.head->tables[table].pages == 0 && store.head->charged == 0);
    CHECK(store.head->tables[table].staged == 0);
    store_end(&store);
    printf("%llu answered, %llu handed over\n", (unsigned long long)answered,
           (unsigned long long)handed);
    return answered ? 0 : 1;
}
