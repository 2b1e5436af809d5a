/* The store: which page of which object is where, found without the interpreter.

   What `tmemfs.tmem.objects` says of objects and nodes is said there, and here it is in C, in one
   mapping that the segments of the arena are in as well. Nothing in the mapping is a pointer:
   wherever it is mapped, by whichever process, what is in it means the same.

   One lock guards all of it. Who changes something holds it alone; who reads (a page that is found
   is decoded while it is held) shares it. So a page that has been removed is read by nobody from
   then on, and its memory may go. */

#ifndef TMEMFS_STORE_H
#define TMEMFS_STORE_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "turn.h"

#define NODE_BITS 6
#define NODE_PAGES 64u /* one bit each in the marks of a node */
#define SIZE_BITS 17   /* see tmemfs/pages/locations.py */
#define SIZE_MASK ((UINT64_C(1) << SIZE_BITS) - 1)
#define OUTSIDE SIZE_MASK
#define NO_OBJECT UINT32_MAX

/* An object id, or a stamp: a number of 192 bits, the lowest first. */
struct wide {
    uint64_t part[3];
};

struct object {
    struct wide id, stamp;
    uint64_t next;        /* in the bucket, or of those that are free: its number and one */
    uint64_t nodes;       /* the first of its nodes; 0 is none */
    uint32_t table;       /* of which pool it is; 0 while it is free */
    uint32_t pages;       /* it is in the hash table while there are some */
    uint32_t incarnation; /* raised when the number goes to another object */
    uint32_t number;
};

struct node {
    uint64_t next;          /* in the bucket */
    uint64_t before, after; /* among those of its object */
    uint32_t object;
    uint32_t number; /* it covers the pages 64 n to 64 n + 63 of it */
    uint32_t length; /* of `at` */
    uint32_t unused;
    uint64_t used, again; /* of each page, whether it was used, and used once more */
    uint64_t at[];        /* locations, 0 where there is no page */
};

/* Owner (the number of an object), index, and offset in the segment, of one append. */
struct row {
    uint32_t owner, index, offset;
};

#define ROWS_OF_A_CHUNK 52u

struct rows {
    uint64_t next;
    struct row row[ROWS_OF_A_CHUNK];
};

/* One segment of the arena, as tmemfs/pages/log.py has it. */
struct segment {
    uint64_t position;             /* bytes of it that are taken */
    uint64_t first, last, filling; /* chunks of rows: the last may be one that has none yet */
    uint64_t bytes;                /* of what lives in it ... */
    uint32_t pages, same, huge;    /* ... its pages, those of one word, those not compressed */
    uint32_t rows, chunks, page_size;
    uint32_t is_noted, next_empty; /* whether it is among those where nothing lives any more */
    uint32_t head_of;              /* the table that others may put pages of here; 0 is none */
    uint32_t unused;
};

/* Where pages of a pool are put that compress, and those that do not. */
enum { COMPRESSED, RAW, HEADS };

/* Pages of swap that were acknowledged as they came, and wait in the stage to be compressed. */
#define STAGE_PAGES 1024u
#define STAGE_PAGE 4096u
#define STAGE_BYTES ((uint64_t)STAGE_PAGES * STAGE_PAGE)

struct staged {
    struct wide id;
    uint32_t table, index;
};

/* What there is of one pool, and what was done without the interpreter: pages read and put, those of
   them that replaced another, calls that flushed, and pages that went with them. */
struct table {
    uint64_t in_use, objects, pages, overflowed, staged, charged;
    uint64_t hits, puts, replaced, flushs, flushed;
    uint32_t heads[HEADS]; /* segments, 0 is none */
    uint32_t page_size;    /* of these */
    uint32_t unused;
};

/* A hash table that grows and shrinks by one bucket at a time, so that nobody ever waits for it:
   Litwin's linear hashing. What is in a bucket is chained. */
struct hash {
    uint64_t buckets; /* where they are */
    uint64_t most;    /* of them */
    uint64_t size;
    uint64_t count; /* of what is in them */
};

/* Nodes are of ten sizes, and each slab has nodes of one size; it goes with the last of them. */
#define SLAB_BYTES 16384u
#define SLAB_STEP 64u
#define SLAB_CLASSES 10u

