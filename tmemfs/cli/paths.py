"""Files on tmemfs mounts, as they are named on a command line: one by one, and whole trees."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tmemfs.cli.figures import CONTROL
from tmemfs.errors import UsageError
from tmemfs.linux import system
from tmemfs.linux.system import Mount


@dataclass(frozen=True, slots=True)
class Target:
    """A path without symbolic links in it, and the tmemfs mount that it is on."""

    path: str
    mount: Mount

    @property
    def is_root(self) -> bool:
        """Whether it is all of the mount."""
        return self.path == self.mount.mountpoint


@dataclass(frozen=True, slots=True)
class File:
    """A regular file, and its size as of when it was found."""

    path: str
    size: int


def find_target(path: str) -> Target:
    """The target that `path` is. Raises UsageError for what is not on a tmemfs mount."""
    place = system.canonical_path(path)
    try:
        info = system.within(system.ANSWER_SECONDS, lambda: os.stat(place))
    except TimeoutError:
        raise UsageError(f"{path}: the daemon does not answer") from None
    except OSError as exc:
        raise UsageError(f"{path}: {exc.strerror}") from None
    device = (os.major(info.st_dev), os.minor(info.st_dev))
    above = [
        mount
        for mount in system.tmemfs_mounts()
        if mount.device == device and _is_below(place, mount.mountpoint)
    ]
    if not above:
        raise UsageError(f"{path}: is not on a tmemfs mount")
    mount = max(above, key=lambda mount: len(mount.mountpoint))
    if os.path.relpath(place, mount.mountpoint).split(os.sep)[0] == CONTROL:
        raise UsageError(f"{path}: is no file of {mount.source}")
    return Target(place, mount)


def files_below(target: Target, failed: Callable[[OSError], None]) -> Iterator[File]:
    """Yield every regular file at and below `target`, a file with several names once.

    Symbolic links are not followed, and other mounts not entered. What cannot be looked at is
    handed to `failed`.
    """
    seen: set[int] = set()  # only of files with several names
    todo = [target.path]
    device = os.stat(target.path).st_dev
    while todo:
        path = todo.pop()
        try:
            info = os.lstat(path)
            if info.st_dev != device:
                continue
            if stat.S_ISDIR(info.st_mode):
                # Reversed, since the last one is next: in the order of the directory.
                todo += reversed([entry.path for entry in os.scandir(path) if _may_hold(entry)])
        except FileNotFoundError as exc:
            if path == target.path:
                failed(exc)
            continue  # removed since its directory was read
        except OSError as exc:
            failed(exc)
            continue
        if not stat.S_ISREG(info.st_mode) or info.st_ino in seen:
            continue
        if info.st_nlink > 1:
            seen.add(info.st_ino)
        yield File(path, info.st_size)


def _is_below(path: str, directory: str) -> bool:
    return os.path.commonpath((path, directory)) == directory


def _may_hold(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file or directory, as far as that is known without asking for it."""
    return entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)
