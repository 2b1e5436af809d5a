/* Handles: what Python has of an object of the store (`tmemfs.tmem.objects.Object`). */

#include "_native.h"

PyObject *handle_of(Table *table, const struct object *object)
{
    Object *handle = PyObject_New(Object, &object_type);
    if (handle == NULL)
        return NULL;
    handle->table = (Table *)Py_NewRef((PyObject *)table);
    handle->number = object->number;
    handle->incarnation = object->incarnation;
    return (PyObject *)handle;
}

struct object *behind(const Object *handle, const struct store *store)
{
    struct object *object = store_object(store, handle->number);
    return object->incarnation == handle->incarnation ? object : NULL;
}

static void object_dealloc(Object *self)
{
    Py_DECREF(self->table);
    PyObject_Free(self);
}

/* An index, also one where no page can be. 0, or -1 with an exception. */
static int as_index(PyObject *number, int64_t *index)
{
    int overflow;
    *index = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (overflow)
        *index = overflow < 0 ? INT64_MIN / 2 : INT64_MAX / 2;
    return *index == -1 && !overflow && PyErr_Occurred() ? -1 : 0;
}

/* A run of *count* pages from *index* on, as far as pages can be there. */
struct range {
    uint64_t first, last; /* excluded */
};

static struct range within(int64_t index, int64_t count)
{
    int64_t most = (int64_t)UINT32_MAX + 1, first = index > 0 ? index : 0;
    int64_t last = count < most - index ? index + count : most;
    return (struct range){(uint64_t)first, (uint64_t)(last > first ? last : first)};
}

/* The node that page *index* is in, and the slot in it; NULL where there is none. */
static struct node *slot_of(const Object *self, const struct store *store, int64_t index,
                            unsigned *low)
{
    int there = index >= 0 && index <= UINT32_MAX;
    const struct object *object = there ? behind(self, store) : NULL;
    struct node *node = object ? store_node(store, object, (uint64_t)index >> NODE_BITS) : NULL;
    *low = there ? (unsigned)(index % NODE_PAGES) : 0;
    return node != NULL && *low < node->length ? node : NULL;
}

enum question { WHERE, USE, USED, USES, UNMARK };

static uint64_t answer(struct node *node, unsigned low, enum question question)
{
    uint64_t mark = UINT64_C(1) << low;
    switch (question) {
    case USE:
        store_mark(node, mark);
        return node->at[low];
    case USED:
        return __atomic_load_n(&node->used, __ATOMIC_RELAXED) >> low & 1;
    case USES:
        return (__atomic_load_n(&node->used, __ATOMIC_RELAXED) >> low & 1) +
               (__atomic_load_n(&node->again, __ATOMIC_RELAXED) >> low & 1);
    case UNMARK:
        __atomic_fetch_and(&node->used, ~mark, __ATOMIC_RELAXED);
        __atomic_fetch_and(&node->again, ~mark, __ATOMIC_RELAXED);
        return 0;
    default:
        return node->at[low];
    }
}

/* 0 where there is no such page. */
static PyObject *ask(Object *self, PyObject *number, enum question question)
{
    struct store *store = store_of(self->table);
    int64_t index;
    unsigned low;
    if (store == NULL || as_index(number, &index))
        return NULL;
    store_share(store);
    struct node *node = slot_of(self, store, index, &low);
    uint64_t found = node != NULL ? answer(node, low, question) : 0;
    store_leave(store);
    return question == USED ? PyBool_FromLong((long)found) : PyLong_FromUnsignedLongLong(found);
}

static PyObject *object_location(PyObject *self, PyObject *index)
{
    return ask((Object *)self, index, WHERE);
}

static PyObject *object_use(PyObject *self, PyObject *index)
{
    return ask((Object *)self, index, USE);
}

static PyObject *object_used(PyObject *self, PyObject *index)
{
    return ask((Object *)self, index, USED);
}

static PyObject *object_uses(PyObject *self, PyObject *index)
{
    return ask((Object *)self, index, USES);
}

static PyObject *object_unmark(PyObject *self, PyObject *index)
{
    PyObject *nothing = ask((Object *)self, index, UNMARK);
    if (nothing == NULL)
        return NULL;
    Py_DECREF(nothing);
    Py_RETURN_NONE;
}

