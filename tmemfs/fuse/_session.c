/* What we need of a FUSE session and pyfuse3 does not offer.

   This module has functions with names of libfuse's: fuse_session_new(), and those that receive a
   request and process it. pyfuse3 finds ours first when the module was loaded before it, with
   RTLD_GLOBAL (tmemfs/fuse/session.py does so and is the other half of this), and ours go on to
   libfuse's. On the way:

   Raw requests. pyfuse3 has no handler for some, fallocate above all: when the kernel frees swap
   slots it discards them, and the loop device turns a discard into fallocate(PUNCH_HOLE) on its
   file. Those that somebody listens for are handed over as they came, and answered as raw.

   No pipe. Where the table has a write_buf(), libfuse splices every request into a pipe before it
   looks at it, for which the kernel takes new memory, a page and more each time: a daemon that
   serves swap would wait there for memory that only it can free. So write_buf() goes; a request is
   read into a buffer that is there, and goes to write().

   One buffer. Each of pyfuse3's tasks would have a buffer of its own for the largest request, more
   than a megabyte, and there are as many tasks as requests under way. But whatever pyfuse3 wants of
   a request it has copied by the time that fuse_session_process_buf() returns, and nothing else
   runs between the two calls. So one buffer serves all tasks.

   Bounds. How many requests that nobody waits for (reads ahead, and all that a loop device asks) the
   kernel may have under way at once, and how large one may be: bounds(), before the session is
   made.

   An answer, always. Where pyfuse3 fails outside of a handler, out of memory above all, nobody
   would ever answer the request: answer() does. Which one a task has is in a context variable, and
   with it what pyfuse3 does not tell of it: whose it is, and flags.

   No flush. Where a close has nothing to tell, the kernel need not ask (FOPEN_NOFLUSH), and pyfuse3
   cannot say so. It can say that a file is not seekable, which none of ours is: in replies to opens
   that word is taken for the other.

   The lane. Where there is one (tmemfs/native/lane.h), its threads read the device, and what they
   do not answer is received from them. So it is done here and not by fuse_session_custom_io(), which
   would have each request copied. While they are parked, the session reads the device as ever, and
   offers the lane each request first. Before a request is handed out, Python hears of what the lane has
   written by then.

   What libfuse cannot ask for. In the reply to the first request a filesystem says what it wants of
   the kernel. libfuse's reply is amended on its way: HANDLE_KILLPRIV_V2, with which the kernel
   leaves it to the source to clear set-ID bits, and says when; PARALLEL_DIROPS, with which names of
   one directory are looked up, and listed, without one waiting for the other. */

#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#define FUSE_USE_VERSION 31

#include <Python.h>
#include <alloca.h>
#include <dlfcn.h>
#include <errno.h>
#include <fuse3/fuse_lowlevel.h>
#include <linux/fuse.h>
#include <malloc.h>
#include <stddef.h>
#include <sys/uio.h>
#include <unistd.h>

#include "../native/lane.h"

/* What later headers than ours have. */
#ifndef FUSE_HANDLE_KILLPRIV_V2
#define FUSE_HANDLE_KILLPRIV_V2 (1 << 28)
#endif
#define OPCODES 128
#define SLOT_END (offsetof(struct fuse_lowlevel_ops, write_buf) + sizeof(void *))
#define EXPORTED(name) __asm__(name) __attribute__((visibility("default")))

typedef void *plain_fn(void *args, const void *ops, size_t size, void *data);
typedef void *versioned_fn(void *args, const void *ops, size_t size, void *version, void *data);
typedef int receive_fn(struct fuse_session *session, struct fuse_buf *buffer);
typedef void process_fn(struct fuse_session *session, const struct fuse_buf *buffer);
typedef int custom_io_fn(struct fuse_session *session, const struct fuse_custom_io *io, int fd);

