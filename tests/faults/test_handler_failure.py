"""A mistake in a handler costs one caller an EIO, and nobody the mount."""

import errno
import os
from pathlib import Path

import pytest
from mounting import mounted

pytestmark = pytest.mark.root

# Run by the serving process: handlers and what is below them fail where names say so.
FAULTS = """
import os
from tmemfs.cachefs.volume import CacheVolume
from tmemfs.cachefs.modify import Modifier
from tmemfs.cachefs.names import Names
from tmemfs.cachefs.reading import Reader

def failing(cls, name, wrong):
    before = getattr(cls, name)
    async def method(self, *args, **kwargs):
        wrong(*args)
        return await before(self, *args, **kwargs)
    setattr(cls, name, method)

def lookup(parent, name):
    if name == b"bad lookup":
        raise ValueError("a mistake")

def listdir(node):
    if node.name == b"bad list":
        raise KeyError("no such key")

def read(file, offset, size):
    if file.inode.name == b"bad read":
        raise ZeroDivisionError

def write(file, offset, buf, caller):
    if file.inode.name == b"bad write":
        raise AssertionError("never")

def create(parent, name, *rest):
    if name == b"bad create":
        raise MemoryError

failing(Names, "lookup", lookup)
failing(Names, "listdir", listdir)
failing(Reader, "read", read)
failing(CacheVolume, "write", write)
failing(Modifier, "create", create)
"""


def append(path: Path) -> None:
    """Write what is Python's to write."""
    with path.open("a") as file:
        file.write("x")


def test_each_failure_is_an_eio_for_its_caller_and_the_mount_lives_on(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "bad list").mkdir()
    for name in ("good", "bad read", "bad write", "bad lookup"):
        (source / name).write_text("content")
    with mounted(
        source, tmp_path / "m", "--budget=8M", "-o", "attr_timeout=0", before=FAULTS, logs=True
    ) as mount:
        calls = [
            ("lookup", "ValueError: a mistake", lambda: os.stat(mount.path / "bad lookup")),
            ("readdir", "KeyError: 'no such key'", lambda: os.listdir(mount.path / "bad list")),
            ("read", "ZeroDivisionError: ", (mount.path / "bad read").read_bytes),
            ("write", "AssertionError: never", lambda: append(mount.path / "bad write")),
            ("create", "MemoryError: ", lambda: (mount.path / "bad create").write_text("x")),
        ]
        count = 0
        for where, what, call in calls:
            with pytest.raises(OSError, match="error") as caught:
                call()
            assert caught.value.errno == errno.EIO
            assert (mount.path / "good").read_text() == "content"
            failsafe = mount.status()["failsafe"]
            # Of a read, the kernel may ask twice: it reads ahead first.
            assert count < failsafe["count"] <= count + 2
            count = failsafe["count"]
            assert failsafe["last"] == f"{where}: {what}"
            log = mount.log()
            assert log.count(f"handler {where} failed, its caller got EIO") >= 1
            assert log.count("failed, its caller got EIO") == count
            assert log.count("Traceback (most recent call last)") == count
            assert what.rstrip(": ") in log
        # The other names of the directory that has a bad one can still be reached, and listed.
        assert (mount.path / "bad read").stat().st_size == 7
        (mount.path / "new").write_text("made")
        assert (source / "new").read_text() == "made"


VANISHES = """
from tmemfs.cachefs.names import Names

before = Names.listdir

async def listdir(self, node):
    # It is there when the names are read, and not any more when they are looked up.
    return await before(self, node) + b"gone\\0"

Names.listdir = listdir
"""


def test_a_listing_goes_on_where_a_name_is_gone(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("a", "z"):
        (source / name).write_text(name)
    with mounted(source, tmp_path / "m", "--budget=8M", before=VANISHES) as mount:
        assert sorted(os.listdir(mount.path)) == ["a", "z"]


APPEARS = """
import os
from tmemfs.fuse import operations
from tmemfs.cachefs.names import Names

before = Names.lookup
shown = set()

async def lookup(self, parent, name):
    # The first look comes just before somebody else, behind the mount, makes the file.
    if name.startswith(b"late") and name not in shown:
        shown.add(name)
        async with parent.open() as directory:
            os.rename(b"ready-" + name, name, src_dir_fd=directory, dst_dir_fd=directory)
        raise FileNotFoundError(2, "not yet")
    return await before(self, parent, name)

Names.lookup = lookup
"""


def test_a_file_that_appears_at_the_last_moment_is_not_opened_unasked(tmp_path: Path) -> None:
    """Who may create in a directory may not thereby open what somebody else has made there."""
    from as_root import public_directory
    from posix_cases.runner import ALICE, as_user, attempt

    with public_directory() as place:
        source = place / "source"
        source.mkdir()
        source.chmod(0o777)
        for name, mode in (("late secret", 0o600), ("late open", 0o666)):
            (source / f"ready-{name}").write_text("of root")
            (source / f"ready-{name}").chmod(mode)

        def read(path: Path) -> object:
            fd = attempt(os.open, path, os.O_RDWR | os.O_CREAT, 0o600)
            return os.read(fd, 100) if isinstance(fd, int) else fd

        with mounted(source, place / "m", "--budget=8M", before=APPEARS) as mount:
            secret = as_user(ALICE, lambda: read(mount.path / "late secret"))
            public = as_user(ALICE, lambda: read(mount.path / "late open"))
        assert (secret, public) == ("EACCES", b"of root")
