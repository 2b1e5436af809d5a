"""System calls that create names, as the caller, so that what is made is the caller's.

Descriptors and bytes only, so that a thread can do it. All block.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from tmemfs.cachefs.source.routes import inode_path
from tmemfs.linux.credentials import Caller, acting_as, has_own_umask, ourselves


def mkdir(caller: Caller, directory: int, name: bytes, mode: int) -> None:
    """Make a directory as *caller*."""
    with _making_as(caller) as mask:
        os.mkdir(name, mode & ~mask, dir_fd=directory)


def mknod(caller: Caller, directory: int, name: bytes, mode: int, device: int) -> None:
    """Make a file, FIFO, socket or device as *caller*."""
    with _making_as(caller) as mask:
        os.mknod(name, mode & ~mask, device, dir_fd=directory)


def symlink(caller: Caller, target: bytes, directory: int, name: bytes) -> None:
    """Make a symbolic link to *target* as *caller*."""
    with acting_as(caller):
        os.symlink(target, name, dir_fd=directory)


def make_file(caller: Caller, directory: int, name: bytes, mode: int, flags: int) -> int:
    """Make a file as *caller* and open it; return the descriptor."""
    flags |= os.O_NOFOLLOW
    try:
        with _making_as(caller) as mask:
            made = flags | os.O_CREAT | os.O_EXCL
            fd = os.open(name, made, mode & ~mask, dir_fd=directory)
    except FileExistsError:
        if flags & os.O_EXCL:
            raise
        # It is not for us to open it, because nobody has asked yet whether the caller may. The
        # kernel, which had not seen it, looks again and does ask.
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), name) from None
    if (ours := ourselves()).uid and caller.gid != ours.gid:
        # Who is not root can act as nobody else, but may choose among their own groups.
        with contextlib.suppress(OSError):
            os.fchown(fd, -1, caller.gid)
    return fd


def make_unnamed(caller: Caller, directory: int, mode: int, flags: int) -> int:
    """Make a file without a name as *caller*, and open it; return the descriptor."""
    with _making_as(caller) as mask:
        return os.open(inode_path(directory), flags | os.O_TMPFILE, mode & ~mask)


@contextlib.contextmanager
def _making_as(caller: Caller) -> Iterator[int]:
    """Act as *caller*, who has a umask; yield what is left of that to be masked.

    Only the source's filesystem knows whether it counts: not where the directory has a default
    access control list.
    """
    if not has_own_umask():
        with acting_as(caller):
            yield caller.umask
        return
    before = os.umask(caller.umask)
    try:
        with acting_as(caller):
            yield 0
    finally:
        os.umask(before)
