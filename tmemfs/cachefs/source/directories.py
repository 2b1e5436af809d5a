"""Lists a directory and looks at its names, in a thread. All block."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator

from tmemfs.cachefs.source.routes import Look, inode_path, look, look_cached, open_inode


def look_many(directory: int, names: list[bytes]) -> list[Look | OSError]:
    """Look at some names in *directory*; what is wrong with one is no reason to lose the others."""
    return [_look_or_error(directory, name) for name in names]


def look_many_cached(directory: int, names: list[bytes]) -> list[Look | None]:
    """Look at some names in *directory*, as `look_cached`; None also for one that is not there."""
    looks: list[Look | None] = []
    for name in names:
        try:
            looks.append(look_cached(directory, name))
        except FileNotFoundError:
            looks.append(None)
    return looks


def look_at_all(directory: int, most: int) -> dict[bytes, Look] | None:
    """Look at every name in *directory*; None if there are more than *most*."""
    with _entries(directory, 0) as entries:
        names = list(itertools.islice(entries, most + 1))
    if len(names) > most:
        return None
    looks = ((name, _look_or_error(directory, name)) for name in names)
    # Who asks for one that cannot be looked at is told.
    return {name: found for name, found in looks if isinstance(found, Look)}


def _look_or_error(directory: int, name: bytes) -> Look | OSError:
    try:
        return look(directory, name)
    except OSError as error:
        return error


def listdir(fd: int, noatime: int) -> bytes:
    """Every name in a directory, ``.`` and ``..`` first, with a NUL after each.

    *noatime* is a flag for the open, or 0. There may be very many names: to free as many objects
    takes milliseconds, in which nothing else runs.
    """
    names = bytearray(b".\0..\0")
    with _entries(fd, noatime) as entries:
        for name in entries:
            names += name
            names.append(0)
    return bytes(names)


@contextlib.contextmanager
def _entries(fd: int, noatime: int) -> Iterator[Iterator[bytes]]:
    """Read the names in the directory of an ``O_PATH`` descriptor."""
    if not noatime:
        with os.scandir(os.fsencode(inode_path(fd))) as entries:
            yield (entry.name for entry in entries)
        return
    opened = open_inode(fd, os.O_RDONLY | os.O_DIRECTORY | noatime)
    try:
        with os.scandir(opened) as found:
            yield (os.fsencode(entry.name) for entry in found)
    finally:
        os.close(opened)
