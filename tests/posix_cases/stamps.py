"""A table of times: which call moves which time of a thing, and of the directory that it is in."""

import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from posix_cases.kinds import KINDS
from posix_cases.runner import CASES, Case, attempt, make, opened

from tmemfs.linux.syscalls import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, fallocate, renameat2

Call = Callable[[Path], Any]
OLD = 1_000_000_000_000_000_001


def _writes(path: Path, use: Callable[[int], Any], flags: int = os.O_RDWR) -> Any:
    return opened(path, flags, use)


def _maps(path: Path) -> None:
    def use(fd: int) -> None:
        with mmap.mmap(fd, 0) as view:
            view[0:1] = b"M"
            view.flush()

    opened(path, os.O_RDWR, use)


CALLS: dict[str, tuple[str, Call]] = {
    "open": ("file", lambda p: opened(p, os.O_RDWR, lambda fd: None)),
    "open_or_create": ("file", lambda p: opened(p, os.O_RDWR | os.O_CREAT, lambda fd: None)),
    "open_and_truncate": ("file", lambda p: opened(p, os.O_RDWR | os.O_TRUNC, lambda fd: None)),
    "open_exclusively": ("file", lambda p: os.open(p, os.O_WRONLY | os.O_CREAT | os.O_EXCL)),
    "write": ("file", lambda p: _writes(p, lambda fd: os.write(fd, b"x"))),
    "write_of_nothing": ("file", lambda p: _writes(p, lambda fd: os.write(fd, b""))),
    "write_of_the_same": ("file", lambda p: _writes(p, lambda fd: os.write(fd, b"c"))),
    "append": (
        "file",
        lambda p: _writes(p, lambda fd: os.write(fd, b"x"), os.O_WRONLY | os.O_APPEND),
    ),
    "write_through_a_mapping": ("file", _maps),
    "truncate": ("file", lambda p: os.truncate(p, 2)),
    "truncate_up": ("file", lambda p: os.truncate(p, 200)),
    "truncate_to_the_same_size": ("file", lambda p: os.truncate(p, 7)),
    "ftruncate_to_the_same_size": ("file", lambda p: _writes(p, lambda fd: os.ftruncate(fd, 7))),
    "fallocate": ("file", lambda p: _writes(p, lambda fd: fallocate(fd, 0, 0, 100))),
    "fallocate_within": ("file", lambda p: _writes(p, lambda fd: fallocate(fd, 0, 0, 5))),
    "punch_hole": (
        "file",
        lambda p: _writes(p, lambda fd: fallocate(fd, FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE, 0, 4)),
    ),
    "fsync": ("file", lambda p: _writes(p, os.fsync)),
    "stat": ("file", os.stat),
    "chmod": ("file", lambda p: os.chmod(p, 0o600)),
    "chmod_to_the_same": ("file", lambda p: os.chmod(p, 0o644)),
    "chown": ("file", lambda p: os.chown(p, 5, 6)),
    "chown_nothing": ("file", lambda p: os.chown(p, -1, -1)),
    "chown_to_the_same": ("file", lambda p: os.chown(p, 0, 0)),
    "utime": ("file", lambda p: os.utime(p, ns=(OLD + 5, OLD + 7))),
    "utime_to_the_same": ("file", lambda p: os.utime(p, ns=(OLD, OLD))),
    "utime_now": ("file", os.utime),
    "setxattr": ("file", lambda p: os.setxattr(p, "user.x", b"1")),
    "setxattr_on_a_directory": ("directory", lambda p: os.setxattr(p, "user.x", b"1")),
    "removexattr_of_nothing": ("file", lambda p: os.removexattr(p, "user.x")),
    "listxattr": ("file", os.listxattr),
    "access": ("file", lambda p: os.access(p, os.R_OK)),
    "link": ("file", lambda p: os.link(p, p.with_name("l"))),
    "link_to_what_is_there": ("file", lambda p: os.link(p, p)),
    "unlink_of_one_of_two": ("hard link", lambda p: os.unlink(p.with_name("other"))),
    "rename": ("file", lambda p: (os.rename(p, p.with_name("y")), os.rename(p.with_name("y"), p))),
    "rename_to_itself": ("file", lambda p: os.rename(p, p)),
    "rename_to_its_other_name": ("hard link", lambda p: os.rename(p, p.with_name("other"))),
    "rename_over": ("file", lambda p: os.rename(make(p.with_name("y")), p)),
    "rename_of_nothing": ("file", lambda p: os.rename(p.with_name("none"), p)),
    "rename_exchange": (
        "hard link",
        lambda p: renameat2(-100, os.fsencode(p), -100, os.fsencode(make(p.with_name("y"))), 2),
    ),
    "rename_of_a_directory": (
        "directory",
        lambda p: (os.rename(p, p.with_name("y")), os.rename(p.with_name("y"), p)),
    ),
    "mkdir_beside": ("file", lambda p: os.mkdir(p.with_name("y"))),
    "mkdir_below": ("directory", lambda p: os.mkdir(p / "y")),
    "mkdir_of_what_is_there": ("directory", os.mkdir),
    "rmdir_below": ("full directory", lambda p: os.rmdir(p / "inside")),
    "unlink_below": ("full directory", lambda p: os.unlink(p / "inside")),
    "symlink_below": ("directory", lambda p: os.symlink("x", p / "y")),
    "mkfifo_below": ("directory", lambda p: os.mkfifo(p / "y")),
    "mknod_below": ("directory", lambda p: os.mknod(p / "y")),
    "create_below": ("directory", lambda p: make(p / "y")),
    "rename_below": ("full directory", lambda p: os.rename(p / "inside", p / "y")),
    "rename_out_of_it": ("full directory", lambda p: os.rename(p / "inside", p.with_name("y"))),
    "chmod_of_a_directory": ("directory", lambda p: os.chmod(p, 0o700)),
    "chmod_through_a_link": ("link to file", lambda p: os.chmod(p, 0o600)),
    "lchown_of_a_link": ("link to file", lambda p: os.lchown(p, 5, 5)),
    "utime_of_a_fifo": ("fifo", os.utime),
}