/* Fill *locations*, which are 0, with those of *count* pages from *index* on. */
static void find_run(struct store *store, const struct object *object, uint64_t index,
                     uint64_t count, int mark, uint64_t *locations)
{
    while (count) {
        unsigned low = (unsigned)(index % NODE_PAGES);
        unsigned length = count < NODE_PAGES - low ? (unsigned)count : NODE_PAGES - low;
        struct node *node = store_node(store, object, index >> NODE_BITS);
        for (unsigned i = 0; node != NULL && i < length && low + i < node->length; i++)
            locations[i] = node->at[low + i];
        if (node != NULL && mark) /* those of absent pages do no harm: a put clears them */
            store_mark(node, store_marks(low, length));
        locations += length;
        index += length;
        count -= length;
    }
}

static PyObject *object_run(PyObject *self, PyObject *args, PyObject *named)
{
    static char *names[] = {"index", "count", "mark", NULL};
    struct store *store = store_of(((Object *)self)->table);
    PyObject *number;
    int64_t index;
    Py_ssize_t count;
    int mark;
    if (store == NULL ||
        !PyArg_ParseTupleAndKeywords(args, named, "On$p", names, &number, &count, &mark) ||
        as_index(number, &index))
        return NULL;
    count = count > 0 ? count : 0;
    uint64_t *locations = PyMem_Calloc((size_t)count + 1, sizeof *locations);
    if (locations == NULL)
        return PyErr_NoMemory();
    store_share(store);
    const struct object *object = behind((Object *)self, store);
    struct range range = within(index, count);
    if (object != NULL && range.first < range.last)
        find_run(store, object, range.first, range.last - range.first, mark,
                 locations + ((int64_t)range.first - index));
    store_leave(store);
    PyObject *found = PyList_New(count);
    for (Py_ssize_t i = 0; found != NULL && i < count; i++) {
        PyObject *location = PyLong_FromUnsignedLongLong(locations[i]);
        if (location == NULL)
            Py_CLEAR(found);
        else
            PyList_SET_ITEM(found, i, location);
    }
    PyMem_Free(locations);
    return found;
}

/* Add the part of a run that is in a node to a list. 0, or -1 with an exception. */
static int add_part(PyObject *parts, const struct node *node, uint64_t first, uint64_t last)
{
    uint64_t start = (uint64_t)node->number << NODE_BITS, end = start + NODE_PAGES;
    start = start > first ? start : first;
    end = end < last ? end : last;
    if (start >= end)
        return 0;
    PyObject *part = Py_BuildValue("KK", (unsigned long long)start, (unsigned long long)end);
    int failed = part == NULL || PyList_Append(parts, part) < 0;
    Py_XDECREF(part);
    return failed ? -1 : 0;
}

static PyObject *object_parts(PyObject *self, PyObject *args)
{
    struct store *store = store_of(((Object *)self)->table);
    PyObject *number, *size, *parts = PyList_New(0);
    int64_t first, count;
    if (store == NULL || parts == NULL || !PyArg_ParseTuple(args, "OO", &number, &size) ||
        as_index(number, &first) || as_index(size, &count)) {
        Py_XDECREF(parts);
        return NULL;
    }
    /* Nobody else changes anything while the interpreter is ours. */
    const struct object *object = behind((Object *)self, store);
    struct range range = within(first, count);
    uint64_t start = range.first, last = range.last;
    if (object == NULL || start == last)
        return parts;
    uint64_t numbers = ((last - 1) >> NODE_BITS) - (start >> NODE_BITS) + 1;
    /* A short run asks for the nodes that it has, a long one for those that there are. */
    if (numbers <= 4) {
        for (uint64_t n = start >> NODE_BITS; n <= (last - 1) >> NODE_BITS; n++) {
            const struct node *node = store_node(store, object, n);
            if (node != NULL && add_part(parts, node, start, last))
                Py_CLEAR(parts);
            if (parts == NULL)
                return NULL;
        }
        return parts;
    }
    for (const struct node *node = store_first(store, object); node != NULL;
         node = store_next(store, node))
        if (add_part(parts, node, start, last)) {
            Py_DECREF(parts);
            return NULL;
        }
    return parts;
}

/* Slots of a node as Python has them: two words of marks, and locations. */
static PyObject *slots_of(const struct node *node)
{
    PyObject *slots = PyList_New(2 + (Py_ssize_t)node->length);
    for (uint32_t i = 0; slots != NULL && i < 2 + node->length; i++) {
        uint64_t word = i == 0 ? node->used : i == 1 ? node->again : node->at[i - 2];
        PyObject *slot = PyLong_FromUnsignedLongLong(word);
        if (slot == NULL)
            Py_CLEAR(slots);
        else
            PyList_SET_ITEM(slots, i, slot);
    }
    return slots;
}

