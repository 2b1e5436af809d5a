/* A filesystem that does nothing, in C: one file, all of it in memory, one thread.
 *
 *     null_fuse FILE MOUNTPOINT      shows FILE as MOUNTPOINT/data until it is unmounted
 *
 * It is the floor under every FUSE filesystem on the machine: kernel, libfuse, copy, nothing else.
 * What is written stays in memory; FILE is not changed.
 */
#define FUSE_USE_VERSION 35

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define DATA_INO 2
#define FOREVER 3600.0

static char *data;
static struct stat root_stat = {.st_ino = FUSE_ROOT_ID, .st_mode = S_IFDIR | 0755, .st_nlink = 2};
static struct stat data_stat = {.st_ino = DATA_INO, .st_mode = S_IFREG | 0644, .st_nlink = 1};

static void null_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param entry = {
        .ino = DATA_INO, .attr = data_stat, .attr_timeout = FOREVER, .entry_timeout = FOREVER};

    if (parent == FUSE_ROOT_ID && !strcmp(name, "data"))
        fuse_reply_entry(req, &entry);
    else
        fuse_reply_err(req, ENOENT);
}

static void null_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
    (void)info;
    fuse_reply_attr(req, ino == DATA_INO ? &data_stat : &root_stat, FOREVER);
}

static void null_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
    (void)ino;
    info->keep_cache = 1;
    fuse_reply_open(req, info);
}

static void null_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                      struct fuse_file_info *info)
{
    size_t left = offset < data_stat.st_size ? (size_t)(data_stat.st_size - offset) : 0;

    (void)ino;
    (void)info;
    fuse_reply_buf(req, data + offset, size < left ? size : left);
}

static void null_write(fuse_req_t req, fuse_ino_t ino, const char *from, size_t size, off_t offset,
                       struct fuse_file_info *info)
{
    (void)ino;
    (void)info;
    if (offset + (off_t)size > data_stat.st_size) {
        fuse_reply_err(req, ENOSPC);
        return;
    }
    memcpy(data + offset, from, size);
    fuse_reply_write(req, size);
}

static const struct fuse_lowlevel_ops operations = {
    .lookup = null_lookup,
    .getattr = null_getattr,
    .open = null_open,
    .read = null_read,
    .write = null_write,
};

static int load(const char *path)
{
    int file = open(path, O_RDONLY);
    struct stat found;

    if (file < 0 || fstat(file, &found))
        return -1;
    data_stat.st_size = found.st_size;
    data = mmap(NULL, found.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_POPULATE, file, 0);
    close(file);
    return data == MAP_FAILED ? -1 : 0;
}

int main(int argc, char *argv[])
{
    char *fuse_argv[] = {argv[0], "-o", "default_permissions,fsname=null_fuse"};
    struct fuse_args args = FUSE_ARGS_INIT(3, fuse_argv);
    struct fuse_session *session;
    int status = 1;

    if (argc != 3 || load(argv[1])) {
        fprintf(stderr, "usage: null_fuse FILE MOUNTPOINT, with a FILE that is not empty\n");
        return 2;
    }
    session = fuse_session_new(&args, &operations, sizeof operations, NULL);
    if (!session)
        return 1;
    if (!fuse_set_signal_handlers(session) && !fuse_session_mount(session, argv[2])) {
        status = fuse_session_loop(session) < 0;
        fuse_session_unmount(session);
    }
    fuse_session_destroy(session);
    return status;
}
