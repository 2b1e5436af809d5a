/* What we need of a FUSE session and pyfuse3 does not offer.

   This module has functions with names of libfuse's: fuse_session_new(), and those that receive a
   request and process it. pyfuse3 finds ours first when the module was loaded before it, with
   RTLD_GLOBAL (tmemfs/fuse/session.py does so and is the other half of this), and ours go on to
   libfuse's. On the way:

   fallocate. When the kernel frees swap slots it discards them, and the loop device turns a discard
   into fallocate(PUNCH_HOLE) on its file. Without it what nobody needs any more fills the budget.
   pyfuse3 has no handler for that request, but the table of operations that it hands to libfuse
   has a place for one, which is filled in here.

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
   would ever answer the request: refuse() does. Which one a task has is in a context variable. */

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
#include <stddef.h>
#include <sys/uio.h>

#define SLOT_END (offsetof(struct fuse_lowlevel_ops, fallocate) + sizeof(void *))
#define EXPORTED(name) __asm__(name) __attribute__((visibility("default")))

typedef void *plain_fn(void *args, const void *ops, size_t size, void *data);
typedef void *versioned_fn(void *args, const void *ops, size_t size, void *version, void *data);
typedef int receive_fn(struct fuse_session *session, struct fuse_buf *buffer);
typedef void process_fn(struct fuse_session *session, const struct fuse_buf *buffer);
typedef int reply_fn(fuse_req_t request, int error);

static unsigned max_background, max_write; /* 0: as libfuse has it */
static void (*pyfuse3_init)(void *data, struct fuse_conn_info *connection);
static PyObject *listener;      /* called with each fallocate; NULL before listen() */
static PyObject *unique;        /* context variable: the number of the request of this task */
static reply_fn *reply_err;     /* libfuse's; NULL until a session has our slot */
static struct fuse_buf request; /* the one that was received last; its memory is for all */
static struct fuse_session *current_session;
static int (*session_fd)(struct fuse_session *session); /* libfuse's */

static void on_init(void *data, struct fuse_conn_info *connection)
{
    if (pyfuse3_init != NULL)
        pyfuse3_init(data, connection);
    if (max_background)
        connection->max_background = max_background;
    if (max_write && max_write < connection->max_write)
        connection->max_write = max_write;
}

static void on_fallocate(fuse_req_t req, fuse_ino_t inode, int mode, off_t offset, off_t length,
                         struct fuse_file_info *file)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    if (listener == NULL) {
        reply_err(req, ENOSYS); /* the kernel will not ask again */
    } else {
        PyObject *done = PyObject_CallFunction(
            listener, "KKKiLL", (unsigned long long)(uintptr_t)req, (unsigned long long)inode,
            (unsigned long long)file->fh, mode, (long long)offset, (long long)length);
        if (done == NULL) {
            PyErr_WriteUnraisable(listener);
            reply_err(req, EIO);
        }
        Py_XDECREF(done);
    }
    PyGILState_Release(gil);
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

/* A copy of the table with our slots filled in, for the caller to free. It may be shorter or longer
   than the one of our headers, and must not get shorter. */
static void *with_slot(const void *ops, size_t *size)
{
    size_t length = *size > SLOT_END ? *size : SLOT_END;
    struct fuse_lowlevel_ops *copy = calloc(1, length > sizeof *copy ? length : sizeof *copy);
    if (copy != NULL) {
        memcpy(copy, ops, *size);
        copy->fallocate = on_fallocate;
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
    void *real = of_libfuse(caller, name), *reply = of_libfuse(caller, "fuse_reply_err");
    if (real == NULL)
        return NULL;
    void *copy = reply ? with_slot(ops, &size) : NULL, *session;
    const void *table = copy ? copy : ops;
    if (version != NULL)
        session = ((versioned_fn *)real)(args, table, size, version, data);
    else
        session = ((plain_fn *)real)(args, table, size, data);
    if (session != NULL && copy != NULL)
        reply_err = reply;
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

static void note_unique(uint64_t number)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *value = PyLong_FromUnsignedLongLong(number);
    PyObject *token = value ? PyContextVar_Set(unique, value) : NULL;
    if (token == NULL)
        PyErr_Clear(); /* no memory: of this one request it is not known any more */
    Py_XDECREF(value);
    Py_XDECREF(token);
    PyGILState_Release(gil);
}

/* The caller's buffer stays as it is, with no memory of its own. */
int receive(struct fuse_session *session, struct fuse_buf *buffer)
{
    static receive_fn *real;
    if (real == NULL)
        real = of_libfuse(__builtin_return_address(0), "fuse_session_receive_buf");
    if (real == NULL)
        return -ENOSYS;
    (void)buffer;
    /* Without memory the first time, which libfuse then makes as large as it has to be. */
    struct fuse_buf ours = {.mem = request.mem};
    int size = real(session, &ours);
    request = ours;
    if (size > 0) /* from here on somebody waits for an answer */
        note_unique(((struct fuse_in_header *)request.mem)->unique);
    return size;
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
    real(session, &request);
    if (first) { /* by which it was settled how large a request may be */
        free(request.mem);
        request.mem = NULL;
    }
}

static PyObject *listen(PyObject *module, PyObject *callable)
{
    Py_INCREF(callable);
    Py_XSETREF(listener, callable);
    Py_RETURN_NONE;
}

static PyObject *reply(PyObject *module, PyObject *args)
{
    unsigned long long asked;
    int error;
    if (!PyArg_ParseTuple(args, "Ki", &asked, &error))
        return NULL;
    reply_err((fuse_req_t)(uintptr_t)asked, error);
    Py_RETURN_NONE;
}

static PyObject *bounds(PyObject *module, PyObject *args)
{
    if (!PyArg_ParseTuple(args, "II", &max_background, &max_write))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *refuse(PyObject *module, PyObject *args)
{
    struct fuse_out_header header = {.len = sizeof header};
    unsigned long long number;
    int error;
    if (!PyArg_ParseTuple(args, "Ki", &number, &error))
        return NULL;
    header.unique = number;
    header.error = -error;
    struct iovec whole = {&header, sizeof header};
    /* Past libfuse, to which the request may not be known yet, or not any more. The kernel says ENOENT
       of one that was answered already, and nothing else happens. */
    if (current_session != NULL && session_fd != NULL &&
        writev(session_fd(current_session), &whole, 1) < 0 && errno != ENOENT)
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

static PyObject *active(PyObject *module, PyObject *none)
{
    return PyBool_FromLong(reply_err != NULL);
}

static PyMethodDef methods[] = {{"listen", listen, METH_O, NULL},
                                {"reply", reply, METH_VARARGS, NULL},
                                {"active", active, METH_NOARGS, NULL},
                                {"bounds", bounds, METH_VARARGS, NULL},
                                {"refuse", refuse, METH_VARARGS, NULL},
                                {"touch_stack", touch_stack, METH_VARARGS, NULL},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_session", NULL, -1, methods};

PyMODINIT_FUNC PyInit__session(void)
{
    PyObject *module = PyModule_Create(&definition);
    unique = PyContextVar_New("unique", NULL);
    if (module == NULL || unique == NULL || PyModule_AddObjectRef(module, "unique", unique) < 0) {
        Py_XDECREF(module);
        return NULL;
    }
    return module;
}
