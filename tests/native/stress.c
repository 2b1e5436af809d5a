/* The lane and the store without Python and without a kernel, for the sanitizers.

       stress ROUNDS REQUESTS

   A socket is the device. One thread asks for pages, with some requests under way at once; one is
   the session; one is Python: it replaces pages, removes them, hides them, grants and revokes, and
   overwrites the memory of each page that it has replaced or removed: nobody may read that then.
   A page says which it is and how old, so that each answer can be judged. Another file is written by
   the lane, too: Python brings its pages from a backing file, and drops them when it hears of a write.
   Each round is a lane, ended under load. */

#define _GNU_SOURCE
#include <errno.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "../../tmemfs/pages/codec.h"
#include "../../tmemfs/native/lane.h"
#include "check.h"

#define PAGE 4096u
#define PAGES 192u
#define SLOTS 2u /* places in the arena for each page */
#define SEGMENT (UINT64_C(64) << 10)
#define ARENA ((uint64_t)(PAGES * SLOTS + ITS_PAGES) * PAGE + PAGE)
#define HANDLE 7u
#define WRITTEN 8u /* handle of the file that is written ... */
#define ITS_PAGES 64u
#define LARGEST (4u * PAGE)
#define UNDER_WAY 6u
/* All answers to them: a socket that is full would lose one, as the device never does. */
#define SOCKET (2 * UNDER_WAY * LARGEST)

static const struct wide ID = {{1, 2, 3}}, ITS_ID = {{4, 5, 6}};
static struct store store;
static struct lane *lane;
static uint32_t table;
static int device, client, done; /* atomic: done */
static int backing;              /* the file that is written */
static uint64_t newest[PAGES];   /* atomic: the version that is there, or is about to be */
static uint64_t oldest[PAGES];   /* atomic: none older may be read any more */
static uint64_t its_newest[ITS_PAGES], its_oldest[ITS_PAGES]; /* of the one who asks */

static uint64_t load(const uint64_t *value)
{
    return __atomic_load_n(value, __ATOMIC_SEQ_CST);
}

/* -- Python ----------------------------------------------------------------------------------- */

static uint64_t place_of(uint64_t index, uint64_t version)
{
    return PAGE + (index * SLOTS + version % SLOTS) * PAGE;
}

/* Encode version *version* of a page, in one way or another. Returns its location. */
static uint64_t write_page(uint64_t index, uint64_t version)
{
    char *place = store.base + place_of(index, version), page[PAGE];
    uint64_t word = index << 40 | version, size = WORD;
    for (unsigned at = 0; at < PAGE; at += WORD)
        memcpy(page + at, &word, WORD);
    switch (version % 3) {
    case 0:
        memcpy(place, &word, WORD);
        break;
    case 1:
        memcpy(place, page, size = PAGE);
        break;
    default:
        size = (uint64_t)LZ4_compress_default(page, place, PAGE, PAGE);
        CHECK(size > WORD && size < PAGE);
    }
    return place_of(index, version) << SIZE_BITS | size;
}

static void forget(uint64_t index, uint64_t version)
{
    memset(store.base + place_of(index, version), 0xaa, PAGE);
}

static void replace(uint64_t index)
{
    uint64_t version = load(&newest[index]) + 1, location = write_page(index, version);
    __atomic_store_n(&newest[index], version, __ATOMIC_SEQ_CST);
    store_alone(&store);
    struct object *object = store_obtain(&store, table, &ID);
    CHECK(object != NULL && store_put(&store, object, index, &location, 1) == 0);
    store_leave(&store);
    __atomic_store_n(&oldest[index], version, __ATOMIC_SEQ_CST);
    forget(index, version - 1);
}

/* Remove pages of one node. */
static void removed(uint64_t first, uint64_t last)
{
    uint64_t end = first / NODE_PAGES * NODE_PAGES + NODE_PAGES;
    last = last < end ? last : end;
    store_alone(&store);
    struct object *object = store_find(&store, table, &ID);
    if (object != NULL)
        store_remove(&store, object, first, last);
    store_leave(&store);
    for (uint64_t index = first; index < last && index < PAGES; index++)
        forget(index, load(&newest[index]));
}