struct slab {
    uint64_t before, after; /* among those of its size that have room */
    uint32_t size, used;    /* of a piece, and how many pieces are in use */
    uint64_t free;          /* the first piece that is free; in each is where the next is */
    uint64_t fresh;         /* from here on no piece was ever used */
};

#define MOST_TABLES 1024u

/* The beginning of the tables. */
struct header {
    struct table tables[MOST_TABLES]; /* the first is nobody's */
    struct hash objects, nodes;
    uint64_t object_array, object_most, object_count;
    uint64_t charged;     /* what all tables are charged with, in bytes ... */
    uint64_t lent;        /* ... of which so many are for who puts pages without asking */
    uint64_t free_object; /* the first number that is free, and one; 0 without one */
    uint64_t pending;     /* the number, and one, of an object that has no page yet */
    uint64_t slab_array, slab_most, slab_count;
    uint64_t free_slabs, free_slab_count; /* a stack of slabs without memory */
    uint64_t kept; /* slabs up to here keep their memory when nothing is in them */
    uint64_t roomy[SLAB_CLASSES + 1];
    uint64_t staged_array;
    uint64_t stage_pages; /* how many it holds ... */
    uint64_t stage_first, stage_next, stage_start; /* ... numbers of those it has; where it begins */
    uint64_t segment_array, segments;
    uint32_t segment_bits, empty; /* the first segment where nothing lives; 0 without one */
};

/* Pages of one pool that are to be had of Python alone: a bit for each index. In no mapping, for it
   is of no use to anybody else. */
struct hidden {
    uint64_t *bits;
    uint64_t pages;
};

struct store {
    struct turn turn;
    pthread_rwlock_t lock;
    char *base;
    uint64_t size;   /* of the whole mapping */
    uint64_t tables; /* where they begin; first among them is the stage */
    struct header *head;
    int fd; /* of the mapping; by it memory is given back */
    int clears; /* whether a whole table goes, whose segments are given back one by one */
    struct hidden hidden[MOST_TABLES];
};

/* How many bytes of addresses the tables of an arena of *capacity* bytes may need, in segments of
   that size, a power of two. */
uint64_t store_tables_size(uint64_t capacity, uint64_t segment_size);
/* Begin with empty tables in the last *tables* bytes of a mapping of zeros. 0 or an errno. */
int store_begin(struct store *store, char *base, uint64_t size, uint64_t tables,
                uint64_t segment_size, int fd);
void store_end(struct store *store);

void store_share(struct store *store);
void store_alone(struct store *store);
void store_leave(struct store *store);

/* From here on the caller holds the lock: alone where something changes. */

/* The number of a table that nobody has; 0 without one. */
uint32_t store_new_table(struct store *store);
/* Let another pool have the number of a table that is empty. */
void store_forget_table(struct store *store, uint32_t table);
/* Drop all that is in a table. */
void store_clear(struct store *store, uint32_t table);

struct object *store_object(const struct store *store, uint32_t number);
/* The object of that id; NULL where it has no page. */
struct object *store_find(const struct store *store, uint32_t table, const struct wide *id);
/* That object, or a new one, which joins with its first page; NULL without room for it. */
struct object *store_obtain(struct store *store, uint32_t table, const struct wide *id);

struct node *store_node(const struct store *store, const struct object *object, uint64_t number);
uint64_t store_location(const struct store *store, const struct object *object, uint64_t index);
/* The first node of an object, and the next one; NULL behind the last. */
struct node *store_first(const struct store *store, const struct object *object);
struct node *store_next(const struct store *store, const struct node *node);
/* Count a use of the pages *marks* of a node. Here readers change something: with atomic steps. */
void store_mark(struct node *node, uint64_t marks);
/* The marks of *length* pages of a node from *low* on. */
uint64_t store_marks(unsigned low, unsigned length);

/* Let *count* pages of one node be at *locations*, none of them 0; -1 without room, and nothing is
   done. */
int store_put(struct store *store, struct object *object, uint64_t index, const uint64_t *locations,
              unsigned count);
/* Let a page that is there be at another location. */
void store_relocate(struct store *store, struct object *object, uint64_t index, uint64_t location);
/* Remove what there is of the pages *first* to *last* (excluded) of one node; how many there were. */
unsigned store_remove(struct store *store, struct object *object, uint64_t first, uint64_t last);

