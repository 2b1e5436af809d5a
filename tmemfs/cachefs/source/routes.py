"""Looks at an inode, and opens it again by its file handle or by the names that lead to it.

Everything here is plain numbers and bytes, so that a thread can do it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from tmemfs.cachefs.source.filesystems import OnMount, mount_of
from tmemfs.linux.syscalls import file_handle, open_file_handle, open_here

T = TypeVar("T")
Stat = os.stat_result

_OPEN_FLAGS = os.O_PATH | os.O_NOFOLLOW

Key = tuple[int, int]
"""Device and inode number."""


class Look(NamedTuple):
    """Attributes, file handle, and the mount if it is not the directory's."""

    info: os.stat_result
    handle: bytes | None
    mount: OnMount | None = None


class Step(NamedTuple):
    """What leads to an inode from its parent, and what it must be to be the one.

    *here* is whether it is on the root's mount, on which its handle is good. On another one, the
    root's would permit what that forbids.
    """

    here: bool
    handle: bytes | None
    name: bytes
    key: Key
    generation: int


class Route(NamedTuple):
    """How an inode without a descriptor is reached again; plain numbers and bytes, for a thread.

    Either by the last step's handle, on the mount of *root*, or from *base* by name, step by step.
    """

    root: int
    base: int
    steps: list[Step]


def reopen(route: Route) -> int:
    """Open the inode that *route* leads to; return the descriptor. Blocks.

    Raises ESTALE when its inode cannot be found.
    """
    last = route.steps[-1]
    if last.handle is not None and last.here:
        # Not permitted, or not known to a filesystem in user space any more: there are names.
        with contextlib.suppress(PermissionError, StaleHandle):
            fd = _open_handle(route.root, last.handle)
            _check(fd, last)
            return fd
    directory, fd = route.base, -1
    for step in route.steps:
        try:
            found = os.open(step.name, _OPEN_FLAGS, dir_fd=directory)
        except (FileNotFoundError, NotADirectoryError) as error:
            # Not ENOENT, which the kernel would take for the last word: the inode may have
            # another name, under which it is found after ESTALE.
            raise OSError(errno.ESTALE, "the name is gone", step.name) from error
        finally:
            if fd >= 0:
                os.close(fd)
        directory = fd = found
        _check(fd, step)
    return fd


def reopen_and(route: Route, function: Callable[..., T], args: tuple[Any, ...]) -> tuple[int, T]:
    """Open the inode that *route* leads to, and call *function* with the descriptor and *args*."""
    fd = reopen(route)
    try:
        return fd, function(fd, *args)
    except BaseException:
        os.close(fd)
        raise


class StaleHandle(Exception):
    """The filesystem does not know a handle any more."""


def _open_handle(root: int, handle: bytes) -> int:
    try:
        return open_file_handle(root, handle, _OPEN_FLAGS)
    except OSError as error:
        if error.errno == errno.ESTALE:
            raise StaleHandle from error
        raise


def _check(fd: int, step: Step) -> None:
    """Close *fd* and raise ESTALE unless it is what *step* has to lead to."""
    try:
        info = os.fstat(fd)
        handle = handle_of(fd) if step.handle is not None else None
        found = (info.st_dev, info.st_ino), generation_of(handle)
    except BaseException:
        os.close(fd)
        raise
    if found != (step.key, step.generation):
        os.close(fd)
        raise OSError(errno.ESTALE, "another file has taken the name", step.name)


def reopen_cached(route: Route) -> int | None:
    """As `reopen`, of one step, on a local filesystem; None where that would have to wait."""
    [step] = route.steps
    try:
        fd = open_here(route.base, step.name, cached=True)
        _check(fd, step)
    except OSError:
        return None
    return fd


def open_cached(directory: int, name: bytes) -> int | None:
    """Open *name* in *directory*, ``O_PATH``, on a local filesystem, if the kernel has it cached.

    None where it has not, or where something is mounted on the name: that would have to wait.
    """
    try:
        return open_here(directory, name, cached=True)
    except FileNotFoundError:
        raise
    except OSError:
        return None


def look_cached(directory: int, name: bytes) -> Look | None:
    """Look at *name* in *directory*; None as of `open_cached`."""
    fd = open_cached(directory, name)
    if fd is None:
        return None
    try:
        return Look(os.fstat(fd), handle_of(fd))
    finally:
        os.close(fd)


def look(directory: int, name: bytes) -> Look:
    """Return what *name* in *directory* is. Blocks. EXDEV where something is mounted on it."""
    try:
        fd = open_here(directory, name)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            # Too old a kernel, or forbidden in this container: who cannot tell, crosses.
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name) from error
        raise
    return _look_and_close(fd)


def look_across(directory: int, name: bytes) -> Look:
    """Return what is mounted on *name* in *directory*. Blocks, for ever if that does not answer.

    What is mounted when somebody asks is asked for.
    """
    try:
        # Only who wants a directory has it mounted.
        fd = os.open(name, _OPEN_FLAGS | os.O_DIRECTORY, dir_fd=directory)
    except NotADirectoryError:
        fd = os.open(name, _OPEN_FLAGS, dir_fd=directory)
    try:
        return look_open(fd)._replace(mount=mount_of(fd))
    finally:
        os.close(fd)


def look_open(fd: int) -> Look:
    """Return what *fd* is open on. Blocks."""
    return Look(os.fstat(fd), handle_of(fd))


def _look_and_close(fd: int) -> Look:
    try:
        return look_open(fd)
    finally:
        os.close(fd)


def handle_of(fd: int) -> bytes | None:
    """Return the file handle of what *fd* is open on, None where the filesystem has none."""
    try:
        return file_handle(fd)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EOVERFLOW, errno.ENOSYS):
            return None
        raise


def generation_of(handle: bytes | None) -> int:
    """Return 64 bits that tell an inode from others that have had its number."""
    if handle is None:
        return 0
    return int.from_bytes(hashlib.blake2b(handle, digest_size=8).digest(), "little")


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


def try_fstat(fd: int) -> Stat | None:
    """Return the attributes of *fd*, None if they cannot be had.

    For a look beside a change: it may fail where the change does not. A filesystem that goes by
    path does not know a file any more whose name has gone.
    """
    try:
        return os.fstat(fd)
    except OSError:
        return None


def readlink(fd: int) -> str:
    """Where the symbolic link points that is open."""
    return os.readlink("", dir_fd=fd)


def getxattr(fd: int, name: bytes) -> bytes:
    """Return the value of an extended attribute of the inode that is open."""
    return os.getxattr(inode_path(fd), name)


def listxattr(fd: int) -> list[bytes]:
    """Return the names of all extended attributes of the inode that is open."""
    return [os.fsencode(name) for name in os.listxattr(inode_path(fd))]
