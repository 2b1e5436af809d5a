/* The lane as Python has it; what holds of its methods is said in `tmemfs.native.lane`. */

#include "_native.h"
#include "lane.h"

typedef struct {
    PyObject_HEAD
    Store *owner; /* which is not closed before the lane is */
    struct lane_capsule shown;
} Lane;

static struct lane *lane_of(PyObject *self)
{
    struct lane *lane = ((Lane *)self)->shown.lane;
    if (lane == NULL)
        PyErr_SetString(PyExc_ValueError, "the lane has ended");
    return lane;
}

static void end(Lane *self)
{
    struct lane *lane = self->shown.lane;
    if (lane == NULL)
        return;
    /* Its threads never wait for the interpreter. But others may want it meanwhile. */
    struct turn *turn = &self->owner->store.turn;
    Py_BEGIN_ALLOW_THREADS
    turn_leave(turn); /* a thread may wait for it */
    lane_stop(lane);
    turn_enter(turn);
    Py_END_ALLOW_THREADS
    self->shown.lane = NULL;
    lane_free(lane);
}

static PyObject *lane_new_object(PyTypeObject *type, PyObject *args, PyObject *named)
{
    static char *names[] = {"store", "device", "threads", "largest", "touch", NULL};
    int device, touch;
    unsigned threads;
    Py_ssize_t largest;
    Store *store;
    if (!PyArg_ParseTupleAndKeywords(args, named, "O!$iInp", names, &store_type, &store, &device,
                                     &threads, &largest, &touch))
        return NULL;
    if (store->store.base == NULL || !threads || largest <= 0) {
        PyErr_SetString(PyExc_ValueError, "no lane without a store, threads, and room");
        return NULL;
    }
    Lane *self = (Lane *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->owner = (Store *)Py_NewRef((PyObject *)store);
    self->shown.session = &lane_session;
    self->shown.lane = lane_new(&store->store, device, threads, (size_t)largest, touch);
    if (self->shown.lane != NULL)
        return (PyObject *)self;
    PyErr_SetFromErrno(PyExc_OSError);
    Py_DECREF(self);
    return NULL;
}

static void lane_dealloc(PyObject *self)
{
    end((Lane *)self);
    Py_XDECREF(((Lane *)self)->owner);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *method_end(PyObject *self, PyObject *none)
{
    (void)none;
    end((Lane *)self);
    Py_RETURN_NONE;
}

static PyObject *method_grant(PyObject *self, PyObject *args, PyObject *named)
{
    static char *names[] = {"handle", "table", "object_id", "page_size", "size",
                            "zeros", "position", "edge", "fd", "stores", NULL};
    struct lane *lane = lane_of(self);
    unsigned long long handle, size, position, edge;
    struct grant grant = {.next = NULL};
    PyObject *id;
    Table *table;
    if (lane == NULL ||
        !PyArg_ParseTupleAndKeywords(args, named, "KO!OIKpKKip", names, &handle, &table_type, &table,
                                     &id, &grant.page_size, &size, &grant.zeros, &position, &edge,
                                     &grant.fd, &grant.stores))
        return NULL;
    int range = as_wide(id, &grant.id);
    if (range <= 0 || table->owner != ((Lane *)self)->owner || !grant.page_size ||
        grant.page_size > LARGEST_PAGE) {
        if (range >= 0)
            PyErr_SetString(PyExc_ValueError, "no such object can be granted");
        return NULL;
    }
    grant.handle = handle;
    grant.table = table->number;
    grant.size = size;
    grant.position = position;
    grant.edge = edge;
    return lane_grant(lane, &grant) ? PyErr_NoMemory() : Py_NewRef(Py_None);
}

static PyObject *method_revoke(PyObject *self, PyObject *handle)
{
    struct lane *lane = lane_of(self);
    unsigned long long number = PyLong_AsUnsignedLongLong(handle);
    if (lane == NULL || PyErr_Occurred())
        return NULL;
    lane_revoke(lane, number);
    Py_RETURN_NONE;
}

static PyObject *method_resize(PyObject *self, PyObject *args)
{
    struct lane *lane = lane_of(self);
    unsigned long long handle, size;
    if (lane == NULL || !PyArg_ParseTuple(args, "KK", &handle, &size))
        return NULL;
    lane_resize(lane, handle, size);
    Py_RETURN_NONE;
}

static PyObject *method_is_settled(PyObject *self, PyObject *handle)
{
    struct lane *lane = lane_of(self);
    unsigned long long number = PyLong_AsUnsignedLongLong(handle);
    if (lane == NULL || PyErr_Occurred())
        return NULL;
    return PyBool_FromLong(lane_is_settled(lane, number));
}

static PyObject *method_follow(PyObject *self, PyObject *handle)
{
    struct lane *lane = lane_of(self);
    int in_order;
    unsigned long long number = PyLong_AsUnsignedLongLong(handle);
    if (lane == NULL || PyErr_Occurred())
        return NULL;
    uint64_t position = lane_follow(lane, number, &in_order);
    return Py_BuildValue("KO", (unsigned long long)position, in_order ? Py_True : Py_False);
}

static PyObject *method_move(PyObject *self, PyObject *args)
{
    struct lane *lane = lane_of(self);
    unsigned long long handle, position;
    if (lane == NULL || !PyArg_ParseTuple(args, "KK", &handle, &position))
        return NULL;
    lane_move(lane, handle, position);
    Py_RETURN_NONE;
}

static PyObject *method_watch(PyObject *self, PyObject *args)
{
    struct lane *lane = lane_of(self);
    unsigned long long handle, edge;
    if (lane == NULL || !PyArg_ParseTuple(args, "KK", &handle, &edge))
        return NULL;
    lane_watch(lane, handle, edge);
    Py_RETURN_NONE;
}

static PyObject *method_note(PyObject *self, PyObject *none)
{
    struct lane *lane = lane_of(self);
    struct note note;
    (void)none;
    if (lane == NULL)
        return NULL;
    if (!lane_take_note(lane, &note))
        Py_RETURN_NONE;
    return Py_BuildValue("KKKO", (unsigned long long)note.handle, (unsigned long long)note.first,
                         (unsigned long long)note.last, note.in_order ? Py_True : Py_False);
}

static PyObject *times(const struct times *times)
{
    return Py_BuildValue("LLL", (long long)times->modified, (long long)times->changed,
                         (long long)times->size);
}

static PyObject *method_written(PyObject *self, PyObject *none)
{
    struct lane *lane = lane_of(self);
    struct written written;
    const char *kept;
    (void)none;
    if (lane == NULL)
        return NULL;
    if (!lane_written(lane, &written, &kept))
        Py_RETURN_NONE;
    return Py_BuildValue("KKKKKNNOy#", (unsigned long long)written.handle,
                         (unsigned long long)written.start, (unsigned long long)written.end,
                         (unsigned long long)written.count, (unsigned long long)written.bytes,
                         times(&written.before), times(&written.after),
                         written.alone ? Py_True : Py_False, kept, (Py_ssize_t)written.kept);
}

static PyObject *method_unsettled(PyObject *self, PyObject *none)
{
    struct lane *lane = lane_of(self);
    (void)none;
    return lane != NULL ? PyLong_FromLong(lane_session.unsettled(lane)) : NULL;
}

static PyObject *method_settle(PyObject *self, PyObject *none)
{
    struct lane *lane = lane_of(self);
    (void)none;
    if (lane == NULL)
        return NULL;
    lane_settle(lane);
    Py_RETURN_NONE;
}

static PyObject *method_stage(PyObject *self, PyObject *args)
{
    struct lane *lane = lane_of(self);
    struct stored what = {.has_turn = 1};
    unsigned long long handle, offset;
    Py_buffer data;
    if (lane == NULL || !PyArg_ParseTuple(args, "KKy*", &handle, &offset, &data))
        return NULL;
    what.handle = handle;
    what.offset = offset;
    what.size = (uint64_t)data.len;
    int done = lane_stage(lane, &what, data.buf);
    PyBuffer_Release(&data);
    return PyBool_FromLong(done);
}

static PyObject *method_settle_stage(PyObject *self, PyObject *none)
{
    struct lane *lane = lane_of(self);
    int missing;
    (void)none;
    if (lane == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    missing = lane_settle_stage(lane);
    Py_END_ALLOW_THREADS
    return PyLong_FromLong(missing);
}

static PyObject *method_stage_missing(PyObject *self, PyObject *none)
{
    struct lane *lane = lane_of(self);
    (void)none;
    return lane != NULL ? PyLong_FromLong(lane_stage_missing(lane)) : NULL;
}

static PyObject *method_poke_stage(PyObject *self, PyObject *none)
{
    struct lane *lane = lane_of(self);
    (void)none;
    if (lane == NULL)
        return NULL;
    lane_poke_stage(lane);
    Py_RETURN_NONE;
}

static PyObject *method_figures(PyObject *self, PyObject *none)
{
    struct lane *lane = lane_of(self);
    struct lane_figures figures;
    (void)none;
    if (lane == NULL)
        return NULL;
    lane_count(lane, &figures);
    return Py_BuildValue("{sKsOsKsKsK}", "threads", (unsigned long long)figures.threads, "parked",
                         figures.parked ? Py_True : Py_False, "grants",
                         (unsigned long long)figures.grants, "answered",
                         (unsigned long long)figures.answered, "handed_over",
                         (unsigned long long)figures.handed);
}

static PyObject *get_descriptor(PyObject *self, void *what)
{
    struct lane *lane = lane_of(self);
    if (lane == NULL)
        return NULL;
    switch (*(const char *)what) {
    case 'e':
        return PyLong_FromLong(lane_events(lane));
    case 's':
        return PyLong_FromLong(lane_stage_event(lane));
    default:
        return PyLong_FromLong(lane_note_event(lane));
    }
}

static PyObject *get_capsule(PyObject *self, void *none)
{
    (void)none;
    return lane_of(self) != NULL ? PyCapsule_New(&((Lane *)self)->shown, LANE_CAPSULE, NULL) : NULL;
}

static PyMethodDef methods[] = {
    {"end", method_end, METH_NOARGS, "End all threads; nothing may be asked afterwards."},
    {"grant", (PyCFunction)(void (*)(void))method_grant, METH_VARARGS | METH_KEYWORDS,
     "Let the lane answer reads of an open file."},
    {"revoke", method_revoke, METH_O, "Undo it; when this returns no thread is at it any more."},
    {"resize", method_resize, METH_VARARGS, "resize(handle, size): the file is of another size."},
    {"is_settled", method_is_settled, METH_O, "Whether Python knows of all that was written of it."},
    {"follow", method_follow, METH_O,
     "The page behind the last one that was read, and whether all was in order until there."},
    {"move", method_move, METH_VARARGS,
     "move(handle, position): Python has read up to that page (excluded)."},
    {"watch", method_watch, METH_VARARGS,
     "watch(handle, edge): note who reads in order and beyond page *edge*."},
    {"note", method_note, METH_NOARGS, "The next note, (handle, first, last, in order), None without one."},
    {"written", method_written, METH_NOARGS,
     "What was written of a file: (handle, start, end, writes, bytes, times before, times after, alone,\n"
     "bytes that were kept). None where all is settled; the same again until it is."},
    {"unsettled", method_unsettled, METH_NOARGS, "How often `written` has something by now."},
    {"settle", method_settle, METH_NOARGS, "The pages of what was told last have been dropped."},
    {"stage", method_stage, METH_VARARGS,
     "stage(handle, offset, data): write whole pages of a granted swap volume; False where that cannot be."},
    {"settle_stage", method_settle_stage, METH_NOARGS,
     "Wait until the stage of swap volumes is empty; what is missing for the rest of it, or 0."},
    {"stage_missing", method_stage_missing, METH_NOARGS, "What is missing just now, or 0."},
    {"poke_stage", method_poke_stage, METH_NOARGS, "What was missing is there."},
    {"figures", method_figures, METH_NOARGS, "What there is to tell, by name."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef properties[] = {
    {"events", get_descriptor, NULL, "readable while the session has something to do", "events"},
    {"stage_event", get_descriptor, NULL, "readable when the stage misses something, -1 without one",
     "stage"},
    {"note_event", get_descriptor, NULL, "readable while there are notes", "notes"},
    {"capsule", get_capsule, NULL, "for the session; it may be used as long as the lane is there",
     NULL},
    {NULL, NULL, NULL, NULL, NULL}};

PyTypeObject lane_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tmemfs.native._native.Lane",
    .tp_doc = "Lane(store, *, device, threads, largest, touch): threads that answer what is granted.",
    .tp_basicsize = sizeof(Lane),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = lane_new_object,
    .tp_dealloc = lane_dealloc,
    .tp_methods = methods,
    .tp_getset = properties,
};
