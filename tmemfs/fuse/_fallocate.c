/* The request that pyfuse3 leaves out: fallocate.

   When the kernel frees swap slots it discards them, and the loop device turns a discard into
   fallocate(PUNCH_HOLE) on its file. Without it what nobody needs any more fills the budget. pyfuse3
   has no handler for that request, but the table of operations that it hands to libfuse has a
   place for one. So this module has a fuse_session_new() of its own, which fills that place in a
   copy of the table and goes on to libfuse's. It is pyfuse3's when the module was loaded first,
   with RTLD_GLOBAL; tmemfs/fuse/fallocate.py does so and is the other half of this.

   It takes one operation out of the table as well. Where there is a write_buf(), libfuse splices
   every request into a pipe before it looks at it, for which the kernel takes new memory, a page
   and more each time: a daemon that serves swap would wait there for memory that only it can free.
   Without, a request is read into a buffer that libfuse has, and goes to write().

   And it lets the kernel have more requests under way that nobody waits for, reads ahead of a
   reader above all. By default a mount has twelve: one file that does not answer takes them all,
   and then no other file is read ahead. */

#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#define FUSE_USE_VERSION 31

#include <Python.h>
#include <dlfcn.h>
#include <errno.h>
#include <fuse3/fuse_lowlevel.h>
#include <stddef.h>

#define SLOT_END (offsetof(struct fuse_lowlevel_ops, fallocate) + sizeof(void *))
#define EXPORTED(name) __asm__(name) __attribute__((visibility("default")))

/* As many as the tasks that serve requests (tmemfs/daemon.py); the kernel may allow fewer. */
#define MAX_BACKGROUND 4096

static void (*pyfuse3_init)(void *data, struct fuse_conn_info *connection);
static PyObject *listener;                /* called with each request; NULL before listen() */
static int (*reply_err)(fuse_req_t, int); /* libfuse's; NULL until a session has our slot */

static void on_init(void *data, struct fuse_conn_info *connection)
{
    if (pyfuse3_init != NULL)
        pyfuse3_init(data, connection);
    connection->max_background = MAX_BACKGROUND;
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

typedef void *plain_fn(void *args, const void *ops, size_t size, void *data);
typedef void *versioned_fn(void *args, const void *ops, size_t size, void *version, void *data);

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
        reply_err = (int (*)(fuse_req_t, int))reply;
    free(copy);
    return session;
}

/* Since libfuse 3.17 the one is a macro over the other. Named by labels, which do not clash with
   what any version of the header declares. */
plain_fn new_session EXPORTED("fuse_session_new");
versioned_fn new_versioned EXPORTED("fuse_session_new_versioned");

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

static PyObject *listen(PyObject *module, PyObject *callable)
{
    Py_INCREF(callable);
    Py_XSETREF(listener, callable);
    Py_RETURN_NONE;
}

static PyObject *reply(PyObject *module, PyObject *args)
{
    unsigned long long request;
    int error;
    if (!PyArg_ParseTuple(args, "Ki", &request, &error))
        return NULL;
    reply_err((fuse_req_t)(uintptr_t)request, error);
    Py_RETURN_NONE;
}

static PyObject *active(PyObject *module, PyObject *none)
{
    return PyBool_FromLong(reply_err != NULL);
}

static PyMethodDef methods[] = {{"listen", listen, METH_O, NULL},
                                {"reply", reply, METH_VARARGS, NULL},
                                {"active", active, METH_NOARGS, NULL},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_fallocate", NULL, -1, methods};

PyMODINIT_FUNC PyInit__fallocate(void)
{
    return PyModule_Create(&definition);
}
