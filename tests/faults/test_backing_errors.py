"""The backing directory fails: who asks is told, nobody else is, and no byte is ever wrong."""

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from as_root import tmpfs_at
from faulty import FaultyBacking, over_faulty, read_direct
from mounting import Mounted, drop_kernel_caches, mounted, wait_for
from page_data import run

pytestmark = pytest.mark.root

KIB = 1 << 10
MIB = 1 << 20


def check_same(backing: FaultyBacking, mount: Mounted, name: str, content: bytes) -> None:
    """A file is right behind the mount, in the kernel's cache, in the pool, and read anew."""
    assert (backing.under / name).read_bytes() == content
    assert (mount.path / name).stat().st_size == len(content)
    for _ in range(2):
        assert (mount.path / name).read_bytes() == content
        assert read_direct(mount.path / name, 0, len(content) + 1) == content
        drop_kernel_caches()
    assert mount.status()["failsafe"]["count"] == 0


def code_of(call: Callable[..., object], *args: object) -> int | None:
    with pytest.raises(OSError, match=r"\[Errno") as caught:
        call(*args)
    return caught.value.errno


def test_a_read_that_fails_is_an_error_for_its_bytes_alone(tmp_path: Path) -> None:
    content = run(1, 128)
    bad = 256 * KIB
    with over_faulty(tmp_path) as (backing, mount):
        for name in ("file", "other"):
            (backing.under / name).write_bytes(content)
        backing.inject("file", "read", error=errno.EIO, start=bad, end=bad + 4 * KIB)
        for _ in range(2):
            assert code_of(read_direct, mount.path / "file", bad, 4 * KIB) == errno.EIO
            assert code_of((mount.path / "file").read_bytes) == errno.EIO
            # What lies before it, and behind it, a page of the pool away.
            assert read_direct(mount.path / "file", 0, bad) == content[:bad]
            after = bad + 16 * KIB
            assert read_direct(mount.path / "file", after, MIB) == content[after:]
            assert (mount.path / "other").read_bytes() == content
        backing.mend()
        check_same(backing, mount, "file", content)


def test_a_read_of_which_the_backing_file_gives_a_part_at_a_time(tmp_path: Path) -> None:
    """Fewer bytes are not the end of the file."""
    content = run(2, 64)
    with over_faulty(tmp_path) as (backing, mount):
        (backing.under / "file").write_bytes(content)
        backing.inject("file", "read", short=5000)
        assert read_direct(mount.path / "file", 0, MIB) == content
        check_same(backing, mount, "file", content)


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    content = run(3, 16)
    with over_faulty(tmp_path) as (backing, mount):
        (backing.under / "file").write_bytes(content)
        assert (mount.path / "file").read_bytes() == content
        backing.inject("file", "write", error=errno.EIO)
        with open(mount.path / "file", "r+b", buffering=0) as file:
            assert code_of(file.write, b"lost") == errno.EIO
            assert code_of(os.pwrite, file.fileno(), run(4, 4), 2 * len(content)) == errno.EIO
            check_same(backing, mount, "file", content)
            backing.mend()
            os.pwrite(file.fileno(), b"kept", 5000)
        check_same(backing, mount, "file", content[:5000] + b"kept" + content[5004:])


@pytest.mark.parametrize("operation", ["fsync", "flush"])
def test_an_error_that_comes_late_is_told(operation: str, tmp_path: Path) -> None:
    """A network filesystem may tell of a write only when it is asked to finish."""
    with over_faulty(tmp_path) as (backing, mount):
        backing.inject("file", operation, error=errno.EIO)
        fd = os.open(mount.path / "file", os.O_WRONLY | os.O_CREAT)
        os.write(fd, b"content")
        if operation == "fsync":
            assert code_of(os.fsync, fd) == errno.EIO
            assert code_of(os.fdatasync, fd) == errno.EIO
            backing.mend()
            os.fsync(fd)
            os.close(fd)
        else:
            assert code_of(os.close, fd) == errno.EIO
            backing.mend()
        check_same(backing, mount, "file", b"content")


def write_on(fd: int, data: bytes, offset: int) -> tuple[int, int | None]:
    """Write until it fails; how much was written, and the error."""
    done = 0
    try:
        while done < len(data):
            done += os.pwrite(fd, data[done:], offset + done)
    except OSError as error:
        return done, error.errno
    return done, None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("exists", [False, True], ids=["new", "rewritten"])
def test_a_large_write_that_fails_in_the_middle(code: int, exists: bool, tmp_path: Path) -> None:
    """What was written before is there, what was there behind it stays, and both sides agree."""
    old, new = run(5, 320) if exists else b"", run(1000, 300)
    stop = 700_001
    with over_faulty(tmp_path) as (backing, mount):
        (backing.under / "file").write_bytes(old)
        assert (mount.path / "file").read_bytes() == old
        backing.inject("file", "write", error=code, start=stop)
        fd = os.open(mount.path / "file", os.O_RDWR)
        start = 3000 if exists else 0
        done, found = write_on(fd, new, start)
        assert (done, found) == (stop - start, code)
        check_same(backing, mount, "file", old[:start] + new[:done] + old[stop:])
        backing.mend()
        assert write_on(fd, new[done:], start + done) == (len(new) - done, None)
        os.close(fd)
        check_same(backing, mount, "file", old[:start] + new + old[start + len(new) :])


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    content = run(7, 1024)
    with tmpfs_at(tmp_path / "source") as source, mounted(source, tmp_path / "m") as mount:
        subprocess.run(["mount", "-o", "remount,size=2M", source], check=True)
        (mount.path / "in the way").write_bytes(content[:MIB])
        fd = os.open(mount.path / "file", os.O_RDWR | os.O_CREAT)
        done, code = write_on(fd, content, 0)
        assert code == errno.ENOSPC
        assert 0 < done < len(content)
        for _ in range(2):
            for top in (mount.path, source):
                assert (top / "file").read_bytes() == content[:done]
            drop_kernel_caches()
        # Names still fit, and one gives its room back, as soon as the kernel has forgotten it.
        (mount.path / "in the way").unlink()
        wait_for("there is room", lambda: os.statvfs(source).f_bavail * 4096 >= MIB)
        more, code = write_on(fd, content[done : done + MIB // 2], done)
        assert (more, code) == (MIB // 2, None)
        os.close(fd)
        for top in (mount.path, source):
            assert (top / "file").read_bytes() == content[: done + more]
        assert mount.status()["failsafe"]["count"] == 0
