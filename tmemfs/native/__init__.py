"""Pages found and read without the interpreter.

The *store* (``store.c``) has the tables of `tmemfs.tmem.objects` in C, in one mapping with the
arena. `docs/native.md` says what may touch what under which lock.
"""

from __future__ import annotations

from tmemfs.tmem.storage import MakeStorage


def make_storage() -> MakeStorage | None:
    """What makes the storage of a core; None where the extension could not be built."""
    try:
        from tmemfs.native.storage import NativeStorage
    except ImportError:
        return None
    return NativeStorage