/* Let pages below *pages* be hidden from now on, when store_hide() says so; -1 without memory. */
int store_watch(struct store *store, uint32_t table, uint64_t pages);
/* Hide the pages *first* to *last* (excluded), or show them: needs no lock. Whoever changes pages
   that are hidden has to hide them before, and needs the lock for the change. */
void store_hide(struct store *store, uint32_t table, uint64_t first, uint64_t last, int hide);
/* Whether one of them is hidden. */
int store_hides(const struct store *store, uint32_t table, uint64_t first, uint64_t last);

/* Have memory for *size* bytes of nodes and rows from now on, and for what is known of the first
   *segments*. */
void store_keep(struct store *store, uint64_t size, uint64_t segments);

struct segment *store_segment(const struct store *store, uint64_t number);
/* Let a segment be empty, for pages of that size; and let go of what it had. */
void segment_begin(struct store *store, uint64_t number, uint32_t page_size);
void segment_end(struct store *store, uint64_t number);
/* Bytes of pages that were removed, rows counted, see `Segment.dead_bytes`. */
uint64_t segment_dead(const struct store *store, const struct segment *segment);
uint64_t segment_rows_left(const struct store *store, const struct segment *segment);
/* How many of the payloads of these sizes there is room for. */
unsigned segment_fits(const struct store *store, const struct segment *segment,
                      const uint32_t *sizes, unsigned count);
/* Append payloads, for which there is room; -1 without memory for their rows, and nothing is done.
   They live there when the locations are put. */
int segment_append(struct store *store, uint64_t number, uint32_t owner, uint32_t index,
                   const char *const *payloads, const uint32_t *sizes, unsigned count,
                   uint64_t *locations);
/* A segment in which nothing lives since this was asked last; 0 without one. */
uint32_t segment_take_empty(struct store *store);

/* For who has the turn, and the lock alone: puts and flushes without asking Python. */

#define MOST_PUT 64u

/* A run of pages, encoded; one of zeros takes nothing. */
struct payloads {
    unsigned count;
    uint32_t size[MOST_PUT];
    const char *bytes[MOST_PUT];
};

/* Let pages of a table be put in a segment, 0 is none, from now on. */
void store_show_head(struct store *store, uint32_t table, unsigned kind, uint32_t segment);
/* Let so many bytes of tables be there for them, and no more; they are charged already. */
void store_lend(struct store *store, uint64_t bytes);
/* Whether so many new pages of an object may be put by what is lent. */
int store_may_take(const struct store *store, uint64_t pages);
/* Let the pages of an object from *index* on be these, where zeros are no page; 0 without room, and
   then only as many of them as were put before that was found out. */
int store_take(struct store *store, uint32_t table, const struct wide *id, uint64_t index,
               const struct payloads *payloads);
/* Remove the pages *first* to *last* (excluded) of an object. */
void store_flush(struct store *store, uint32_t table, const struct wide *id, uint64_t first,
                 uint64_t last);

/* Have the memory of the stage, and use it from now on. */
void stage_begin(struct store *store);
/* As store_take(), of pages as they are. 0 where there is no room, and nothing has changed. */
int stage_take(struct store *store, uint32_t table, const struct wide *id, uint64_t index,
               const char *data, unsigned count);

/* Pages that have waited longest, as they are. */
#define AT_ONCE_FROM_STAGE 16u
struct from_stage {
    uint64_t first; /* number */
    unsigned count;
    const char *page[AT_ONCE_FROM_STAGE]; /* NULL where it was replaced or removed meanwhile */
};

/* Of which table the first of them is; 0 where there is none. */
uint32_t stage_next_table(const struct store *store);
/* With the lock. They stay where they are until they are taken out. */
void stage_next(const struct store *store, struct from_stage *pages);
/* Put what they were encoded to where the others are. 0 if all were, else what is missing. */
enum { NOTHING, ROOM_FOR_COMPRESSED, ROOM_FOR_RAW, LOAN };
int stage_move(struct store *store, const struct from_stage *pages, const struct payloads *payloads);

/* Decode the page at *location* to *page*. 0 where there is none in the arena, or a damaged one. */
int store_page(const struct store *store, uint64_t location, char *page, unsigned page_size);

#endif
