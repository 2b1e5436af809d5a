"""How an inode is looked at, and found again: by its handle, or by the names that lead to it.

Everything here is plain numbers and bytes, so that a thread can do it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from typing import NamedTuple

from tmemfs.syscalls import file_handle, open_file_handle

_OPEN_FLAGS = os.O_PATH | os.O_NOFOLLOW

Key = tuple[int, int]
"""Device and inode number."""


Look = tuple[os.stat_result, bytes | None]
"""Attributes and file handle."""


class Step(NamedTuple):
    """What leads to a node from its parent, and what it must be to be the one."""

    handle: bytes | None
    name: bytes
    key: Key
    generation: int


class Route(NamedTuple):
    """How a node without a descriptor is reached again; plain numbers and bytes, for a thread.

    Either by the last step's handle, on the filesystem of *root*, or from *base* by name, step by
    step. *device* is the one on which handles are good.
    """

    root: int
    device: int
    base: int
    steps: list[Step]


def reopen(route: Route) -> int:
    """Open the node that *route* leads to; return the descriptor. Blocks.

    Raises ESTALE when its inode cannot be found.
    """
    last = route.steps[-1]
    # A handle is good on its own filesystem only, and the root's is the one at hand.
    if last.handle is not None and last.key[0] == route.device:
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
        found = (info.st_dev, info.st_ino), generation_of(handle_of(fd))
    except BaseException:
        os.close(fd)
        raise
    if found != (step.key, step.generation):
        os.close(fd)
        raise OSError(errno.ESTALE, "another file has taken the name", step.name)


def look(directory: int, name: bytes) -> Look:
    """Return the attributes and the file handle of *name* in *directory*. Blocks."""
    return os.stat(name, dir_fd=directory, follow_symlinks=False), handle_of(directory, name)


def look_open(fd: int) -> Look:
    """Return the attributes and the file handle of what *fd* is open on. Blocks."""
    return os.fstat(fd), handle_of(fd)


def handle_of(directory: int, name: bytes = b"") -> bytes | None:
    try:
        return file_handle(directory, name)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EOVERFLOW, errno.ENOSYS):
            return None
        raise


def generation_of(handle: bytes | None) -> int:
    """Return 64 bits that tell an inode from others that have had its number."""
    if handle is None:
        return 0
    return int.from_bytes(hashlib.blake2b(handle, digest_size=8).digest(), "little")
