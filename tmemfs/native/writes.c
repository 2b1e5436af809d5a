#define _GNU_SOURCE
#include "writes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct file **bucket_of(struct files *files, const struct wide *id)
{
    uint64_t mixed = id->part[0] ^ id->part[1] ^ id->part[2];
    return &files->buckets[mixed * UINT64_C(0x9E3779B97F4A7C15) >> 54];
}

int files_begin(struct files *files)
{
    memset(files, 0, sizeof *files);
    files->last = &files->first;
    files->kept = malloc(MOST_KEPT);
    return files->kept == NULL ? ENOMEM : pthread_mutex_init(&files->lock, NULL);
}

void files_end(struct files *files)
{
    if (files->kept == NULL)
        return;
    for (unsigned i = 0; i < FILE_BUCKETS; i++)
        for (struct file *file = files->buckets[i], *next; file != NULL; file = next) {
            next = file->next;
            free(file);
        }
    free(files->kept);
    pthread_mutex_destroy(&files->lock);
}

struct file *files_enter(struct files *files, uint32_t table, const struct wide *id)
{
    struct file **bucket = bucket_of(files, id), *file = *bucket;
    while (file != NULL && (file->table != table || memcmp(&file->id, id, sizeof *id) != 0))
        file = file->next;
    if (file == NULL) {
        if ((file = calloc(1, sizeof *file)) == NULL)
            return NULL;
        file->id = *id;
        file->table = table;
        file->next = *bucket;
        *bucket = file;
    }
    file->grants++;
    return file;
}

/* With the lock of the store alone: it goes when nobody needs it. */
static void forget(struct files *files, struct file *file)
{
    struct file **link = bucket_of(files, &file->id);
    if (file->grants || !file_is_settled(file))
        return;
    while (*link != file)
        link = &(*link)->next;
    *link = file->next;
    free(file);
}

void files_leave(struct files *files, struct file *file)
{
    file->grants--;
    forget(files, file);
}

/* -- writes ----------------------------------------------------------------------------------- */

static int times_of(int fd, struct times *times)
{
    struct stat found;
    if (fstat(fd, &found))
        return -1;
    times->modified = found.st_mtim.tv_sec * INT64_C(1000000000) + found.st_mtim.tv_nsec;
    times->changed = found.st_ctim.tv_sec * INT64_C(1000000000) + found.st_ctim.tv_nsec;
    times->size = found.st_size;
    return 0;
}

static int are_equal(const struct times *one, const struct times *other)
{
    return one->modified == other->modified && one->changed == other->changed &&
           one->size == other->size;
}

void file_begin_write(struct file *file)
{
    __atomic_fetch_add(&file->under_way, 1, __ATOMIC_SEQ_CST);
}

/* With the lock: let *one* be all that Python has to hear of the file. */
static void begin_note(struct files *files, struct file *file, const struct written *one,
                       const char *data)
{
    file->written = *one;
    file->next_written = NULL;
    *files->last = file;
    files->last = &file->next_written;
    __atomic_fetch_add(&files->unsettled, 1, __ATOMIC_SEQ_CST);
    if (one->bytes && one->bytes <= MOST_KEPT && files->keeps == NULL) {
        memcpy(files->kept, data, one->bytes);
        files->keeps = file;
        file->written.kept = (uint32_t)one->bytes;
    }
}

/* With the lock: one more write. */
static void add_to_note(struct files *files, struct file *file, const struct written *one)
{
    struct written *all = &file->written;
    all->alone = all->alone && one->alone && are_equal(&all->after, &one->before);
    all->handle = one->handle;
    all->start = all->start < one->start ? all->start : one->start;
    all->end = all->end > one->end ? all->end : one->end;
    all->count += one->count;
    all->bytes += one->bytes;
    all->after = one->after;
    all->kept = 0;
    if (files->keeps == file)
        files->keeps = NULL;
}

static void note(struct files *files, struct file *file, const struct written *one,
                 const char *data)
{
    pthread_mutex_lock(&files->lock);
    if (file->state == WRITTEN)
        add_to_note(files, file, one);
    else
        begin_note(files, file, one, data);
    __atomic_store_n(&file->state, WRITTEN, __ATOMIC_SEQ_CST);
    __atomic_fetch_sub(&file->under_way, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&files->lock);
}

ssize_t file_write(struct files *files, struct file *file, uint64_t handle, int fd,
                   const char *data, size_t size, uint64_t offset)
{
    struct written one = {.handle = handle, .start = offset, .end = offset + size};
    one.alone = !times_of(fd, &one.before);
    ssize_t written = pwrite(fd, data, size, (off_t)offset);
    one.alone = !times_of(fd, &one.after) && one.alone;
    if (written == (ssize_t)size) {
        one.count = 1;
        one.bytes = size;
    }
    /* One that failed may have changed something, too. */
    note(files, file, &one, data);
    return one.count ? written : -1;
}

/* -- for Python ------------------------------------------------------------------------------- */

int files_tell(struct files *files, struct written *written, const char **kept)
{
    pthread_mutex_lock(&files->lock);
    struct file *file = files->first;
    if (files->told == NULL && file != NULL) {
        if ((files->first = file->next_written) == NULL)
            files->last = &files->first;
        __atomic_store_n(&file->state, TOLD, __ATOMIC_SEQ_CST);
        files->told = file;
        files->told_written = file->written;
    }
    int found = files->told != NULL;
    *written = files->told_written;
    *kept = files->kept;
    pthread_mutex_unlock(&files->lock);
    return found;
}

void files_settle(struct files *files)
{
    pthread_mutex_lock(&files->lock);
    struct file *file = files->told;
    if (file != NULL) {
        files->told = NULL;
        __atomic_fetch_sub(&files->unsettled, 1, __ATOMIC_SEQ_CST);
        if (files->keeps == file && files->told_written.kept)
            files->keeps = NULL;
        if (file->state == TOLD) /* else it was written again */
            __atomic_store_n(&file->state, SETTLED, __ATOMIC_SEQ_CST);
    }
    pthread_mutex_unlock(&files->lock);
    if (file != NULL)
        forget(files, file);
}