static void grant(void)
{
    struct grant grant = {.handle = HANDLE, .id = ID, .table = table, .page_size = PAGE,
                          .size = PAGES * PAGE, .edge = 0};
    grant.fd = -1;
    CHECK(lane_grant(lane, &grant) == 0);
}

static void grant_writes(void)
{
    struct grant grant = {.handle = WRITTEN, .id = ITS_ID, .table = table, .page_size = PAGE,
                          .size = ITS_PAGES * PAGE, .edge = NEVER, .fd = backing};
    CHECK(lane_grant(lane, &grant) == 0);
}

/* -- the file that is written ------------------------------------------------------------------ */

/* A page on its way from the backing file: put only if nothing has been heard of meanwhile. */
struct fill {
    uint64_t index, generation;
    char page[PAGE];
};

static uint64_t its_place(uint64_t index)
{
    return ARENA - (ITS_PAGES - index) * PAGE;
}

static void remove_its(uint64_t first, uint64_t last)
{
    store_alone(&store);
    struct object *object = store_find(&store, table, &ITS_ID);
    if (object != NULL)
        store_remove(&store, object, first, last);
    store_leave(&store);
    for (uint64_t index = first; index < last; index++)
        memset(store.base + its_place(index), 0xaa, PAGE);
}

static void begin_fill(struct fill *fill, uint64_t index, uint64_t generation)
{
    fill->index = index;
    fill->generation = generation;
    CHECK(pread(backing, fill->page, PAGE, (off_t)(index * PAGE)) == PAGE);
}

static void end_fill(const struct fill *fill, uint64_t generation)
{
    if (fill->generation != generation)
        return;
    remove_its(fill->index, fill->index + 1);
    memcpy(store.base + its_place(fill->index), fill->page, PAGE);
    uint64_t location = its_place(fill->index) << SIZE_BITS | PAGE;
    store_alone(&store);
    struct object *object = store_obtain(&store, table, &ITS_ID);
    CHECK(object != NULL && store_put(&store, object, fill->index, &location, 1) == 0);
    store_leave(&store);
}

static uint64_t hear(uint64_t generation)
{
    struct written written;
    const char *kept;
    while (lane_written(lane, &written, &kept)) {
        CHECK(written.handle == WRITTEN && written.start < written.end);
        CHECK(written.end <= ITS_PAGES * PAGE && written.bytes == written.count * PAGE);
        if (written.kept) {
            uint64_t word;
            memcpy(&word, kept, WORD);
            CHECK(written.count == 1 && written.kept == PAGE && word >> 40 == written.start / PAGE);
        }
        for (uint64_t index = 0; index < 8; index++) /* who reads the file meanwhile waits for us */
            replace(index);
        generation++;
        remove_its(written.start / PAGE, (written.end - 1) / PAGE + 1);
        lane_settle(lane);
    }
    return generation;
}

static void *python(void *argument)
{
    uint64_t state = *(uint64_t *)argument;
    uint64_t generation = 1;
    struct fill fill = {.generation = 0};
    struct note note;
    int in_order;
    while (!__atomic_load_n(&done, __ATOMIC_SEQ_CST)) {
        uint64_t index = next(&state) % PAGES, what = next(&state) % 80;
        if (what < 40) {
            replace(index);
        } else if (what < 48) {
            removed(index, index % 32 ? index + 1 : index + NODE_PAGES);
        } else if (what < 52) {
            store_hide(&store, table, index, index + 4, 1);
            replace(index);
            store_hide(&store, table, index, index + 4, 0);
        } else if (what < 56) {
            lane_revoke(lane, HANDLE);
            grant();
        } else if (what < 60) {
            (void)lane_follow(lane, HANDLE, &in_order);
            lane_watch(lane, HANDLE, index);
        } else if (what < 66) {
            end_fill(&fill, generation);
            begin_fill(&fill, index % ITS_PAGES, generation);
        } else if (what < 74) {
            generation = hear(generation);
        } else if (what < 75) {
            lane_revoke(lane, WRITTEN);
            grant_writes();
        } else {
            while (lane_take_note(lane, &note))
                CHECK(note.handle == HANDLE && note.first < note.last);
        }
    }
    return NULL;
}

/* -- the session ------------------------------------------------------------------------------ */

static void refuse(const void *request)
{
    struct fuse_out_header out = {.unique = ((const struct fuse_in_header *)request)->unique,
                                  .len = sizeof out, .error = -EAGAIN};
    CHECK(write(device, &out, sizeof out) == sizeof out);
}

