/* The objects of one pool, as Python has them: see `tmemfs.native.storage`. */

#include "_native.h"

struct store *store_of(Table *table)
{
    if (table->owner->store.base == NULL) {
        PyErr_SetString(PyExc_ValueError, "the store is closed");
        return NULL;
    }
    return &table->owner->store;
}

static PyObject *table_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
    Store *store;
    (void)named;
    if (!PyArg_ParseTuple(args, "O!", &store_type, &store))
        return NULL;
    Table *self = (Table *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->owner = (Store *)Py_NewRef((PyObject *)store);
    if (store_of(self) != NULL) {
        store_alone(&store->store);
        self->number = store_new_table(&store->store);
        store_leave(&store->store);
        if (!self->number)
            PyErr_SetString(PyExc_MemoryError, "a store has room for 1023 pools");
    }
    if (self->number)
        return (PyObject *)self;
    Py_DECREF(self);
    return NULL;
}

static void clear(Table *self)
{
    struct store *store = &self->owner->store;
    store_alone(store);
    store_clear(store, self->number);
    store_leave(store);
}

static void table_dealloc(PyObject *self)
{
    Table *table = (Table *)self;
    if (table->number && table->owner->store.base != NULL) {
        clear(table);
        store_forget_table(&table->owner->store, table->number);
    }
    Py_DECREF(table->owner);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *table_clear(PyObject *self, PyObject *none)
{
    (void)none;
    if (((Table *)self)->owner->store.base != NULL)
        clear((Table *)self);
    Py_RETURN_NONE;
}

static PyObject *table_find(PyObject *self, PyObject *id)
{
    struct store *store = store_of((Table *)self);
    struct wide wide;
    int range = store != NULL ? as_wide(id, &wide) : -1;
    if (range < 0)
        return NULL;
    /* Nobody else changes anything while the interpreter is ours. */
    const struct object *object = range ? store_find(store, ((Table *)self)->number, &wide) : NULL;
    if (object == NULL)
        Py_RETURN_NONE;
    return handle_of((Table *)self, object);
}

static PyObject *table_obtain(PyObject *self, PyObject *id)
{
    struct store *store = store_of((Table *)self);
    struct wide wide;
    int range = store != NULL ? as_wide(id, &wide) : -1;
    if (range <= 0) {
        if (!range)
            PyErr_SetString(PyExc_OverflowError, "an object id has up to 192 bits");
        return NULL;
    }
    store_alone(store);
    const struct object *object = store_obtain(store, ((Table *)self)->number, &wide);
    store_leave(store);
    return object != NULL ? handle_of((Table *)self, object) : PyErr_NoMemory();
}

/* The object of *self* that has pages and that number; NULL where it is gone. */
static struct object *numbered(const Table *self, const struct store *store, uint64_t number)
{
    if (number >= store->head->object_count)
        return NULL;
    struct object *object = store_object(store, (uint32_t)number);
    return object->table == self->number && object->pages ? object : NULL;
}

static PyObject *table_owner(PyObject *self, PyObject *number)
{
    struct store *store = store_of((Table *)self);
    unsigned long long wanted = PyLong_AsUnsignedLongLong(number);
    if (store == NULL || (wanted == (unsigned long long)-1 && PyErr_Occurred()))
        return NULL;
    const struct object *object = numbered((Table *)self, store, wanted);
    if (object == NULL)
        Py_RETURN_NONE;
    return handle_of((Table *)self, object);
}

static PyObject *table_objects(PyObject *self, PyObject *none)
{
    struct store *store = store_of((Table *)self);
    PyObject *found = store != NULL ? PyList_New(0) : NULL;
    (void)none;
    for (uint64_t number = 0; found != NULL && number < store->head->object_count; number++) {
        const struct object *object = numbered((Table *)self, store, number);
        PyObject *handle = object != NULL ? handle_of((Table *)self, object) : NULL;
        if (object != NULL && (handle == NULL || PyList_Append(found, handle) < 0))
            Py_CLEAR(found);
        Py_XDECREF(handle);
    }
    return found;
}

static PyObject *table_put(PyObject *self, PyObject *args)
{
    struct store *store = store_of((Table *)self);
    uint64_t locations[NODE_PAGES];
    unsigned long long index;
    PyObject *list;
    Object *handle;
    if (store == NULL || !PyArg_ParseTuple(args, "O!KO!", &object_type, &handle, &index,
                                           &PyList_Type, &list))
        return NULL;
    Py_ssize_t count = PyList_GET_SIZE(list);
    if (count < 1 || index > UINT32_MAX || index % NODE_PAGES + (size_t)count > NODE_PAGES) {
        PyErr_SetString(PyExc_ValueError, "not a run of one node");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        locations[i] = PyLong_AsUnsignedLongLong(PyList_GET_ITEM(list, i));
        if (locations[i] == (unsigned long long)-1 && PyErr_Occurred())
            return NULL;
        if ((locations[i] & SIZE_MASK) != OUTSIDE && locations[i] >> SIZE_BITS >= store->tables) {
            PyErr_SetString(PyExc_ValueError, "no place in the arena");
            return NULL;
        }
    }
    struct object *object = behind(handle, store);
    if (object == NULL) {
        PyErr_SetString(PyExc_ValueError, "the object has gone");
        return NULL;
    }
    store_alone(store);
    int failed = store_put(store, object, index, locations, (unsigned)count);
    store_leave(store);
    return failed ? PyErr_NoMemory() : Py_NewRef(Py_None);
}

static PyObject *table_remove(PyObject *self, PyObject *args)
{
    struct store *store = store_of((Table *)self);
    unsigned long long first, last;
    unsigned gone = 0;
    Object *handle;
    if (store == NULL || !PyArg_ParseTuple(args, "O!KK", &object_type, &handle, &first, &last))
        return NULL;
    struct object *object = behind(handle, store);
    if (object != NULL) {
        store_alone(store);
        gone = store_remove(store, object, first, last);
        store_leave(store);
    }
    return PyLong_FromUnsignedLong(gone);
}

static PyObject *table_watch(PyObject *self, PyObject *args)
{
    struct store *store = store_of((Table *)self);
    unsigned long long pages;
    if (store == NULL || !PyArg_ParseTuple(args, "K", &pages))
        return NULL;
    store_alone(store);
    int failed = store_watch(store, ((Table *)self)->number, pages);
    store_leave(store);
    return failed ? PyErr_NoMemory() : Py_NewRef(Py_None);
}

static PyObject *hide(PyObject *self, PyObject *args, int hides)
{
    struct store *store = store_of((Table *)self);
    unsigned long long first, last;
    if (store == NULL || !PyArg_ParseTuple(args, "KK", &first, &last))
        return NULL;
    store_hide(store, ((Table *)self)->number, first, last, hides);
    Py_RETURN_NONE;
}

static PyObject *table_hide(PyObject *self, PyObject *args)
{
    return hide(self, args, 1);
}

static PyObject *table_show(PyObject *self, PyObject *args)
{
    return hide(self, args, 0);
}

static PyObject *table_take_hits(PyObject *self, PyObject *none)
{
    Table *table = (Table *)self;
    const Store *owner = table->owner;
    (void)none;
    if (owner->store.base == NULL)
        return PyLong_FromLong(0);
    uint64_t *hits = &owner->store.head->tables[table->number].hits;
    return PyLong_FromUnsignedLongLong(__atomic_exchange_n(hits, 0, __ATOMIC_RELAXED));
}

static PyObject *table_take_puts(PyObject *self, PyObject *none)
{
    Table *table = (Table *)self;
    const Store *owner = table->owner;
    struct table nothing = {.in_use = 1}, *figures = &nothing;
    (void)none;
    if (owner->store.base != NULL)
        figures = &owner->store.head->tables[table->number];
    PyObject *found = Py_BuildValue(
        "KKKK", (unsigned long long)figures->puts, (unsigned long long)figures->replaced,
        (unsigned long long)figures->flushs, (unsigned long long)figures->flushed);
    if (found != NULL)
        figures->puts = figures->replaced = figures->flushs = figures->flushed = 0;
    return found;
}

static PyObject *table_show_head(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    struct store *store = store_of((Table *)self);
    long kind = count == 2 ? PyLong_AsLong(args[0]) : -1;
    if (store == NULL || (kind == -1 && PyErr_Occurred()))
        return NULL;
    if (kind < 0 || kind >= HEADS ||
        (args[1] != Py_None && !PyObject_TypeCheck(args[1], &segment_type))) {
        PyErr_SetString(PyExc_TypeError, "show_head(kind, segment or None)");
        return NULL;
    }
    store_show_head(store, ((Table *)self)->number, (unsigned)kind,
                    args[1] != Py_None ? segment_number(args[1]) : 0);
    Py_RETURN_NONE;
}

static PyObject *table_get(PyObject *self, void *what)
{
    const Table *table = (Table *)self;
    const Store *owner = table->owner;
    if (owner->store.base == NULL)
        return PyLong_FromLong(0);
    const struct table *figures = &owner->store.head->tables[table->number];
    switch (*(const char *)what) {
    case 'p':
        return PyLong_FromUnsignedLongLong(figures->pages);
    case 'o':
        return PyLong_FromUnsignedLongLong(figures->overflowed);
    case 's':
        return PyLong_FromUnsignedLongLong(figures->staged);
    default:
        return PyLong_FromUnsignedLongLong(figures->charged);
    }
}

static PyObject *table_is_next_in_stage(PyObject *self, void *none)
{
    const Table *table = (Table *)self;
    const struct store *store = &table->owner->store;
    (void)none;
    return PyBool_FromLong(store->base != NULL && stage_next_table(store) == table->number);
}

static Py_ssize_t table_length(PyObject *self)
{
    const Table *table = (Table *)self;
    const Store *owner = table->owner;
    return owner->store.base != NULL
               ? (Py_ssize_t)owner->store.head->tables[table->number].objects
               : 0;
}

static PySequenceMethods table_sequence = {.sq_length = table_length};

static PyMethodDef table_methods[] = {
    {"find", table_find, METH_O, "The object of an id, None when no page of it is there."},
    {"obtain", table_obtain, METH_O, "That object, or a new one, which joins with its first page."},
    {"owner", table_owner, METH_O, "The object of a number, None when it is gone."},
    {"objects", table_objects, METH_NOARGS, "All objects."},
    {"put", table_put, METH_VARARGS,
     "put(object, index, locations): let pages of one node be there, marked as not used."},
    {"remove", table_remove, METH_VARARGS,
     "remove(object, first, last): remove pages of one node; how many there were."},
    {"clear", table_clear, METH_NOARGS, "Forget every object."},
    {"watch", table_watch, METH_VARARGS, "watch(pages): let pages below that be hidden from now on."},
    {"hide", table_hide, METH_VARARGS, "hide(first, last): let the lane ask for these pages."},
    {"show", table_show, METH_VARARGS, "show(first, last): undo `hide`."},
    {"show_head", (PyCFunction)(void (*)(void))table_show_head, METH_FASTCALL,
     "show_head(kind, segment): let the lane put pages there, COMPRESSED (0) or RAW (1) ones."},
    {"take_puts", table_take_puts, METH_NOARGS,
     "What the lane has put since it was asked last: (pages, pages replaced, flushs, pages flushed)."},
    {"take_hits", table_take_hits, METH_NOARGS,
     "How many pages the lane has read since it was asked last."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef table_properties[] = {
    {"pages", table_get, NULL, "how many pages there are", "pages"},
    {"overflowed", table_get, NULL, "how many of them are in an overflow file", "overflowed"},
    {"staged", table_get, NULL, "how many of them are in the stage", "staged"},
    {"is_next_in_stage", table_is_next_in_stage, NULL,
     "whether the page that waits longest in the stage is one of these", NULL},
    {"charged", table_get, NULL, "what the tables are charged with, in bytes", "charged"},
    {NULL, NULL, NULL, NULL, NULL}};

PyTypeObject table_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tmemfs.native._native.Table",
    .tp_doc = "Table(store): the objects of one pool.",
    .tp_basicsize = sizeof(Table),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = table_new,
    .tp_dealloc = table_dealloc,
    .tp_as_sequence = &table_sequence,
    .tp_methods = table_methods,
    .tp_getset = table_properties,
};
