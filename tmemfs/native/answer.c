/* What the lane answers, by a thread of its own or by the session's. */

#define _GNU_SOURCE
#include "lane_inside.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fuse.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The session's thread writes so many bytes at once: as a rule the kernel only copies them. Where it
   took longer than that, a disk is behind with what it was given, and Python's threads write for a
   while. */
#define WRITTEN_NOW (UINT32_C(128) << 10)
#define SLOW_NS INT64_C(2000000)
#define SLOW_FOR_NS INT64_C(1000000000)

static void note(struct lane *lane, const struct note *note)
{
    pthread_mutex_lock(&lane->lock);
    /* Where there are more, somebody reads without what is read ahead. */
    if (lane->note_count < NOTES) {
        lane->notes[(lane->first_note + lane->note_count++) % NOTES] = *note;
        tell(lane->note_event);
    }
    pthread_mutex_unlock(&lane->lock);
}

/* It fails where who has asked is gone. */
static void reply(struct lane *lane, const struct fuse_in_header *header, void *body, size_t size)
{
    struct fuse_out_header out = {.unique = header->unique,
                                  .len = (uint32_t)(sizeof out + size)};
    struct iovec whole[] = {{&out, sizeof out}, {body, size}};
    (void)!writev(lane->device, whole, 2);
    __atomic_fetch_add(&lane->answered, 1, __ATOMIC_RELAXED);
}

int answer_read(struct lane *lane, const struct request *request, char *room)
{
    const struct fuse_in_header *header = (const void *)request->bytes;
    const struct fuse_read_in *in = (const void *)(header + 1);
    struct note noted;
    char *bytes;
    if (!is_request(request, FUSE_READ, sizeof *in) || in->size > lane->most)
        return 0;
    ssize_t found = serve_read(lane->store, &lane->grants, in->fh, in->offset, in->size, room,
                               &bytes, &noted);
    if (found < 0)
        return 0;
    reply(lane, header, bytes, (size_t)found);
    if (noted.last)
        note(lane, &noted);
    return 1;
}

/* Before a thread may have to wait, or works for long: let another one read the device. */
static void let_another_read(struct lane *lane)
{
    pthread_mutex_lock(&lane->lock);
    device_wake_one_more(lane);
    pthread_mutex_unlock(&lane->lock);
}

/* Whether a request is a write that the lane may make: not of the kernel's own accord, nor where
   set-ID bits have to go, nor behind the end as it is by now. */
static int is_our_write(struct lane *lane, const struct request *request)
{
    const struct fuse_write_in *in = (const void *)(request->bytes + sizeof(struct fuse_in_header));
    return is_request(request, FUSE_WRITE, sizeof *in) &&
           is_request(request, FUSE_WRITE, sizeof *in + in->size) &&
           !(in->write_flags & ~(uint32_t)FUSE_WRITE_LOCKOWNER) && !(in->flags & O_APPEND) &&
           serve_may_write(lane->store, &lane->grants, in->fh);
}

static int write_as(struct lane *lane, const struct request *request, struct caller *caller)
{
    const struct fuse_in_header *header = (const void *)request->bytes;
    const struct fuse_write_in *in = (const void *)(header + 1);
    struct fuse_write_out out = {.size = in->size};
    if (!caller_become(caller, header->uid, header->gid) ||
        serve_write(lane->store, &lane->grants, in->fh, in->offset, (const char *)(in + 1),
                    in->size) < 0)
        return 0;
    reply(lane, header, &out, sizeof out);
    return 1;
}

/* A disk may keep whoever writes waiting: somebody else has to go on reading meanwhile. */
int answer_write(struct lane *lane, const struct request *request, struct caller *caller)
{
    int answered = 0;
    if (!is_our_write(lane, request))
        return 0;
    unsigned writers = __atomic_add_fetch(&lane->writers, 1, __ATOMIC_SEQ_CST);
    if (writers < lane->threads && __atomic_load_n(&lane->wanted, __ATOMIC_SEQ_CST)) {
        if (__atomic_load_n(&lane->awake, __ATOMIC_SEQ_CST) <= writers)
            let_another_read(lane);
        answered = write_as(lane, request, caller);
    }
    __atomic_sub_fetch(&lane->writers, 1, __ATOMIC_SEQ_CST);
    return answered;
}

/* Whole pages of a swap volume are written. Without *room* by the session, which has the turn. */
static int answer_put(struct lane *lane, const struct request *request, char *room)
{
    const struct fuse_in_header *header = (const void *)request->bytes;
    const struct fuse_write_in *in = (const void *)(header + 1);
    const struct stored what = {in->fh, in->offset, in->size, room == NULL, lane->threads - 1};
    struct fuse_write_out out = {.size = in->size};
    const char *data = (const char *)(in + 1);
    if (in->size > lane->largest || !is_request(request, FUSE_WRITE, sizeof *in + in->size) ||
        !serve_is_swap(lane->store, &lane->grants, &what))
        return 0;
    if (room != NULL && turn_is_python(&lane->store->turn))
        let_another_read(lane);
    if (!lane_stage(lane, &what, data)) {
        if (room == NULL)
            return 0;
        let_another_read(lane); /* it takes as long as a large read */
        if (!serve_put(lane->store, &lane->grants, &what, data, room))
            return 0;
    }
    reply(lane, header, &out, sizeof out);
    return 1;
}

/* Or discarded. */
static int answer_flush(struct lane *lane, const struct request *request, int has_turn)
{
    const struct fuse_in_header *header = (const void *)request->bytes;
    const struct fuse_fallocate_in *in = (const void *)(header + 1);
    const struct stored what = {in->fh, in->offset, in->length, has_turn, lane->threads - 1};
    const uint32_t zeros = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE;
    if (!(in->mode & zeros) || in->mode & ~(zeros | FALLOC_FL_KEEP_SIZE) ||
        !serve_flush(lane->store, &lane->grants, &what))
        return 0;
    reply(lane, header, NULL, 0);
    if (stager_missing(&lane->stager)) /* there may be room again */
        stager_poke(&lane->stager);
    return 1;
}

int answer_change(struct lane *lane, const struct request *request, char *room)
{
    if (is_request(request, FUSE_WRITE, sizeof(struct fuse_write_in)))
        return answer_put(lane, request, room);
    return is_request(request, FUSE_FALLOCATE, sizeof(struct fuse_fallocate_in)) &&
           answer_flush(lane, request, room == NULL);
}

int answer_write_for_session(struct lane *lane, const struct request *request)
{
    const struct fuse_write_in *in = (const void *)(request->bytes + sizeof(struct fuse_in_header));
    int64_t begun = now();
    if (!is_our_write(lane, request) || in->size > WRITTEN_NOW || begun < lane->slow_until)
        return 0;
    caller_strip(&lane->caller);
    int answered = write_as(lane, request, &lane->caller);
    caller_restore(&lane->caller);
    if (now() - begun > SLOW_NS)
        lane->slow_until = begun + SLOW_FOR_NS;
    return answered;
}