static void *session(void *argument)
{
    static char buffer[LARGEST + PAGE];
    struct pollfd event = {.fd = lane_events(lane), .events = POLLIN};
    void *request;
    (void)argument;
    while (!__atomic_load_n(&done, __ATOMIC_SEQ_CST)) {
        if (poll(&event, 1, 10) <= 0)
            continue;
        if (lane_session.take(lane, &request)) {
            refuse(request);
        } else if (lane_session.reads(lane)) {
            ssize_t size = read(device, buffer, sizeof buffer);
            if (size > 0 && !lane_session.answer(lane, buffer, (size_t)size))
                refuse(buffer);
        }
    }
    return NULL;
}

/* -- who asks --------------------------------------------------------------------------------- */

struct asked {
    uint64_t unique, first, count;
    uint64_t least[LARGEST / PAGE]; /* what each page was when it was asked for */
    int writes, reads_written;
};

/* Write the next version of a page, which nobody else does meanwhile; or read it. */
static void ask_written(struct asked *asked, uint64_t unique, uint64_t index, int writes)
{
    struct {
        struct fuse_in_header header;
        union {
            struct fuse_read_in read;
            struct fuse_write_in write;
        } in;
        char page[PAGE];
    } message;
    memset(&message, 0, sizeof message);
    uint64_t word = index << 40 | (its_newest[index] += (uint64_t)writes);
    size_t size = sizeof message.header + (writes ? sizeof message.in.write : sizeof message.in.read);
    char *data = (char *)&message + size;
    *asked = (struct asked){.unique = unique, .first = index, .count = 1, .writes = writes,
                            .reads_written = !writes, .least = {its_oldest[index]}};
    message.header.unique = unique;
    message.header.opcode = writes ? FUSE_WRITE : FUSE_READ;
    if (writes) {
        message.in.write = (struct fuse_write_in){.fh = WRITTEN, .offset = index * PAGE, .size = PAGE};
        for (unsigned at = 0; at < PAGE; at += WORD, size += WORD)
            memcpy(data + at, &word, WORD);
    } else {
        message.in.read = (struct fuse_read_in){.fh = WRITTEN, .offset = index * PAGE, .size = PAGE};
    }
    message.header.len = (uint32_t)size;
    CHECK(write(client, &message, size) == (ssize_t)size);
}

static void ask(struct asked *asked, uint64_t unique, uint64_t *state)
{
    struct {
        struct fuse_in_header header;
        struct fuse_read_in in;
    } message;
    memset(&message, 0, sizeof message);
    asked->writes = asked->reads_written = 0;
    asked->unique = message.header.unique = unique;
    asked->count = next(state) % 8 ? 1 : 1 + next(state) % (LARGEST / PAGE);
    asked->first = next(state) % (PAGES - asked->count + 1);
    for (uint64_t i = 0; i < asked->count; i++)
        asked->least[i] = load(&oldest[asked->first + i]);
    /* Now and then something that is Python's in any case. */
    message.header.opcode = next(state) % 16 ? FUSE_READ : FUSE_GETATTR;
    message.header.len = sizeof message;
    message.in.fh = HANDLE;
    message.in.offset = asked->first * PAGE;
    message.in.size = (uint32_t)(asked->count * PAGE);
    CHECK(write(client, &message, sizeof message) == sizeof message);
}

static void judge(const struct asked *asked, const char *bytes)
{
    for (uint64_t i = 0; i < asked->count; i++, bytes += PAGE) {
        uint64_t word, other, index = asked->first + i;
        memcpy(&word, bytes, WORD);
        for (unsigned at = 0; at < PAGE; at += WORD) {
            memcpy(&other, bytes + at, WORD);
            CHECK(other == word);
        }
        CHECK(word >> 40 == index);
        word &= (UINT64_C(1) << 40) - 1;
        CHECK(asked->least[i] <= word);
        CHECK(word <= (asked->reads_written ? its_newest[index] : load(&newest[index])));
    }
}

