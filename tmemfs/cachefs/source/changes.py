"""System calls that change names and attributes, as the caller, with attributes before and after.

Each function makes one system call as *caller*, by descriptors, and returns the `Looks` of the
inodes that it is about. A look fails where the change has not: a filesystem that goes by path has
no file any more when its name has gone. All block: a thread runs them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tmemfs.cachefs.source.routes import Stat, inode_path, try_fstat
from tmemfs.linux.credentials import Caller, acting_as
from tmemfs.linux.syscalls import renameat2, utimens

Looks = tuple[Stat | None, Stat | None]
"""the attributes of an inode before and after, None where there are none to be had"""


def chmod(caller: Caller, fd: int, mode: int) -> Looks:
    """Change the permission bits of the inode that is open as *fd*."""
    with _around(caller, [fd]) as looks:
        os.chmod(inode_path(fd), mode)
    return looks[0]


def chown(caller: Caller, fd: int, uid: int, gid: int) -> Looks:
    """Change owner and group of the inode that is open as *fd*, -1 for what is to stay."""
    with _around(caller, [fd]) as looks:
        os.chown(inode_path(fd), uid, gid)
    return looks[0]


def set_times(caller: Caller, fd: int, atime: int, mtime: int) -> Looks:
    """Set the times of the inode that is open as *fd*: ns since the epoch, or see `utimens`."""
    with _around(caller, [fd]) as looks:
        utimens(inode_path(fd), atime, mtime)
    return looks[0]


def setxattr(caller: Caller, fd: int, name: bytes, value: bytes) -> Looks:
    """Set an extended attribute of the inode that is open as *fd*."""
    with _around(caller, [fd]) as looks:
        os.setxattr(inode_path(fd), name, value)
    return looks[0]


def removexattr(caller: Caller, fd: int, name: bytes) -> Looks:
    """Remove an extended attribute of the inode that is open as *fd*."""
    with _around(caller, [fd]) as looks:
        os.removexattr(inode_path(fd), name)
    return looks[0]


def link(caller: Caller, fd: int, directory: int, name: bytes) -> Looks:
    """Give the inode that is open as *fd* another name."""
    with _around(caller, [fd]) as looks:
        os.link(inode_path(fd), name, dst_dir_fd=directory, follow_symlinks=True)
    return looks[0]


def unlink(caller: Caller, fds: list[int], directory: int, name: bytes) -> list[Looks]:
    """Remove a name in *directory*; look at *fds*."""
    with _around(caller, fds) as looks:
        os.unlink(name, dir_fd=directory)
    return looks


def rmdir(caller: Caller, fds: list[int], directory: int, name: bytes) -> list[Looks]:
    """Remove an empty directory *name* in *directory*; look at *fds*."""
    with _around(caller, fds) as looks:
        os.rmdir(name, dir_fd=directory)
    return looks


def rename(
    caller: Caller, fds: list[int], old: tuple[int, bytes], new: tuple[int, bytes], flags: int
) -> list[Looks]:
    """Rename from *old* to *new*, each a directory and a name; look at *fds*. See renameat2(2)."""
    with _around(caller, fds) as looks:
        renameat2(*old, *new, flags)
    return looks


@contextmanager
def _around(caller: Caller, fds: list[int]) -> Iterator[list[Looks]]:
    """Act as *caller* inside; afterwards there is a look for each of *fds*, before and after it."""
    before = [try_fstat(fd) for fd in fds]
    looks: list[Looks] = []
    with acting_as(caller):
        yield looks
    looks += [(info, try_fstat(fd)) for info, fd in zip(before, fds, strict=True)]
