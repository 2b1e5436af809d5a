/* The store as Python has it. What holds of its methods is said in `tmemfs.native.storage`. */

#include "_native.h"

int as_wide(PyObject *number, struct wide *wide)
{
    unsigned char bytes[sizeof wide->part];
    if (!PyLong_Check(number)) {
        PyErr_SetString(PyExc_TypeError, "an int is wanted");
        return -1;
    }
#if PY_VERSION_HEX >= 0x030d0000
    Py_ssize_t size = PyLong_AsNativeBytes(number, bytes, sizeof bytes,
                                           Py_ASNATIVEBYTES_LITTLE_ENDIAN |
                                               Py_ASNATIVEBYTES_UNSIGNED_BUFFER |
                                               Py_ASNATIVEBYTES_REJECT_NEGATIVE);
    if (size < 0 || size > (Py_ssize_t)sizeof bytes) {
#else
    if (_PyLong_AsByteArray((PyLongObject *)number, bytes, sizeof bytes, 1, 0)) {
#endif
        PyErr_Clear();
        return 0;
    }
    for (unsigned i = 0; i < 3; i++) {
        wide->part[i] = 0;
        for (unsigned j = 8; j-- > 0;)
            wide->part[i] = wide->part[i] << 8 | bytes[8 * i + j];
    }
    return 1;
}

PyObject *from_wide(const struct wide *wide)
{
    unsigned char bytes[sizeof wide->part];
    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(wide->part[i / 8] >> 8 * (i % 8));
#if PY_VERSION_HEX >= 0x030d0000
    return PyLong_FromUnsignedNativeBytes(bytes, sizeof bytes, Py_ASNATIVEBYTES_LITTLE_ENDIAN);
#else
    return _PyLong_FromByteArray(bytes, sizeof bytes, 1, 0);
#endif
}

/* -- Store ----------------------------------------------------------------------------------- */

static void close_store(Store *self)
{
    if (self->store.base == NULL)
        return;
    store_end(&self->store);
    self->store.base = NULL;
    PyBuffer_Release(&self->memory);
}

static int store_init(PyObject *self, PyObject *args, PyObject *named)
{
    Store *store = (Store *)self;
    PyObject *memory;
    unsigned long long tables;
    int fd;
    (void)named;
    if (!PyArg_ParseTuple(args, "OKi", &memory, &tables, &fd))
        return -1;
    close_store(store);
    if (PyObject_GetBuffer(memory, &store->memory, PyBUF_WRITABLE))
        return -1;
    int failed = store_begin(&store->store, store->memory.buf, (uint64_t)store->memory.len, tables,
                             fd);
    if (failed) {
        store->store.base = NULL;
        PyBuffer_Release(&store->memory);
        errno = failed;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

static void store_dealloc(PyObject *self)
{
    close_store((Store *)self);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *method_close(PyObject *self, PyObject *none)
{
    (void)none;
    close_store((Store *)self);
    Py_RETURN_NONE;
}

static PyObject *method_keep(PyObject *self, PyObject *args)
{
    struct store *store = &((Store *)self)->store;
    unsigned long long size;
    if (!PyArg_ParseTuple(args, "K", &size))
        return NULL;
    if (store->base != NULL) {
        store_alone(store);
        store_keep(store, size);
        store_leave(store);
    }
    Py_RETURN_NONE;
}

static PyMethodDef store_methods[] = {
    {"close", method_close, METH_NOARGS, "Let go of the memory; nothing may be asked afterwards."},
    {"keep", method_keep, METH_VARARGS, "Have the memory of so many bytes of nodes from now on."},
    {NULL, NULL, 0, NULL}};

static PyObject *store_charged(PyObject *self, void *none)
{
    const struct store *store = &((Store *)self)->store;
    (void)none;
    return PyLong_FromUnsignedLongLong(store->base != NULL ? store->head->charged : 0);
}

static PyGetSetDef store_properties[] = {
    {"charged", store_charged, NULL, "what all tables are charged with, in bytes", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

PyTypeObject store_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tmemfs.native._native.Store",
    .tp_doc = "Store(memory, tables, fd): the tables are in the last bytes of *memory*, so many of\n"
              "them, which are zeros; *fd* is the file that is mapped there.",
    .tp_basicsize = sizeof(Store),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = store_init,
    .tp_dealloc = store_dealloc,
    .tp_methods = store_methods,
    .tp_getset = store_properties,
};

/* -- the module ------------------------------------------------------------------------------ */

static PyObject *tables_size(PyObject *module, PyObject *args)
{
    unsigned long long capacity;
    (void)module;
    if (!PyArg_ParseTuple(args, "K", &capacity))
        return NULL;
    return PyLong_FromUnsignedLongLong(store_tables_size(capacity));
}

static PyMethodDef functions[] = {
    {"tables_size", tables_size, METH_VARARGS,
     "How many bytes of addresses the tables of an arena of *capacity* bytes may need."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_native",
    .m_doc = "The store: objects and pages, found without the interpreter.",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit__native(void)
{
    PyObject *module = PyModule_Create(&definition);
    PyTypeObject *types[] = {&store_type, &table_type, &object_type, &lane_type};
    for (unsigned i = 0; module != NULL && i < 4; i++)
        if (PyModule_AddType(module, types[i]) < 0)
            Py_CLEAR(module);
    return module;
}
