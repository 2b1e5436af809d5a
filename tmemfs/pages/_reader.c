/* Pages out of the arena, many at once: the read of a run in tmemfs/pages/reader.py.

   What a payload of which length is, tmemfs/pages/codec.py says. A page that is none of these ends
   the whole read with None: the codec is asked then, and says what is wrong. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#include "codec.h"

/* Fill *run* from the arena and *missing* with the places where there is nothing. Returns 1; 0 where
   a page is damaged; -1 with an exception set. */
static int fill(char *run, PyObject *missing, const Py_buffer *arena, PyObject *locations,
                int page_size, int size_bits)
{
    const unsigned long long mask = (1ULL << size_bits) - 1;
    const Py_ssize_t count = PyList_GET_SIZE(locations);

    for (Py_ssize_t place = 0; place < count; place++, run += page_size) {
        const unsigned long long location =
            PyLong_AsUnsignedLongLong(PyList_GET_ITEM(locations, place));
        if (location == (unsigned long long)-1 && PyErr_Occurred())
            return -1;
        if (location == 0) {
            PyObject *number = PyLong_FromSsize_t(place);
            const int failed = number == NULL || PyList_Append(missing, number) < 0;
            Py_XDECREF(number);
            if (failed)
                return -1;
            memset(run, 0, page_size);
            continue;
        }
        const unsigned long long start = location >> size_bits, size = location & mask;
        if (start + size > (unsigned long long)arena->len ||
            !decode_page((const char *)arena->buf + start, (unsigned)size, run, (unsigned)page_size))
            return 0;
    }
    return 1;
}

static PyObject *reader_read(PyObject *module, PyObject *args)
{
    Py_buffer arena;
    PyObject *locations, *run, *missing, *found = NULL;
    int page_size, size_bits;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*O!ii", &arena, &PyList_Type, &locations, &page_size, &size_bits))
        return NULL;
    run = PyByteArray_FromStringAndSize(NULL, PyList_GET_SIZE(locations) * page_size);
    missing = PyList_New(0);
    if (run != NULL && missing != NULL) {
        switch (fill(PyByteArray_AS_STRING(run), missing, &arena, locations, page_size, size_bits)) {
        case 1:
            found = PyTuple_Pack(2, run, missing);
            break;
        case 0:
            found = Py_NewRef(Py_None);
        }
    }
    Py_XDECREF(run);
    Py_XDECREF(missing);
    PyBuffer_Release(&arena);
    return found;
}

static PyMethodDef methods[] = {
    {"read", reader_read, METH_VARARGS,
     "read(arena, locations, page_size, size_bits): the pages in one bytearray and the places of\n"
     "those that are not there, or None where one of them is damaged."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_reader", "Pages out of the arena, many at once.", -1, methods,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__reader(void)
{
    return PyModule_Create(&definition);
}