static unsigned max_background, max_write; /* 0: as libfuse has it */
static void (*pyfuse3_init)(void *data, struct fuse_conn_info *connection);
static PyObject *listener;      /* called with each raw request; NULL before listen() */
static PyObject *settler;       /* called when the lane has written; NULL before attach() */
static unsigned char raw[OPCODES]; /* whether somebody listens for it */
static PyObject *asked;         /* context variable: what this task's request says of itself */
static int with_ours;           /* whether a session has our table */
static struct fuse_buf own;     /* what requests are read into; its memory is for all */
static struct fuse_buf request; /* the one that was received last: there, or in the lane's memory */
static const struct lane_capsule *lane; /* NULL without one */
static int touches;             /* whether memory is to be there before it is needed */
static struct fuse_session *current_session;
static int (*session_fd)(struct fuse_session *session); /* libfuse's */
static uint64_t first_unique;   /* the first request, in whose reply it is said what is wanted */
static unsigned offered;        /* by the kernel, in that request */
static unsigned granted;        /* of that, what was asked for and libfuse cannot ask for */
static int dont_mask;

static void on_init(void *data, struct fuse_conn_info *connection)
{
    if (pyfuse3_init != NULL)
        pyfuse3_init(data, connection);
    if (max_background)
        connection->max_background = max_background;
    if (max_write && max_write < connection->max_write)
        connection->max_write = max_write;
    /* A default access control list takes the place of the umask, and the source knows it. */
    if ((dont_mask = (connection->capable & FUSE_CAP_DONT_MASK) != 0))
        connection->want |= FUSE_CAP_DONT_MASK;
}

/* What the object at address `caller` would have found if it were not for us: it may bring a
   libfuse of its own, so that another one of the same name would not do. */
static void *of_libfuse(const void *caller, const char *name)
{
    Dl_info object;
    if (!dladdr(caller, &object))
        return NULL;
    void *handle = dlopen(object.dli_fname, RTLD_LAZY | RTLD_NOLOAD), *found = NULL;
    if (handle != NULL) {
        found = dlsym(handle, name);
#ifdef __GLIBC__
        if (found == NULL) /* a later libfuse keeps it for those that were built before */
            found = dlvsym(handle, name, "FUSE_3.0");
#endif
        dlclose(handle);
    }
    return found;
}

/* The same, of what later versions of libfuse have in another form, in the form of version 3.0. */
static void *of_libfuse_3(const void *caller, const char *name)
{
#ifdef __GLIBC__
    Dl_info object;
    if (!dladdr(caller, &object))
        return NULL;
    void *handle = dlopen(object.dli_fname, RTLD_LAZY | RTLD_NOLOAD), *found = NULL;
    if (handle != NULL) {
        found = dlvsym(handle, name, "FUSE_3.0");
        dlclose(handle);
    }
    return found;
#else
    return NULL;
#endif
}

/* A copy of the table with our slots filled in, for the caller to free. It may be shorter or longer
   than the one of our headers, and must not get shorter. */
static void *with_slots(const void *ops, size_t *size)
{
    size_t length = *size > SLOT_END ? *size : SLOT_END;
    struct fuse_lowlevel_ops *copy = calloc(1, length > sizeof *copy ? length : sizeof *copy);
    if (copy != NULL) {
        memcpy(copy, ops, *size);
        pyfuse3_init = copy->init;
        copy->init = on_init;
        if (copy->write != NULL) /* else libfuse would splice each request into a pipe: see above */
            copy->write_buf = NULL;
        *size = length;
    }
    return copy;
}

static void *open_session(const void *caller, const char *name, void *args, const void *ops,
                          size_t size, void *version, void *data)
{
    void *real = of_libfuse(caller, name);
    if (real == NULL)
        return NULL;
    void *copy = with_slots(ops, &size), *session;
    const void *table = copy ? copy : ops;
    if (version != NULL)
        session = ((versioned_fn *)real)(args, table, size, version, data);
    else
        session = ((plain_fn *)real)(args, table, size, data);
    with_ours = session != NULL && copy != NULL;
    free(copy);
    current_session = session;
    session_fd = of_libfuse(caller, "fuse_session_fd");
    return session;
}

/* Since libfuse 3.17 the one is a macro over the other. Named by labels, which do not clash with
   what any version of the header declares. */
