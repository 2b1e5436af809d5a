"""A table: every call that takes a path, on every kind of thing, by root, its owner and a stranger.

Seen is what the call returns or its errno, and what is there afterwards.
"""

import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from posix_cases.kinds import KINDS, PLACES, build, snapshot
from posix_cases.runner import ALICE, BOB, CASES, Case, as_user, attempt

Call = Callable[[Path], Any]


def opens(flags: int, mode: int = 0o640) -> Call:
    """Open with these flags; not waiting for the other end of a FIFO."""

    def call(path: Path) -> str:
        os.close(os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY, mode))
        return "opened"

    return call


def beside(path: Path, name: str) -> Path:
    """Another path in the directory that the table made, wherever `path` leads."""
    return next(place for place in path.parents if place.name.startswith("at-")) / name


def bind(path: Path) -> None:
    # By a short name, in the directory: the path of a socket has at most 107 bytes.
    if len(path.name) > 107:
        raise OSError(errno.ENAMETOOLONG, "for a socket")
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)


def names_in(path: Path) -> list[str]:
    return sorted(os.listdir(path))


def kind_and_rights(path: Path, *, follow: bool) -> tuple[str, int]:
    info = os.stat(path, follow_symlinks=follow)
    return oct(info.st_mode), info.st_nlink


CALLS: dict[str, Call] = {
    "stat": lambda path: kind_and_rights(path, follow=True),
    "lstat": lambda path: kind_and_rights(path, follow=False),
    "access_for_reading": lambda path: os.access(path, os.R_OK),
    "access_for_writing": lambda path: os.access(path, os.W_OK),
    "access_for_running": lambda path: os.access(path, os.X_OK),
    "open_for_reading": opens(os.O_RDONLY),
    "open_for_writing": opens(os.O_WRONLY),
    "open_for_both": opens(os.O_RDWR),
    "open_and_truncate": opens(os.O_WRONLY | os.O_TRUNC),
    "open_or_create": opens(os.O_WRONLY | os.O_CREAT),
    "open_or_create_and_truncate": opens(os.O_RDWR | os.O_CREAT | os.O_TRUNC),
    "open_exclusively": opens(os.O_WRONLY | os.O_CREAT | os.O_EXCL),
    "open_a_directory": opens(os.O_RDONLY | os.O_DIRECTORY),
    "open_no_link": opens(os.O_RDONLY | os.O_NOFOLLOW),
    "open_no_link_or_create": opens(os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW),
    "open_as_a_path": opens(os.O_PATH),
    "open_a_link_as_a_path": opens(os.O_PATH | os.O_NOFOLLOW),
    "open_without_changing_atime": opens(os.O_RDONLY | os.O_NOATIME),
    "open_to_append": opens(os.O_WRONLY | os.O_APPEND),
    "readlink": os.readlink,
    "list": names_in,
    "change_directory": os.chdir,
    "statvfs": lambda path: os.statvfs(path).f_namemax,
    "truncate_to_less": lambda path: os.truncate(path, 3),
    "truncate_to_more": lambda path: os.truncate(path, 5000),
    "truncate_to_a_negative_size": lambda path: os.truncate(path, -1),
    "mkdir": lambda path: os.mkdir(path, 0o750),
    "mkfifo": lambda path: os.mkfifo(path, 0o640),
    "mknod_file": lambda path: os.mknod(path, stat.S_IFREG | 0o640),
    "mknod_socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o640),
    "mknod_character_device": lambda path: os.mknod(path, stat.S_IFCHR | 0o640, os.makedev(1, 5)),
    "mknod_block_device": lambda path: os.mknod(path, stat.S_IFBLK | 0o640, os.makedev(7, 99)),
    "mknod_nonsense": lambda path: os.mknod(path, stat.S_IFLNK | 0o640),
    "bind_socket": bind,
    "symlink": lambda path: os.symlink("to", path),
    "link_from": lambda path: os.link(path, beside(path, "new"), follow_symlinks=False),
    "link_from_where_it_leads": lambda path: os.link(path, beside(path, "new")),
    "link_to": lambda path: os.link(_file(path), path),
    "unlink": os.unlink,
    "rmdir": os.rmdir,
    "rename_from": lambda path: os.rename(path, beside(path, "new")),
    "rename_a_file_to": lambda path: os.rename(_file(path), path),
    "rename_a_directory_to": lambda path: os.rename(_directory(path), path),
    "rename_below": lambda path: os.rename(_file(path), path / "y"),
    "chmod": lambda path: os.chmod(path, 0o604),
    "chmod_set_id": lambda path: os.chmod(path, 0o6751),
    "chmod_sticky": lambda path: os.chmod(path, 0o1755),
    "chown_to_another": lambda path: os.chown(path, BOB, BOB),
    "chown_to_oneself": lambda path: os.chown(path, os.geteuid(), os.getegid()),
    "chown_nothing": lambda path: os.chown(path, -1, -1),
    "lchown": lambda path: os.lchown(path, BOB, -1),
    "utime_now": os.utime,
    "utime_then": lambda path: os.utime(path, ns=(1, 2)),
    "utime_of_a_link": lambda path: os.utime(path, ns=(1, 2), follow_symlinks=False),
    "setxattr_user": lambda path: os.setxattr(path, "user.x", b"1"),
    "setxattr_trusted": lambda path: os.setxattr(path, "trusted.x", b"1"),
    "setxattr_security": lambda path: os.setxattr(path, "security.x", b"1"),
    "setxattr_of_a_link": lambda path: os.setxattr(path, "user.x", b"1", follow_symlinks=False),
    "getxattr": lambda path: os.getxattr(path, "user.x"),
    "getxattr_trusted": lambda path: os.getxattr(path, "trusted.x"),
    "listxattr": os.listxattr,
    "removexattr": lambda path: os.removexattr(path, "user.x"),
    "execute": lambda path: os.execve(path, ["x"], {}),
}


def _file(path: Path) -> Path:
    beside(path, "mine").write_bytes(b"mine")
    return beside(path, "mine")


def _directory(path: Path) -> Path:
    beside(path, "mine").mkdir()
    return beside(path, "mine")


def seen_of(call: Call, path: Path) -> Any:
    """What a call sees; it may leave the working directory behind wherever it likes."""
    here = os.open(".", os.O_RDONLY)
    try:
        return attempt(call, path)
    finally:
        os.fchdir(here)
        os.close(here)


KINDS_OF = {
    "root": [*KINDS, *PLACES],
    "owner": ["file", "full directory", "link to file", "fifo"],
    "stranger": ["nothing", "file", "full directory", "link to file", "link to nothing", "device"],
}
"""on what each of them tries it"""
USERS = {"root": 0, "owner": ALICE, "stranger": BOB}


def on_every_kind(call: Call) -> Callable[[Path], Any]:
    """The case of one call: a directory for each user and kind, then the call in all of them."""

    def run(d: Path) -> Any:
        seen = {}
        for user, kinds in KINDS_OF.items():
            owner = ALICE if USERS[user] else 0
            paths = [
                build(kind, d / f"at-{user}-{number}", owner=owner)
                for number, kind in enumerate(kinds)
            ]

            def tries(paths: list[Path] = paths) -> list[Any]:
                return [seen_of(call, path) for path in paths]

            results = as_user(USERS[user], tries)
            seen[user] = dict(zip(kinds, results, strict=True))
        return seen, snapshot(d)

    return run


CASES += [Case(f"{name}_of_every_kind", on_every_kind(call)) for name, call in CALLS.items()]
