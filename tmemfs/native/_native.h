/* What the files of the extension share: its types as Python has them. */

#ifndef TMEMFS_NATIVE_H
#define TMEMFS_NATIVE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "store.h"

/* A store in memory that Python has mapped; without `base` once it is closed. */
typedef struct {
    PyObject_HEAD
    struct store store;
    Py_buffer memory;
} Store;

/* The objects of one pool. */
typedef struct {
    PyObject_HEAD
    Store *owner;
    uint32_t number;
} Table;

/* One object, as long as it has pages: then the number goes to another one. */
typedef struct {
    PyObject_HEAD
    Table *table;
    uint32_t number, incarnation;
} Object;

extern PyTypeObject store_type, table_type, object_type, segment_type, rows_type, lane_type, turn_type;

/* The store of a table; NULL with an exception where it is closed. */
struct store *store_of(Table *table);
/* An int of up to 192 bits. 1; 0 where it is out of range, -1 with an exception. */
int as_wide(PyObject *number, struct wide *wide);
PyObject *from_wide(const struct wide *wide);
/* The number of a Segment; 0 once it was given back. */
uint32_t segment_number(PyObject *segment);
/* A new handle of an object of *table*. */
PyObject *handle_of(Table *table, const struct object *object);
/* The object behind a handle, in a store whose lock is held; NULL where it has gone. */
struct object *behind(const Object *handle, const struct store *store);

#endif