plain_fn new_session EXPORTED("fuse_session_new");
versioned_fn new_versioned EXPORTED("fuse_session_new_versioned");
receive_fn receive EXPORTED("fuse_session_receive_buf");
process_fn process EXPORTED("fuse_session_process_buf");

void *new_session(void *args, const void *ops, size_t size, void *data)
{
    return open_session(__builtin_return_address(0), "fuse_session_new", args, ops, size, NULL,
                        data);
}

void *new_versioned(void *args, const void *ops, size_t size, void *version, void *data)
{
    return open_session(__builtin_return_address(0), "fuse_session_new_versioned", args, ops, size,
                        version, data);
}

static ssize_t read_request(int fd, void *buffer, size_t size, void *data)
{
    (void)data;
    return read(fd, buffer, size);
}

static ssize_t write_reply(int fd, struct iovec *parts, int count, void *data)
{
    struct fuse_out_header *header = parts[0].iov_base;
    (void)data;
    if (first_unique && header->unique == first_unique) {
        first_unique = 0;
        if (!header->error && count > 1) {
            struct fuse_init_out *out = parts[1].iov_base;
            granted = offered & (FUSE_HANDLE_KILLPRIV_V2 | FUSE_PARALLEL_DIROPS);
            if (granted & FUSE_HANDLE_KILLPRIV_V2)
                out->flags &= ~FUSE_HANDLE_KILLPRIV; /* an older and simpler one */
            out->flags |= granted;
        }
    }
    return writev(fd, parts, count);
}

/* From now on replies pass through write_reply(). libfuse offers this to those who have a device of
   their own; ours stays the same. Without it nothing is amended. */
static void watch_replies(const void *caller, struct fuse_session *session)
{
    static const struct fuse_custom_io io = {.writev = write_reply, .read = read_request};
    custom_io_fn *custom = of_libfuse_3(caller, "fuse_session_custom_io");
    if (custom != NULL && session_fd != NULL)
        custom(session, &io, session_fd(session));
}

/* What a request says of itself that pyfuse3 does not tell: its flags, of the kinds that have some. */
static unsigned flags_of(const struct fuse_in_header *header)
{
    const void *body = header + 1;
    switch (header->opcode) {
    case FUSE_SETATTR:
        return ((const struct fuse_setattr_in *)body)->valid;
    case FUSE_WRITE:
        return ((const struct fuse_write_in *)body)->write_flags;
    default:
        return 0;
    }
}

static void note_request(const struct fuse_in_header *header)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *value = Py_BuildValue("KKIIII", (unsigned long long)header->unique,
                                    (unsigned long long)header->nodeid, header->uid, header->gid,
                                    header->pid, flags_of(header));
    PyObject *token = value ? PyContextVar_Set(asked, value) : NULL;
    if (token == NULL)
        PyErr_Clear(); /* no memory: of this one request it is not known any more */
    Py_XDECREF(value);
    Py_XDECREF(token);
    PyGILState_Release(gil);
}

/* Let Python hear of what the lane has written, before it sees a request that came later. Where it
   cannot, nobody is to be answered with what was there before: 0 where the request is refused. */
static int settle(const struct fuse_in_header *header)
{
    struct fuse_out_header refusal = {.len = sizeof refusal, .error = -ENOMEM,
                                      .unique = header->unique};
    struct iovec whole = {&refusal, sizeof refusal};
    if (lane == NULL || !lane->session->unsettled(lane->lane))
        return 1;
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *done = PyObject_CallNoArgs(settler);
    if (done == NULL)
        PyErr_WriteUnraisable(settler);
    Py_XDECREF(done);
    PyGILState_Release(gil);
    if (done != NULL || header->opcode == FUSE_FORGET || header->opcode == FUSE_BATCH_FORGET ||
        header->opcode == FUSE_INTERRUPT) /* of which nobody awaits an answer */
        return 1;
    if (writev(session_fd(current_session), &whole, 1) < 0)
        errno = 0; /* the mount has gone, and with it who asked */
    return 0;
}