def moved(kind: str, call: Call) -> Callable[[Path], Any]:
    """The case of one call: the times that it moved (atime, mtime, ctime), thing by thing."""

    def run(d: Path) -> Any:
        path = d / "in" / "x"
        path.parent.mkdir()
        KINDS[kind](path)
        names = sorted(path.parent.iterdir())
        watched = [path.parent, *names]
        for thing in reversed(watched):
            os.utime(thing, ns=(OLD, OLD), follow_symlinks=False)
        before = [os.lstat(thing) for thing in watched]
        _tick(d / "tick", max(info.st_ctime_ns for info in before))
        done = attempt(call, path)
        return type(done) is str and done, [
            _differences(*two) for two in zip(watched, before, strict=True)
        ]

    return run


def _tick(path: Path, since: int) -> None:
    """Return as soon as the filesystem's clock has moved on."""
    deadline = time.monotonic() + 10
    while make(path).stat().st_ctime_ns <= since:
        assert time.monotonic() < deadline


def _differences(path: Path, before: os.stat_result) -> tuple[str, str]:
    try:
        after = os.lstat(path)
    except OSError:
        return path.name, "gone"
    kinds = ("atime", "mtime", "ctime")
    changed = [k for k in kinds if getattr(before, f"st_{k}_ns") != getattr(after, f"st_{k}_ns")]
    # A name that is another file's now has times of its own.
    other = "another: " if before.st_ino != after.st_ino else ""
    return path.name, other + " ".join(changed)


CASES += [Case(f"times_that_{name}_moves", moved(*what)) for name, what in CALLS.items()]
