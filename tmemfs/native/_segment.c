/* A segment as Python has it: what holds of its methods is said in `tmemfs.pages.log`. */

#include "_native.h"

#include <stddef.h>
#include <structmember.h>

#define AT_ONCE NODE_PAGES

typedef struct {
    PyObject_HEAD
    Store *owner;
    PyObject *log;
    unsigned long long number;
    int pins, is_given_back;
} Segment;

/* Rows as they were when they were asked for, for the segment may go meanwhile. */
typedef struct {
    PyObject_HEAD
    uint64_t start;
    uint32_t next, count;
    struct row row[];
} Rows;

static struct store *store_behind(const Segment *self)
{
    if (self->owner == NULL || self->owner->store.base == NULL) {
        PyErr_SetString(PyExc_ValueError, "the store is closed");
        return NULL;
    }
    return &self->owner->store;
}

/* What is known of a segment; nothing once it was given back, for it may be another's by now. */
static const struct segment *known(const struct store *store, const Segment *self)
{
    static const struct segment nothing;
    return self->is_given_back ? &nothing : store_segment(store, self->number);
}

uint32_t segment_number(PyObject *segment)
{
    const Segment *self = (const Segment *)segment;
    return self->is_given_back ? 0 : (uint32_t)self->number;
}

static PyObject *segment_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
    Store *store;
    PyObject *log;
    unsigned long long number;
    unsigned page_size;
    (void)named;
    if (!PyArg_ParseTuple(args, "O!OKI", &store_type, &store, &log, &number, &page_size))
        return NULL;
    if (store->store.base == NULL || !number || number >= store->store.head->segments) {
        PyErr_SetString(PyExc_ValueError, "no such segment");
        return NULL;
    }
    Segment *self = (Segment *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->owner = (Store *)Py_NewRef((PyObject *)store);
    self->log = Py_NewRef(log);
    self->number = number;
    store_alone(&store->store);
    segment_begin(&store->store, number, page_size);
    store_leave(&store->store);
    return (PyObject *)self;
}

static int segment_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((Segment *)self)->log);
    return 0;
}

static int segment_forget(PyObject *self)
{
    Py_CLEAR(((Segment *)self)->log);
    return 0;
}

static void segment_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    segment_forget(self);
    Py_XDECREF(((Segment *)self)->owner);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *method_fits(PyObject *self, PyObject *size)
{
    const struct store *store = store_behind((Segment *)self);
    unsigned long wanted = PyLong_AsUnsignedLong(size);
    uint32_t one = (uint32_t)wanted;
    if (store == NULL || PyErr_Occurred())
        return NULL;
    const struct segment *segment = known(store, (Segment *)self);
    return PyBool_FromLong(wanted == one && segment_fits(store, segment, &one, 1) == 1);
}

/* Append up to AT_ONCE payloads from *first* on; how many, -1 with an exception. Fewer than there
   are where it is full. */
static Py_ssize_t append_some(const Segment *self, PyObject *payloads, Py_ssize_t first,
                              uint32_t owner, uint32_t index, uint64_t *locations)
{
    struct store *store = store_behind(self);
    Py_buffer buffers[AT_ONCE];
    const char *bytes[AT_ONCE];
    uint32_t sizes[AT_ONCE];
    Py_ssize_t count = 0, done = -1;
    if (store == NULL)
        return -1;
    if (self->is_given_back) {
        PyErr_SetString(PyExc_ValueError, "the segment was given back");
        return -1;
    }
    while (count < AT_ONCE && first + count < PySequence_Fast_GET_SIZE(payloads)) {
        PyObject *payload = PySequence_Fast_GET_ITEM(payloads, first + count);
        if (PyObject_GetBuffer(payload, &buffers[count], PyBUF_SIMPLE))
            goto release;
        bytes[count] = buffers[count].buf;
        sizes[count] = (uint32_t)buffers[count].len;
        count++;
    }
    const struct segment *segment = store_segment(store, self->number);
    unsigned fit = segment_fits(store, segment, sizes, (unsigned)count);
    store_alone(store);
    int failed = segment_append(store, self->number, owner, index + (uint32_t)first, bytes, sizes,
                                fit, locations);
    store_leave(store);
    if (failed)
        PyErr_NoMemory();
    else
        done = fit;
release:
    while (count > 0)
        PyBuffer_Release(&buffers[--count]);
    return done;
}

static PyObject *method_append(PyObject *self, PyObject *args)
{
    PyObject *given, *payloads, *found;
    unsigned owner, index;
    if (!PyArg_ParseTuple(args, "OII", &given, &owner, &index) ||
        (payloads = PySequence_Fast(given, "payloads are wanted")) == NULL)
        return NULL;
    Py_ssize_t done = 0, some = AT_ONCE;
    for (found = PyList_New(0); found != NULL && some == AT_ONCE; done += some) {
        uint64_t locations[AT_ONCE];
        some = append_some((Segment *)self, payloads, done, owner, index, locations);
        if (some < 0)
            Py_CLEAR(found);
        for (Py_ssize_t i = 0; found != NULL && i < some; i++) {
            PyObject *location = PyLong_FromUnsignedLongLong(locations[i]);
            if (location == NULL || PyList_Append(found, location) < 0)
                Py_CLEAR(found);
            Py_XDECREF(location);
        }
    }
    Py_DECREF(payloads);
    return found;
}