static uint64_t work(uint64_t requests, uint64_t seed)
{
    static struct asked asked[UNDER_WAY];
    static char reply[LARGEST + PAGE];
    int being_written[ITS_PAGES] = {0};
    uint64_t answered = 0, state = seed;
    for (uint64_t unique = 0; unique < requests + UNDER_WAY; unique++) {
        if (unique >= UNDER_WAY) {
            ssize_t size = read(client, reply, sizeof reply);
            const struct fuse_out_header *out = (const void *)reply;
            CHECK(size >= (ssize_t)sizeof *out && out->len == size);
            struct asked *of = &asked[out->unique % UNDER_WAY];
            CHECK(of->unique == out->unique);
            if (of->writes) {
                /* Refused or not: Python's would have been made, too, and told. */
                if (!out->error)
                    its_oldest[of->first] = its_newest[of->first];
                being_written[of->first] = 0;
                answered += !out->error;
            } else if (!out->error) {
                CHECK((uint64_t)size == sizeof *out + of->count * PAGE);
                judge(of, reply + sizeof *out);
                answered++;
            }
            of->unique = UINT64_MAX;
        }
        for (uint64_t i = 0; i < UNDER_WAY; i++)
            if (unique < requests && (unique < UNDER_WAY ? i == unique
                                                         : asked[i].unique == UINT64_MAX)) {
                /* A number that leads here again. */
                uint64_t number = unique / UNDER_WAY * UNDER_WAY * UNDER_WAY + unique * UNDER_WAY + i;
                uint64_t index = next(&state) % ITS_PAGES, what = next(&state) % 8;
                if (what < 2 && !being_written[index])
                    ask_written(&asked[i], number, index, being_written[index] = 1);
                else if (what < 4)
                    ask_written(&asked[i], number, index, 0);
                else
                    ask(&asked[i], number, &state);
                break;
            }
    }
    return answered;
}

int main(int count, char **words)
{
    CHECK(count == 3);
    uint64_t rounds = strtoull(words[1], NULL, 10), requests = strtoull(words[2], NULL, 10);
    uint64_t tables = store_tables_size(ARENA, SEGMENT), answered = 0, handed = 0;
    int fd = memfd_create("stress", 0), pair[2];
    CHECK(fd >= 0 && ftruncate(fd, (off_t)(ARENA + tables)) == 0);
    char *base = mmap(NULL, ARENA + tables, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(base != MAP_FAILED);
    CHECK((backing = memfd_create("backing", 0)) >= 0);
    for (uint64_t at = 0; at < ITS_PAGES * PAGE; at += WORD) {
        uint64_t word = at / PAGE << 40;
        CHECK(pwrite(backing, &word, WORD, (off_t)at) == WORD);
    }
    CHECK(store_begin(&store, base, ARENA + tables, tables, SEGMENT, fd) == 0);
    CHECK((table = store_new_table(&store)) != 0 && store_watch(&store, table, PAGES) == 0);
    for (uint64_t round = 1; round <= rounds; round++) {
        pthread_t of_python, of_session;
        CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
        int room = SOCKET;
        CHECK(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room) == 0);
        device = pair[0];
        client = pair[1];
        done = 0;
        CHECK((lane = lane_new(&store, device, 2, LARGEST, 0)) != NULL);
        for (uint64_t index = 0; index < PAGES; index++)
            replace(index);
        grant();
        grant_writes();
        CHECK(pthread_create(&of_session, NULL, session, NULL) == 0);
        CHECK(pthread_create(&of_python, NULL, python, &round) == 0);
        answered += work(requests, round);
        /* With requests under way that nobody waits for any more. */
        struct asked left;
        uint64_t state = round;
        for (uint64_t unique = 0; unique < UNDER_WAY; unique++)
            ask(&left, unique, &state);
        __atomic_store_n(&done, 1, __ATOMIC_SEQ_CST);
        pthread_join(of_python, NULL);
        pthread_join(of_session, NULL);
        lane_stop(lane);
        struct lane_figures figures;
        lane_count(lane, &figures);
        handed += figures.handed;
        lane_free(lane);
        remove_its(0, ITS_PAGES); /* of which another lane has heard nothing */
        close(device);
        close(client);
    }
    store_clear(&store, table);
    CHECK(store.head->tables[table].pages == 0 && store.head->charged == 0);
    store_end(&store);
    printf("%llu answered, %llu handed over\n", (unsigned long long)answered,
           (unsigned long long)handed);
    return answered ? 0 : 1;
}