/* The caller's buffer stays as it is, with no memory of its own. */
int receive(struct fuse_session *session, struct fuse_buf *buffer)
{
    static receive_fn *real;
    if (real == NULL) {
        real = of_libfuse(__builtin_return_address(0), "fuse_session_receive_buf");
        watch_replies(__builtin_return_address(0), session);
    }
    if (real == NULL)
        return -ENOSYS;
    (void)buffer;
    if (lane != NULL && (request.size = lane->session->take(lane->lane, &request.mem)) > 0) {
        if (!settle(request.mem))
            return -EINTR;
        note_request(request.mem);
        return (int)request.size;
    }
    if (lane != NULL && !lane->session->reads(lane->lane))
        return -EINTR; /* which is nothing to pyfuse3: it waits again */
    /* Without memory the first time, which libfuse then makes as large as it has to be. */
    struct fuse_buf ours = {.mem = own.mem};
    int size = real(session, &ours);
    if (touches && own.mem == NULL && ours.mem != NULL && size > 0) {
        /* All of it: the lane may have had all large requests so far. */
        size_t all = malloc_usable_size(ours.mem);
        memset((char *)ours.mem + size, 0, all - (size_t)size);
    }
    own = request = ours;
    if (size == -EAGAIN || (size > 0 && lane != NULL &&
                            lane->session->answer(lane->lane, own.mem, (size_t)size)))
        return -EINTR;
    if (size > 0) { /* from here on somebody waits for an answer */
        if (!settle(request.mem))
            return -EINTR;
        note_request(request.mem);
    }
    return size;
}

typedef int reply_open_fn(fuse_req_t request, const struct fuse_file_info *info);
typedef int reply_create_fn(fuse_req_t request, const struct fuse_entry_param *entry,
                            const struct fuse_file_info *info);
reply_open_fn reply_open EXPORTED("fuse_reply_open");
reply_create_fn reply_create EXPORTED("fuse_reply_create");

static struct fuse_file_info without_flush(const struct fuse_file_info *info)
{
    struct fuse_file_info ours = *info;
    ours.noflush = info->nonseekable;
    ours.nonseekable = 0;
    return ours;
}

int reply_open(fuse_req_t request, const struct fuse_file_info *info)
{
    static reply_open_fn *real;
    struct fuse_file_info ours = without_flush(info);
    if (real == NULL)
        real = of_libfuse(__builtin_return_address(0), "fuse_reply_open");
    return real == NULL ? -ENOSYS : real(request, &ours);
}

int reply_create(fuse_req_t request, const struct fuse_entry_param *entry,
                 const struct fuse_file_info *info)
{
    static reply_create_fn *real;
    struct fuse_file_info ours = without_flush(info);
    if (real == NULL)
        real = of_libfuse(__builtin_return_address(0), "fuse_reply_create");
    return real == NULL ? -ENOSYS : real(request, entry, &ours);
}

static void begin(const struct fuse_in_header *header)
{
    struct fuse_out_header refusal = {.len = sizeof refusal, .error = -EIO};
    struct iovec whole = {&refusal, sizeof refusal};
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *done = PyObject_CallFunction(
        listener, "IKKy#", header->opcode, (unsigned long long)header->unique,
        (unsigned long long)header->nodeid, (const char *)(header + 1),
        (Py_ssize_t)(header->len - sizeof *header));
    if (done == NULL) {
        PyErr_WriteUnraisable(listener);
        refusal.unique = header->unique;
        if (writev(session_fd(current_session), &whole, 1) < 0)
            errno = 0; /* the mount has gone, and with it who asked */
    }
    Py_XDECREF(done);
    PyGILState_Release(gil);
}

void process(struct fuse_session *session, const struct fuse_buf *buffer)
{
    static process_fn *real;
    if (real == NULL)
        real = of_libfuse(__builtin_return_address(0), "fuse_session_process_buf");
    (void)buffer;
    if (real == NULL || request.mem == NULL)
        return;
    struct fuse_in_header *header = request.mem;
    int first = header->opcode == FUSE_INIT;
    if (first) {
        first_unique = header->unique;
        offered = ((struct fuse_init_in *)(header + 1))->flags;
    }
    if (header->opcode < OPCODES && raw[header->opcode]) {
        begin(header);
        return;
    }
    real(session, &request);
    if (first) { /* by which it was settled how large a request may be */
        free(own.mem);
        own.mem = NULL;
    }
}