static PyObject *object_nodes(PyObject *self, void *none)
{
    struct store *store = store_of(((Object *)self)->table);
    const struct object *object = store != NULL ? behind((Object *)self, store) : NULL;
    PyObject *nodes = store != NULL ? PyDict_New() : NULL;
    const struct node *node = object != NULL ? store_first(store, object) : NULL;
    (void)none;
    for (; nodes != NULL && node != NULL; node = store_next(store, node)) {
        PyObject *number = PyLong_FromUnsignedLong(node->number), *slots = slots_of(node);
        if (number == NULL || slots == NULL || PyDict_SetItem(nodes, number, slots) < 0)
            Py_CLEAR(nodes);
        Py_XDECREF(number);
        Py_XDECREF(slots);
    }
    return nodes;
}

static PyObject *object_get(PyObject *self, void *what)
{
    struct store *store = store_of(((Object *)self)->table);
    if (store == NULL)
        return NULL;
    const struct object *object = behind((Object *)self, store);
    struct wide none = {{0, 0, 0}};
    switch (*(const char *)what) {
    case 'i':
        return from_wide(object != NULL ? &object->id : &none);
    case 's':
        return from_wide(object != NULL ? &object->stamp : &none);
    case 'p':
        return PyLong_FromUnsignedLong(object != NULL ? object->pages : 0);
    default:
        return PyLong_FromUnsignedLong(((Object *)self)->number);
    }
}

static int object_set_stamp(PyObject *self, PyObject *stamp, void *what)
{
    struct store *store = store_of(((Object *)self)->table);
    struct wide wide;
    (void)what;
    if (store == NULL || stamp == NULL)
        return -1;
    int range = as_wide(stamp, &wide);
    if (range <= 0) {
        if (!range)
            PyErr_SetString(PyExc_OverflowError, "a stamp has up to 192 bits");
        return -1;
    }
    struct object *object = behind((Object *)self, store);
    if (object != NULL)
        object->stamp = wide;
    return 0;
}

static PyObject *object_compare(PyObject *one, PyObject *other, int how)
{
    if ((how != Py_EQ && how != Py_NE) || !Py_IS_TYPE(other, &object_type))
        Py_RETURN_NOTIMPLEMENTED;
    const Object *a = (Object *)one, *b = (Object *)other;
    int same = a->table == b->table && a->number == b->number && a->incarnation == b->incarnation;
    return PyBool_FromLong(same == (how == Py_EQ));
}

static Py_hash_t object_hash(PyObject *self)
{
    return (Py_hash_t)((Object *)self)->number;
}

static PyMethodDef methods[] = {
    {"location", object_location, METH_O, "Where page *index* is, 0 when it is not there."},
    {"use", object_use, METH_O, "The same; it has been used from now on."},
    {"used", object_used, METH_O, "Whether the page was used since it was stored."},
    {"uses", object_uses, METH_O, "How often: 0, 1, or 2 for more."},
    {"unmark", object_unmark, METH_O, "Let the page count as not used."},
    {"run", (PyCFunction)(void (*)(void))object_run, METH_VARARGS | METH_KEYWORDS,
     "The locations of *count* pages from *index* on; with *mark* they have been used."},
    {"parts", object_parts, METH_VARARGS,
     "The parts (first, last) of a run that may hold pages, one for each node."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef properties[] = {
    {"id", object_get, NULL, "its id, an int of 192 bits", "id"},
    {"number", object_get, NULL, "its number in rows", "number"},
    {"pages", object_get, NULL, "how many pages it has", "pages"},
    {"nodes", object_nodes, NULL, "copies of its nodes, by number", NULL},
    {"stamp", object_get, object_set_stamp, "the client's note, an int of 192 bits", "stamp"},
    {NULL, NULL, NULL, NULL, NULL}};

PyTypeObject object_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tmemfs.native._native.Object",
    .tp_doc = "An object that has pages, or is about to; of one that has gone, nothing is there.",
    .tp_basicsize = sizeof(Object),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = (destructor)object_dealloc,
    .tp_richcompare = object_compare,
    .tp_hash = object_hash,
    .tp_methods = methods,
    .tp_getset = properties,
};
