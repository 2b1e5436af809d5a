/* The store as Python has it. What holds of its methods is said in `tmemfs.native.storage`. */

#include "_native.h"
#include "../pages/codec.h"

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
    unsigned long long tables, segment_size;
    int fd;
    (void)named;
    if (!PyArg_ParseTuple(args, "OKKi", &memory, &tables, &segment_size, &fd))
        return -1;
    close_store(store);
    if (PyObject_GetBuffer(memory, &store->memory, PyBUF_WRITABLE))
        return -1;
    int failed = store_begin(&store->store, store->memory.buf, (uint64_t)store->memory.len, tables,
                             segment_size, fd);
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
    unsigned long long size, segments;
    if (!PyArg_ParseTuple(args, "KK", &size, &segments))
        return NULL;
    if (store->base != NULL) {
        store_alone(store);
        store_keep(store, size, segments);
        store_leave(store);
    }
    Py_RETURN_NONE;
}

static PyObject *method_take_empty(PyObject *self, PyObject *none)
{
    struct store *store = &((Store *)self)->store;
    PyObject *found = PyList_New(0);
    (void)none;
    while (found != NULL && store->base != NULL && store->head->empty) {
        store_alone(store);
        uint32_t number = segment_take_empty(store);
        store_leave(store);
        PyObject *as_int = PyLong_FromUnsignedLong(number);
        if (number && (as_int == NULL || PyList_Append(found, as_int) < 0))
            Py_CLEAR(found);
        Py_XDECREF(as_int);
    }
    return found;
}

static PyObject *method_lend(PyObject *self, PyObject *bytes)
{
    struct store *store = &((Store *)self)->store;
    unsigned long long size = PyLong_AsUnsignedLongLong(bytes);
    if (size == (unsigned long long)-1 && PyErr_Occurred())
        return NULL;
    if (store->base != NULL)
        store_lend(store, size);
    Py_RETURN_NONE;
}

static PyMethodDef store_methods[] = {
    {"close", method_close, METH_NOARGS, "Let go of the memory; nothing may be asked afterwards."},
    {"take_empty", method_take_empty, METH_NOARGS,
     "The numbers of segments in which nothing lives since this was asked last."},
    {"lend", method_lend, METH_O,
     "Let so many bytes of tables be there for what the lane puts: they are charged from now on."},
    {"keep", method_keep, METH_VARARGS, 
     "keep(size, segments): have memory for tables of so many bytes, and for what is known of the\n"
     "first segments, from now on."},
    {NULL, NULL, 0, NULL}};

static PyObject *store_charged(PyObject *self, void *none)
{
    const struct store *store = &((Store *)self)->store;
    (void)none;
    return PyLong_FromUnsignedLongLong(store->base != NULL ? store->head->charged : 0);
}

static PyObject *store_lent(PyObject *self, void *none)
{
    const struct store *store = &((Store *)self)->store;
    (void)none;
    return PyLong_FromUnsignedLongLong(store->base != NULL ? store->head->lent : 0);
}

static PyObject *store_has_empty(PyObject *self, void *none)
{
    const struct store *store = &((Store *)self)->store;
    (void)none;
    return PyBool_FromLong(store->base != NULL && store->head->empty);
}

static PyGetSetDef store_properties[] = {
    {"has_empty", store_has_empty, NULL, "whether `take_empty` may have something", NULL},
    {"lent", store_lent, NULL, "how much is left of what was lent", NULL},
    {"charged", store_charged, NULL, "what all tables are charged with, in bytes", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

PyTypeObject store_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tmemfs.native._native.Store",
    .tp_doc = "Store(memory, tables, segment_size, fd): the tables are in the last bytes of *memory*,\n"
              "so many of them, which are zeros; *fd* is the file that is mapped there.",
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
    unsigned long long capacity, segment_size;
    (void)module;
    if (!PyArg_ParseTuple(args, "KK", &capacity, &segment_size))
        return NULL;
    return PyLong_FromUnsignedLongLong(store_tables_size(capacity, segment_size));
}

static PyObject *encode(PyObject *module, PyObject *args)
{
    static char room[SIZE_MASK]; /* with the interpreter's lock */
    Py_buffer data;
    unsigned page_size;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*I", &data, &page_size))
        return NULL;
    Py_ssize_t count = page_size >= WORD && page_size < sizeof room ? data.len / page_size : 0;
    PyObject *payloads = PyList_New(count);
    for (Py_ssize_t i = 0; payloads != NULL && i < count; i++) {
        unsigned size;
        const char *page = (const char *)data.buf + i * page_size;
        const char *bytes = encode_page(page, page_size, room, &size);
        PyObject *payload = PyBytes_FromStringAndSize(bytes, size);
        if (payload == NULL)
            Py_CLEAR(payloads);
        else
            PyList_SET_ITEM(payloads, i, payload);
    }
    PyBuffer_Release(&data);
    return payloads;
}

static PyMethodDef functions[] = {
    {"encode", encode, METH_VARARGS, "encode(data, page_size): the payloads of a run of pages."},
    {"tables_size", tables_size, METH_VARARGS,
     "tables_size(capacity, segment_size): how many bytes of addresses the tables may need."},
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
    PyObject *module = PyType_Ready(&rows_type) < 0 ? NULL : PyModule_Create(&definition);
    PyTypeObject *types[] = {&store_type, &table_type, &object_type, &segment_type,
                             &lane_type, &turn_type};
    for (unsigned i = 0; module != NULL && i < sizeof types / sizeof *types; i++)
        if (PyModule_AddType(module, types[i]) < 0)
            Py_CLEAR(module);
    return module;
}
