"""What a thread does about names and attributes, with descriptors and bytes alone. All block."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from tmemfs.cachefs.source.executor import Stat, try_fstat
from tmemfs.cachefs.source.routes import Look, Route, look, look_cached, reopen

T = TypeVar("T")


def inode_path(fd: int) -> str:
    """A path to the very inode of an ``O_PATH`` descriptor, links not followed any further."""
    return f"/proc/self/fd/{fd}"


def open_inode(fd: int, flags: int) -> int:
    """Open the very inode of an ``O_PATH`` descriptor."""
    try:
        return os.open(inode_path(fd), flags)
    except PermissionError:
        if not flags & os.O_NOATIME:
            raise
        # Only its owner may ask for that. Who may not open it so is told by the kernel before.
        return os.open(inode_path(fd), flags & ~os.O_NOATIME)


def reopen_and(route: Route, function: Callable[..., T], args: tuple[Any, ...]) -> tuple[int, T]:
    """Open the inode that *route* leads to, and call *function* with the descriptor and *args*."""
    fd = reopen(route)
    try:
        return fd, function(fd, *args)
    except BaseException:
        os.close(fd)
        raise


def around(fd: int, function: Callable[..., object], *args: Any) -> tuple[Stat | None, Stat | None]:
    """Call *function*; return the attributes of *fd* before and after, None where there are none.

    To look fails where the change has not: a filesystem that goes by path has no file any more when
    its name has gone.
    """
    [looks] = around_many([fd], function, *args)
    return looks


def around_many(
    fds: list[int], function: Callable[..., object], *args: Any
) -> list[tuple[Stat | None, Stat | None]]:
    """As `around`, for some descriptors."""
    before = [try_fstat(fd) for fd in fds]
    function(*args)
    return [(info, try_fstat(fd)) for info, fd in zip(before, fds, strict=True)]


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


def readlink(fd: int) -> str:
    """Where the symbolic link points that is open."""
    return os.readlink("", dir_fd=fd)


def at(function: Callable[..., None], directory: int, name: bytes) -> None:
    """Call *function* of `os` on *name* in *directory*."""
    function(name, dir_fd=directory)


def link(fd: int, directory: int, name: bytes) -> None:
    """Give the inode that is open another name."""
    os.link(inode_path(fd), name, dst_dir_fd=directory, follow_symlinks=True)