static PyObject *rows_next(PyObject *self)
{
    Rows *rows = (Rows *)self;
    if (rows->next == rows->count)
        return NULL;
    struct row row = rows->row[rows->next++];
    return Py_BuildValue("IIK", row.owner, row.index,
                         (unsigned long long)(rows->start + row.offset));
}

static void rows_dealloc(PyObject *self)
{
    PyObject_Free(self);
}

PyTypeObject rows_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tmemfs.native._native.Rows",
    .tp_basicsize = sizeof(Rows),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_dealloc = rows_dealloc,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = rows_next,
};

static PyObject *method_appends(PyObject *self, PyObject *none)
{
    const struct store *store = store_behind((Segment *)self);
    (void)none;
    if (store == NULL)
        return NULL;
    uint64_t number = ((Segment *)self)->number;
    const struct segment *segment = known(store, (Segment *)self);
    Rows *found = PyObject_Malloc(sizeof(Rows) + segment->rows * sizeof(struct row));
    if (found == NULL)
        return PyErr_NoMemory();
    PyObject_Init((PyObject *)found, &rows_type);
    found->start = number << store->head->segment_bits;
    found->next = 0;
    found->count = segment->rows;
    const char *chunk = segment->first ? store->base + segment->first : NULL;
    for (uint32_t i = 0; i < segment->rows; i += ROWS_OF_A_CHUNK) {
        const struct rows *rows = (const void *)chunk;
        uint32_t left = segment->rows - i;
        memcpy(&found->row[i], rows->row,
               (left < ROWS_OF_A_CHUNK ? left : ROWS_OF_A_CHUNK) * sizeof(struct row));
        chunk = store->base + rows->next;
    }
    return (PyObject *)found;
}

static PyObject *method_drop(PyObject *self, PyObject *none)
{
    struct store *store = store_behind((Segment *)self);
    (void)none;
    if (store == NULL)
        return NULL;
    store_alone(store);
    if (!((Segment *)self)->is_given_back)
        segment_end(store, ((Segment *)self)->number);
    ((Segment *)self)->is_given_back = 1;
    store_leave(store);
    Py_RETURN_NONE;
}

enum what { START, END, POSITION, LIVE, LIVE_PAGES, HEAP_BYTES, ROW_COUNT, ROWS_LEFT, DEAD_BYTES };

static PyObject *segment_get(PyObject *self, void *closure)
{
    const struct store *store = store_behind((Segment *)self);
    if (store == NULL)
        return NULL;
    uint64_t number = ((Segment *)self)->number, start = number << store->head->segment_bits;
    const struct segment *segment = known(store, (Segment *)self);
    uint64_t value = 0;
    switch ((enum what)(intptr_t)closure) {
    case START:
        value = start;
        break;
    case END:
        value = start + (UINT64_C(1) << store->head->segment_bits);
        break;
    case POSITION:
        value = start + segment->position;
        break;
    case LIVE:
        return Py_BuildValue("IKII", segment->pages, (unsigned long long)segment->bytes,
                             segment->same, segment->huge);
    case LIVE_PAGES:
        value = segment->pages;
        break;
    case HEAP_BYTES: /* its rows are in the account of the store */
        break;
    case ROW_COUNT:
        value = segment->rows;
        break;
    case ROWS_LEFT:
        value = segment_rows_left(store, segment);
        break;
    case DEAD_BYTES:
        value = segment_dead(store, segment);
        break;
    }
    return PyLong_FromUnsignedLongLong(value);
}

static PyMethodDef methods[] = {
    {"fits", method_fits, METH_O, "Whether there is room for a payload of so many bytes."},
    {"append", method_append, METH_VARARGS,
     "append(payloads, owner, index): the locations of those that there was room for."},
    {"appends", method_appends, METH_NOARGS, "(owner, index, start) of every append, oldest first."},
    {"drop", method_drop, METH_NOARGS, "Let go of the rows: the segment is given back."},
    {NULL, NULL, 0, NULL}};

static PyMemberDef members[] = {
    {"log", T_OBJECT, offsetof(Segment, log), 0, NULL},
    {"number", T_ULONGLONG, offsetof(Segment, number), READONLY, NULL},
    {"pins", T_INT, offsetof(Segment, pins), 0, NULL},
    {NULL, 0, 0, 0, NULL}};

#define PROPERTY(name, what) {name, segment_get, NULL, NULL, (void *)(intptr_t)(what)}
static PyGetSetDef properties[] = {PROPERTY("start", START),
                                   PROPERTY("end", END),
                                   PROPERTY("position", POSITION),
                                   PROPERTY("live", LIVE),
                                   PROPERTY("live_pages", LIVE_PAGES),
                                   PROPERTY("heap_bytes", HEAP_BYTES),
                                   PROPERTY("row_count", ROW_COUNT),
                                   PROPERTY("rows_left", ROWS_LEFT),
                                   PROPERTY("dead_bytes", DEAD_BYTES),
                                   {NULL, NULL, NULL, NULL, NULL}};

PyTypeObject segment_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tmemfs.native._native.Segment",
    .tp_doc = "Segment(store, log, number, page_size): a segment that was empty until now.",
    .tp_basicsize = sizeof(Segment),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = segment_new,
    .tp_dealloc = segment_dealloc,
    .tp_traverse = segment_traverse,
    .tp_clear = segment_forget,
    .tp_methods = methods,
    .tp_members = members,
    .tp_getset = properties,
};
