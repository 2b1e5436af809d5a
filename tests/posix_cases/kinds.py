"""The kinds of things that a name may lead to, for tables of operation by kind."""

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from posix_cases.runner import look, make

LONGEST = "n" * 255


def _full(path: Path) -> None:
    os.mkdir(path)
    make(path / "inside", b"kept")


def _socket(path: Path) -> None:
    # By a short name: the path of a socket has at most 107 bytes.
    here = os.open(".", os.O_RDONLY)
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.fchdir(here)
        os.close(here)


def _link_to(kind: str, target: str) -> Callable[[Path], None]:

    def build(path: Path) -> None:
        KINDS[kind](path.with_name(target))
        os.symlink(target, path)

    return build


def _hard_link(path: Path) -> None:
    os.link(make(path.with_name("other"), b"two names"), path)


KINDS: dict[str, Callable[[Path], Any]] = {
    "nothing": lambda path: None,
    "file": lambda path: make(path, b"content"),
    "hard link": _hard_link,
    "directory": os.mkdir,
    "full directory": _full,
    "link to file": _link_to("file", "target"),
    "link to directory": _link_to("full directory", "target"),
    "link to nothing": lambda path: os.symlink("nowhere", path),
    "link to itself": lambda path: os.symlink(path.name, path),
    "fifo": os.mkfifo,
    "socket": _socket,
    "device": lambda path: os.mknod(path, stat.S_IFCHR | 0o644, os.makedev(1, 3)),
}
"""what makes each kind of thing at a path"""

PLACES: dict[str, Callable[[Path], Path]] = {
    "below nothing": lambda d: d / "none" / "x",
    "below a file": lambda d: make(d / "plain") / "x",
    "name of 256 bytes": lambda d: d / (LONGEST + "n"),
    "path of 4096 bytes": lambda d: Path(str(d) + "/x" * 2100),
    "through a loop": lambda d: (os.symlink("loop", d / "loop"), d / "loop" / "x")[1],
}
"""paths at which nothing can be, whatever one does"""


def build(kind: str, d: Path, *, owner: int = 0) -> Path:
    """Make a thing of that kind in `d`, which is made, and return its path; all is `owner`'s."""
    d.mkdir()
    if kind in PLACES:
        path = PLACES[kind](d)
    else:
        path = d / "x"
        KINDS[kind](path)
    if owner:
        for name in (".", *os.listdir(d)):
            os.chown(d / name, owner, owner, follow_symlinks=False)
    return path


def snapshot(d: Path) -> dict[str, Any]:
    """Everything below `d`: attributes, and what is in files and links."""
    seen = {}
    for place, directories, names in os.walk(d):
        for name in sorted(directories + names):
            path = Path(place) / name
            seen[os.path.relpath(path, d)] = look(path), _content(path)
    return seen


def _content(path: Path) -> object:
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return os.readlink(path)
    return path.read_bytes() if stat.S_ISREG(mode) else None
