"""Opening backing files, and what the kernel has of them. All but `open_at_once` may block."""

from __future__ import annotations

import contextlib
import fcntl
import os

from tmemfs.cachefs.source.executor import Block, read_block
from tmemfs.cachefs.source.routes import open_inode
from tmemfs.cachefs.source.stamps import stamp
from tmemfs.linux.credentials import Caller, as_caller

OPEN_FLAGS = os.O_ACCMODE | os.O_SYNC | os.O_DSYNC | os.O_NOATIME | os.O_NONBLOCK
"""What a backing file may be opened with. Not O_DIRECT: the buffers that FUSE hands over are not
aligned. Not O_APPEND: what a mapping of such a file has changed would be appended, too."""

# Hardly anybody opens a small file for anything but to read it.
SMALL = 64 << 10
"""A file of so many bytes is read as soon as it is opened where each of the two is a journey over a
network, and a thread's work here."""


def open_at_once(fd: int, flags: int, caller: Caller) -> tuple[int, Block]:
    """Open the local file of an ``O_PATH`` descriptor, as *caller*.

    BlockingIOError where somebody has a lease on it, and is to give that back first.
    """
    opened = as_caller(caller, open_inode, fd, flags | os.O_NONBLOCK)
    os.set_blocking(opened, not flags & os.O_NONBLOCK)
    return opened, Block(b"", os.fstat(opened))


def open_and_read(fd: int, flags: int, most: int, caller: Caller) -> tuple[int, Block]:
    """Open the file of an ``O_PATH`` descriptor as *caller*; read *most* bytes, or nothing."""
    # Before: what is opened may be newer, which the next look shows, and never older.
    block = Block(b"", os.fstat(fd))
    opened = as_caller(caller, open_inode, fd, flags)
    try:
        if 0 < block.info.st_size <= most:
            with contextlib.suppress(OSError):  # it is told when somebody reads
                found = read_block(opened, 0, block.info.st_size)
                # Who changes it meanwhile leaves other times, and what was read is of neither.
                same = stamp(found.info) == stamp(block.info)
                block = found if same else Block(b"", found.info)
    except BaseException:
        os.close(opened)
        raise
    return opened, block


def read_past_kernel(fd: int) -> None:
    """Let *fd* be read from its filesystem each time, not from what the kernel has of the file."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_DIRECT)


def drop_kernels_copy(fd: int) -> None:
    """Let the kernel forget what it has of the file of *fd*."""
    with contextlib.suppress(OSError):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def sync_directory(path: str) -> None:
    """Let the names in a directory reach its disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