static PyObject *listen(PyObject *module, PyObject *args)
{
    PyObject *callable;
    Py_buffer opcodes;
    if (!PyArg_ParseTuple(args, "Oy*", &callable, &opcodes))
        return NULL;
    for (Py_ssize_t i = 0; i < opcodes.len; i++)
        raw[((unsigned char *)opcodes.buf)[i] % OPCODES] = 1;
    PyBuffer_Release(&opcodes);
    Py_INCREF(callable);
    Py_XSETREF(listener, callable);
    Py_RETURN_NONE;
}

static PyObject *bounds(PyObject *module, PyObject *args)
{
    if (!PyArg_ParseTuple(args, "II", &max_background, &max_write))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *answer(PyObject *module, PyObject *args)
{
    struct fuse_out_header header;
    unsigned long long number;
    Py_buffer body;
    int error;
    if (!PyArg_ParseTuple(args, "Kiy*", &number, &error, &body))
        return NULL;
    header.unique = number;
    header.error = -error;
    header.len = sizeof header + body.len;
    struct iovec whole[] = {{&header, sizeof header}, {body.buf, body.len}};
    /* Past libfuse, to which the request may not be known, or not any more. The kernel says ENOENT of
       one that was answered already, and nothing else happens. */
    int failed = current_session != NULL && session_fd != NULL &&
                 writev(session_fd(current_session), whole, 2) < 0 && errno != ENOENT;
    PyBuffer_Release(&body);
    if (failed)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static __attribute__((noinline)) void touch(size_t size)
{
    memset(alloca(size), 0, size);
    __asm__ volatile("" ::: "memory");
}

static PyObject *touch_stack(PyObject *module, PyObject *args)
{
    unsigned size;
    if (!PyArg_ParseTuple(args, "I", &size))
        return NULL;
    touch(size);
    Py_RETURN_NONE;
}

static PyObject *descriptor(PyObject *module, PyObject *none)
{
    return PyLong_FromLong(current_session && session_fd ? session_fd(current_session) : -1);
}

static PyObject *attach(PyObject *module, PyObject *args)
{
    const struct lane_capsule *shown = NULL;
    PyObject *capsule, *callable = NULL;
    if (!PyArg_ParseTuple(args, "Op|O", &capsule, &touches, &callable))
        return NULL;
    if (capsule != Py_None &&
        (shown = PyCapsule_GetPointer(capsule, LANE_CAPSULE)) == NULL)
        return NULL;
    lane = shown;
    Py_XINCREF(callable);
    Py_XSETREF(settler, callable);
    Py_RETURN_NONE;
}

static PyObject *active(PyObject *module, PyObject *none)
{
    return PyBool_FromLong(with_ours);
}

static PyObject *wanted(PyObject *module, PyObject *none)
{
    return Py_BuildValue("{sOsOsO}", "dont_mask", dont_mask ? Py_True : Py_False,
                         "handle_killpriv_v2",
                         granted & FUSE_HANDLE_KILLPRIV_V2 ? Py_True : Py_False, "parallel_dirops",
                         granted & FUSE_PARALLEL_DIROPS ? Py_True : Py_False);
}

static PyMethodDef methods[] = {{"listen", listen, METH_VARARGS, NULL},
                                {"answer", answer, METH_VARARGS, NULL},
                                {"attach", attach, METH_VARARGS, NULL},
                                {"active", active, METH_NOARGS, NULL},
                                {"wanted", wanted, METH_NOARGS, NULL},
                                {"descriptor", descriptor, METH_NOARGS, NULL},
                                {"bounds", bounds, METH_VARARGS, NULL},
                                {"touch_stack", touch_stack, METH_VARARGS, NULL},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_session", NULL, -1, methods};

PyMODINIT_FUNC PyInit__session(void)
{
    PyObject *module = PyModule_Create(&definition);
    asked = PyContextVar_New("asked", NULL);
    if (module == NULL || asked == NULL || PyModule_AddObjectRef(module, "asked", asked) < 0) {
        Py_XDECREF(module);
        return NULL;
    }
    return module;
}
