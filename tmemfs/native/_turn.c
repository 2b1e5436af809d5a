/* The turn as trio has it: an instrument. See `tmemfs.native.lane`.

   In C, because trio takes away an instrument whose method raises, and then the lane would wait for a
   turn that never comes: these methods cannot. */

#include "_native.h"

typedef struct {
    PyObject_HEAD
    Store *owner;
} Turn;

static PyObject *turn_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
    Store *store;
    (void)named;
    if (!PyArg_ParseTuple(args, "O!", &store_type, &store))
        return NULL;
    Turn *self = (Turn *)type->tp_alloc(type, 0);
    if (self != NULL)
        self->owner = (Store *)Py_NewRef((PyObject *)store);
    return (PyObject *)self;
}

static void turn_dealloc(PyObject *self)
{
    Py_XDECREF(((Turn *)self)->owner);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *before_io_wait(PyObject *self, PyObject *timeout)
{
    Store *owner = ((Turn *)self)->owner;
    (void)timeout;
    if (owner->store.base != NULL)
        turn_leave(&owner->store.turn);
    Py_RETURN_NONE;
}

static PyObject *after_io_wait(PyObject *self, PyObject *timeout)
{
    Store *owner = ((Turn *)self)->owner;
    (void)timeout;
    /* With the interpreter's lock: who has the turn never waits for that. */
    if (owner->store.base != NULL)
        turn_enter(&owner->store.turn);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"before_io_wait", before_io_wait, METH_O, "Others may have the turn now."},
    {"after_io_wait", after_io_wait, METH_O, "It is ours, as soon as this returns."},
    {NULL, NULL, 0, NULL}};

PyTypeObject turn_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tmemfs.native._native.Turn",
    .tp_doc = "Turn(store): lets the lane change the store while trio waits.",
    .tp_basicsize = sizeof(Turn),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = turn_new,
    .tp_dealloc = turn_dealloc,
    .tp_methods = methods,
};
