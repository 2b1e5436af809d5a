"""Whether the extension is there: where it could not be built, everything works without it."""

from __future__ import annotations

from tmemfs.tmem.storage import MakeStorage


def make_storage() -> MakeStorage | None:
    """What makes the storage of a core with its tables in C; None without the extension."""
    try:
        from tmemfs.native.storage import NativeStorage
    except ImportError:
        return None
    return NativeStorage
