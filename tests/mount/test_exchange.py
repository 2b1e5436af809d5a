"""Somebody exchanges names in the source while others make and change them through the mount.

Nothing of root's, in the directory or outside of it, is given away, changed or followed to.
`TMEMFS_ROUNDS` is how often each is done; by default a few hundred times.
"""

import hashlib
import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from as_root import public_directory
from mounting import Mounted, mounted
from posix_cases.runner import ALICE, BOB

from tmemfs.linux.syscalls import renameat2

pytestmark = pytest.mark.root

ROUNDS = int(os.environ.get("TMEMFS_ROUNDS", "300"))
EXCHANGE = 2
OURS = b"n"
BAITS = (b"link", b"directory", b"file", b"out")


def _open(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o6777))


def _link(path: Path) -> None:
    with suppress(FileExistsError):
        _open(path.with_name("mine"))
    os.link(path.with_name("mine"), path)


def _changes(change: Callable[[Path], None]) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        with suppress(OSError):
            _open(path)
        change(path)

    return run


CALLS: dict[str, Callable[[Path], None]] = {
    "open": _open,
    "mkdir": lambda path: os.mkdir(path, 0o6777),
    "mknod": lambda path: os.mknod(path, stat.S_IFIFO | 0o6777),
    "symlink": lambda path: os.symlink("nowhere", path),
    "link": _link,
    "setxattr": _changes(lambda path: os.setxattr(path, b"user.x", b"1")),
    "chmod": _changes(lambda path: os.chmod(path, 0o6777)),
    "truncate": _changes(lambda path: os.truncate(path, 0)),
    "utime": _changes(lambda path: os.utime(path, (1, 1))),
}


def precious(top: Path) -> list[Path]:
    """What is root's: outside, and in the directory in which everybody may exchange names."""
    outside, pub = top / "outside", top / "source" / "pub"
    return [outside, pub / "directory", pub / "file", pub / "directory" / "inner"]


def prepare(top: Path) -> None:
    pub = top / "source" / "pub"
    pub.mkdir(parents=True)
    pub.parent.chmod(0o755)
    pub.chmod(0o777)
    (pub / "directory").mkdir(mode=0o755)
    for path in (top / "outside", pub / "file", pub / "directory" / "inner"):
        path.write_bytes(b"a program of root's")
        path.chmod(0o755)
    os.symlink(top / "outside", pub / "link")
    os.symlink("directory/inner", pub / "out")


def seen(path: Path) -> object:
    """All that must not change, the change time left out: to be exchanged moves it."""
    info = os.lstat(path)
    content = hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b""
    fields = (info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns, info.st_ino)
    if path.is_dir():
        fields = (info.st_mode, info.st_uid, info.st_gid, info.st_ino)
    return fields, content, os.listxattr(path)


@contextmanager
def child(work: Callable[[], None], user: int) -> Iterator[int]:
    """A process of *user* that does *work*; ended at the end, and never back in the test."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            os.umask(0)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    try:
        yield pid
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)


def exchange(pub: Path) -> None:
    """Put baits in the place of what is made there, for a moment, and take it away then."""
    directory = os.open(pub, os.O_RDONLY)
    while True:
        for bait in BAITS:
            with suppress(OSError):
                renameat2(directory, OURS, directory, bait, EXCHANGE)
                for _ in range(20):
                    os.stat(OURS, dir_fd=directory, follow_symlinks=False)
                renameat2(directory, OURS, directory, bait, EXCHANGE)
                info = os.stat(OURS, dir_fd=directory, follow_symlinks=False)
                if info.st_uid:
                    remove = os.rmdir if stat.S_ISDIR(info.st_mode) else os.unlink
                    remove(OURS, dir_fd=directory)


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[Path, Mounted]]:
    with public_directory() as top:
        prepare(top)
        options = ("-o", "dev,suid,attr_timeout=0,entry_timeout=0")
        with mounted(top / "source", top / "m", "--budget=16M", *options) as mount:
            yield top, mount
            assert mount.status()["failsafe"]["count"] == 0


@pytest.mark.parametrize("call", CALLS)
def test_nothing_of_roots_changes(place: tuple[Path, Mounted], call: str) -> None:
    top, mount = place
    before = {path: seen(path) for path in precious(top)}
    path = mount.path / "pub" / os.fsdecode(OURS)

    def victim() -> None:
        for _ in range(ROUNDS):
            with suppress(OSError):
                CALLS[call](path)

    with child(lambda: exchange(top / "source" / "pub"), BOB), child(victim, ALICE) as maker:
        _, status = os.waitpid(maker, 0)
    assert status == 0
    _settle(top / "source" / "pub")
    assert {path: seen(path) for path in precious(top)} == before


def _settle(pub: Path) -> None:
    """Put the baits back where they were, if the one who exchanged them was stopped in between."""
    for bait in map(os.fsdecode, BAITS):
        here, there = os.lstat(pub / bait), None
        with suppress(FileNotFoundError):
            there = os.lstat(pub / os.fsdecode(OURS))
        if here.st_uid and there is not None and not there.st_uid:
            directory = os.open(pub, os.O_RDONLY)
            renameat2(directory, OURS, directory, bait.encode(), EXCHANGE)
            os.close(directory)
    for left in (pub / os.fsdecode(OURS), pub / "mine"):
        with suppress(FileNotFoundError):
            (os.rmdir if stat.S_ISDIR(os.lstat(left).st_mode) else os.unlink)(left)
