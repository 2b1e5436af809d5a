"""Opening the file or block device of an overflow: its space is there, and nothing else is lost."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import re
import stat
import subprocess
from contextlib import suppress

from tmemfs.errors import MountFailure, from_os_error
from tmemfs.linux import system
from tmemfs.units import format_size

SLOT = 4096

# Before the first slot, so that what is something else is never taken for an overflow file: there
# it does not outlive a filesystem, or anything else, that is made in its place.
_HEADER = b"tmemfs overflow file, version 1\n".ljust(SLOT, b"\0")
FIRST = len(_HEADER)
"""where slot 0 begins"""

_IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"})


def open_slots(path: str, slots: int) -> int:
    """Return a descriptor for direct I/O on *path*, which has room for *slots* slots.

    A file is made where there is none, and belongs to its owner alone: it holds what was in memory.
    A block device must be free and empty, and nothing of it in memory. Nobody else may have it as
    an overflow at the same time.
    Raises MountFailure, or another TmemfsError where the system says no; nothing has changed then.
    """
    try:
        if _is_block_device(path):
            return _open_device(path, slots)
        return _open_file(path, slots)
    except OSError as error:
        error.filename = error.filename or path
        raise from_os_error(error) from error


def _open_file(path: str, slots: int) -> int:
    size = FIRST + slots * SLOT
    fd, is_new = _open_locked(path)
    try:
        if not is_new:
            _check_file(fd, path)
        _refuse_memory(fd, path)
        _allocate(fd, path, size)
        os.ftruncate(fd, size)
        _write_header(fd)
    except BaseException:
        if is_new and _is_at(fd, path):
            # As long as it is locked: nobody else can have it, and use a file without a name.
            os.unlink(path)
        os.close(fd)
        raise
    return fd


def _open_locked(path: str) -> tuple[int, bool]:
    """A descriptor of the file, which is locked and still has its name; and whether it is new."""
    while True:
        is_new = True
        try:
            fd = _open(path, os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            is_new = False
            try:
                fd = _open(path)
            except FileNotFoundError as error:
                if not os.path.islink(path):
                    continue  # removed meanwhile
                raise MountFailure(
                    f"{path}: is a symbolic link to what is not there: {error.strerror}"
                ) from None
        try:
            # One that is new may be another's by now, who opened it before it was locked.
            _lock(fd, path)
            if _is_at(fd, path):
                return fd, is_new
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _is_at(fd: int, path: str) -> bool:
    """Whether an open file is the one that *path* leads to."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _check_file(fd: int, path: str) -> None:
    """Raise MountFailure where a file holds what is not ours, or is not for us alone."""
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode):
        raise MountFailure(f"{path}: is neither a file nor a block device")
    if info.st_size and not _has_header(fd):
        raise MountFailure(
            f"{path}: is not empty and not an overflow file of tmemfs; remove it, or name another "
            "one"
        )
    if info.st_uid != os.geteuid() or info.st_mode & 0o077:
        raise MountFailure(
            f"{path}: others may read it, and it will hold what was in memory; remove it, or make "
            "it yours alone (chown, chmod 600)"
        )


def _refuse_memory(fd: int, path: str) -> None:
    """Raise MountFailure where what is kept in *path* is in memory, or is swapped out itself."""
    info = os.fstat(fd)
    if stat.S_ISBLK(info.st_mode):
        number = f"{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"
        name = os.path.basename(os.path.realpath(f"/sys/dev/block/{number}"))
        in_memory = re.fullmatch(r"z?ram\d+", name) is not None
        what = f"the device {name}"
    else:
        number_of_fs = (os.major(info.st_dev), os.minor(info.st_dev))
        kinds = {mount.fstype for mount in system.read_mounts() if mount.device == number_of_fs}
        in_memory = bool(kinds & _IN_MEMORY)
        what = " ".join(sorted(kinds))
    if in_memory:
        raise MountFailure(
            f"{path}: is in memory ({what}), and the overflow is for what memory does not hold; "
            "name a file on a disk"
        )


def _allocate(fd: int, path: str, size: int) -> None:
    """Take the space now: later there may be none."""
    before = os.fstat(fd).st_size
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        os.ftruncate(fd, before)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise MountFailure(
                f"{path}: {format_size(size)} for the overflow are not to be had: {error.strerror}"
            ) from error
        raise MountFailure(
            f"{path}: this filesystem cannot set space for the overflow aside: {error.strerror}"
        ) from error


def _open_device(path: str, slots: int) -> int:
    fd = _open(path, os.O_EXCL)  # EBUSY where it is mounted or otherwise in use
    try:
        if not stat.S_ISBLK(os.fstat(fd).st_mode):
            raise MountFailure(f"{path}: was a block device a moment ago")
        _refuse_memory(fd, path)
        needed, size = FIRST + slots * SLOT, os.lseek(fd, 0, os.SEEK_END)
        if size < needed:
            raise MountFailure(
                f"{path}: has {format_size(size)}; the overflow needs {format_size(needed)}"
            )
        if not _has_header(fd):
            _refuse_contents(path)
        _write_header(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _refuse_contents(path: str) -> None:
    """Raise MountFailure where a device has a filesystem or anything else that blkid(8) knows."""
    command = ["blkid", "--probe", "--output", "value", "--match-tag", "TYPE", path]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MountFailure(f"{path}: cannot tell whether it is empty: blkid is missing") from None
    if found.returncode != 2:  # 2: nothing was found
        what = found.stdout.strip() or "something"
        raise MountFailure(f"{path}: has {what} on it; empty it with 'wipefs --all {path}' first")


def _open(path: str, flags: int = 0) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC | flags, 0o600)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        if flags & os.O_CREAT:
            # It was made before it could not be opened so.
            with suppress(FileNotFoundError):
                os.unlink(path)
        raise MountFailure(
            f"{path}: this filesystem has no direct I/O; name a file on another one"
        ) from None


def _lock(fd: int, path: str) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise MountFailure(f"{path}: another tmemfs has its overflow there") from None


def _has_header(fd: int) -> bool:
    with mmap.mmap(-1, len(_HEADER)) as block:
        os.preadv(fd, [block], 0)
        return block[:] == _HEADER


def _write_header(fd: int) -> None:
    with mmap.mmap(-1, len(_HEADER)) as block:
        block[:] = _HEADER
        os.pwritev(fd, [block], 0)
    os.fsync(fd)


def _is_block_device(path: str) -> bool:
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except FileNotFoundError:
        return False
