"""The overflow file of a volume that is turned on, made here so that it is known who made it.

Two commands may name one file that is not there. It belongs to the one whose `O_EXCL` succeeded,
and to the daemon that has it locked.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from dataclasses import dataclass

from tmemfs.errors import MountFailure
from tmemfs.units import format_size


@dataclass(frozen=True, slots=True)
class Made:
    """A file that was made at `path`, with what tells it from another that is there later."""

    path: str
    device: int
    inode: int


def check_overflow(path: str, size: int) -> None:
    """Raise MountFailure where `path` cannot be an overflow file of `size` bytes."""
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        raise MountFailure(f"overflow: {directory}: the directory does not exist")
    held = 0
    if os.path.exists(path):
        status = os.stat(path)
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
            raise MountFailure(f"overflow: {path}: is neither a file nor a block device")
        if stat.S_ISBLK(status.st_mode):
            return
        held = status.st_blocks * 512
    room = os.statvfs(directory)
    free = room.f_bavail * room.f_frsize
    if free + held < size:
        raise MountFailure(
            f"overflow: {directory} has {format_size(free)} free, "
            f"and the file takes {format_size(size)}"
        )


def make(path: str) -> Made | None:
    """Make an empty file for its owner alone; None where there is something already."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return None
    info = os.fstat(fd)
    os.close(fd)
    return Made(path, info.st_dev, info.st_ino)


def remove(made: Made) -> None:
    """Remove the file that was made, unless it is another one by now, or in use by another daemon.

    To be called when the daemon that it was made for has ended. Gone already is no error.
    """
    with suppress(FileNotFoundError):
        fd = os.open(made.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            info = os.fstat(fd)
            if (info.st_dev, info.st_ino) != (made.device, made.inode):
                return
            # Whoever opens it from here on waits for nothing, and finds that its name is gone.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(made.path)
        except BlockingIOError:
            return
        finally:
            os.close(fd)
