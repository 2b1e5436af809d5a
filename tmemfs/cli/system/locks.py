"""One command at a time looks at what is at a mountpoint, and then changes it.

Two that look first would both find nothing there, and both mount, or both attach a loop device. A
lock is a file that is held by flock(2), so that it ends with its holder, however that ends, in a
directory that belongs to the caller alone: of everybody else's, a stranger could hold the lock, or
have made a link of it. It is removed with the lock.

A lock is the process's that took it: a daemon that it forks, or a program that it runs, would else
hold it for as long as the mount is there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tmemfs.errors import MountFailure, NotPermitted

PLACE = "/run/tmemfs"
WAIT_SECONDS = 60.0  # a mount that touches the memory of a large budget first takes some of them
_LOOK_SECONDS = 0.02


class Lock:
    """A lock that is held. Taken again by its own process, it is the same lock."""

    def __init__(self, path: str, fd: int) -> None:
        self._path = path
        self._fd = fd
        _held[path] = self

    @property
    def name(self) -> str:
        """The name of its file."""
        return os.path.basename(self._path)

    def release(self) -> None:
        """Let others have it; nothing to do where that was done already."""
        if _held.pop(self._path, None) is None:
            return
        # In this order: who opened the file before sees that it is gone, and makes another.
        with suppress(FileNotFoundError):
            os.unlink(self._path)
        os.close(self._fd)
        place = os.path.dirname(self._path)
        if place != PLACE:  # of a user; in root's, somebody may be about to make a mountpoint
            with suppress(OSError):  # others have theirs there
                os.rmdir(place)

    def forget(self) -> None:
        """Be no holder of it, in a process that was forked: its parent is."""
        os.close(self._fd)


_held: dict[str, Lock] = {}


@contextmanager
def locked(mountpoint: str) -> Iterator[Lock]:
    """Let no other command change what is at `mountpoint`, a canonical path, in the context.

    Another that is at work there is waited for, up to WAIT_SECONDS. Raises MountFailure, naming it,
    where it is not done by then, and NotPermitted where there is no place for a lock.
    """
    name = f"lock:{hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:32]}"
    for lock in _held.values():
        if lock.name == name:
            yield lock
            return
    lock = _acquire(name, mountpoint)
    try:
        yield lock
    finally:
        lock.release()


def _acquire(name: str, mountpoint: str) -> Lock:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        place, fd = _open(name)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:  # else its holder removed it since it was opened
                who = shlex.join(["tmemfs", *sys.argv[1:]])
                os.ftruncate(fd, 0)
                os.write(fd, f"process {os.getpid()} ({who})".encode(errors="replace"))
                return Lock(f"{place}/{name}", fd)
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = os.pread(fd, 4096, 0).decode(errors="replace") or "another command"
                os.close(fd)
                raise MountFailure(
                    f"{mountpoint}: {holder} is at work there, and was not done within "
                    f"{WAIT_SECONDS:g} seconds"
                ) from None
            time.sleep(_LOOK_SECONDS)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


# --- where -------------------------------------------------------------------------------------


def _open(name: str) -> tuple[str, int]:
    """The first place that is the caller's alone, and a descriptor of the file there."""
    for place in _places():
        while (directory := _own_directory(place)) is not None:
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                return place, os.open(name, flags, 0o600, dir_fd=directory)
            except FileNotFoundError:
                continue  # the last lock there was released, and the directory went with it
            finally:
                os.close(directory)
    raise NotPermitted(
        f"{place}: is no directory of yours alone, as the place for locks has to be; remove it, or "
        "set XDG_RUNTIME_DIR to one that is"
    )


def _places() -> Iterator[str]:
    user = os.geteuid()
    if user == 0:
        yield PLACE
    else:
        given = os.environ.get("XDG_RUNTIME_DIR", "")
        if os.path.isabs(given):
            yield f"{given}/tmemfs"
        yield f"/run/user/{user}/tmemfs"
    yield f"/tmp/tmemfs-{user}"


def _own_directory(place: str) -> int | None:
    """A descriptor of a directory that nobody else may write to, made if need be; None for others.

    Opened before it is looked at, so that nobody exchanges it in between.
    """
    while True:
        try:
            with suppress(FileExistsError):
                os.mkdir(place, 0o755)
        except OSError:
            return None
        try:
            fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # as above
        except OSError:
            return None
        info = os.fstat(fd)
        if info.st_uid == os.geteuid() and not info.st_mode & 0o022:
            return fd
        os.close(fd)
        return None


def _forget_all() -> None:
    for lock in _held.values():
        lock.forget()
    _held.clear()


os.register_at_fork(after_in_child=_forget_all)
