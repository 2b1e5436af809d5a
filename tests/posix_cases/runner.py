"""POSIX behaviour as a list of small programs, each run in an empty directory.

A case is a function of that directory which returns what it saw. It is run in a bare directory
and in one of the mount, and must see the same in both. The few that may not are marked with what
is seen on the mount instead, and why.
"""

import errno
import os
import pickle
import stat
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Run = Callable[[Path], Any]

ALICE, BOB, STAFF = 40001, 40002, 40010
"""Two users, whose groups have the same numbers, and a group that both are in."""


@dataclass(frozen=True)
class Case:
    """One program; `on_mount` is what it sees on the mount where that may differ."""

    name: str
    run: Run
    on_mount: Any = None
    reason: str = ""


CASES: list[Case] = []


def case(run: Run) -> Run:
    """Put a program on the list."""
    CASES.append(Case(run.__name__, run))
    return run


def differs(on_mount: Any, reason: str) -> Callable[[Run], Run]:
    """Put a program on the list that sees `on_mount` on the mount, for this `reason`."""

    def add(run: Run) -> Run:
        CASES.append(Case(run.__name__, run, on_mount, reason))
        return run

    return add


def attempt(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a call returns, or the name of its errno."""
    try:
        return call(*args, **kwargs)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def look(path: Path | str | int) -> dict[str, Any]:
    """The attributes that must be the same, links not followed."""
    info = os.fstat(path) if isinstance(path, int) else os.lstat(path)
    fields = {
        "mode": oct(info.st_mode),
        "nlink": info.st_nlink,
        "owner": (info.st_uid, info.st_gid),
        "rdev": info.st_rdev,
    }
    if not stat.S_ISDIR(info.st_mode):  # what a directory's size is, filesystems disagree on
        fields |= {"size": info.st_size, "blocks": info.st_blocks}
    return fields


def make(path: Path, content: bytes = b"") -> Path:
    """A file with this content."""
    path.write_bytes(content)
    return path


def opened(path: Path, flags: int, use: Callable[[int], T], mode: int = 0o644) -> T:
    """What `use` says of a descriptor that is open only for it."""
    fd = os.open(path, flags, mode)
    try:
        return use(fd)
    finally:
        os.close(fd)


def as_user(uid: int, call: Callable[[], Any], *groups: int, umask: int = 0o022) -> Any:
    """What `call` returns in a process of that user, whose group has the same number.

    For root, who runs the tests, in this process.
    """
    if not uid:
        return call()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgroups(groups)
            os.setgid(uid)
            os.setuid(uid)
            os.umask(umask)
            os.write(writing, pickle.dumps(call()))
            code = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert status == 0, "the process of the other user failed"
    return pickle.loads(said)
