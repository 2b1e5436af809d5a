"""What is mounted below the source: told apart, unmountable, and what it forbids is forbidden."""

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from as_root import tmpfs_at
from faulty import FaultyBacking
from mounting import SECONDS, Mounted, drop_kernel_caches, mounted, wait_for
from posix_cases.runner import attempt
from sources import SOURCES, ext4

from tmemfs.linux import system

pytestmark = pytest.mark.root


@contextmanager
def bound(path: Path, to: Path, options: str = "") -> Iterator[Path]:
    """A directory seen a second time, with *options* of that mount alone."""
    to.mkdir(exist_ok=True)
    subprocess.run(["mount", "--bind", path, to], check=True)
    try:
        if options:
            subprocess.run(["mount", "-o", f"remount,bind,{options}", to], check=True)
        yield to
    finally:
        subprocess.run(["umount", "--lazy", to], check=False, stderr=subprocess.DEVNULL)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mounted]:
    tmp_path.chmod(0o755)
    (tmp_path / "source").mkdir()
    options = ("-o", "suid,dev,exec,attr_timeout=0,entry_timeout=0")
    with mounted(tmp_path / "source", tmp_path / "m", *options) as mount:
        yield mount
        assert mount.status()["failsafe"]["count"] == 0


def unmounts(path: Path) -> bool:
    quiet = subprocess.DEVNULL
    return subprocess.run(["umount", path], check=False, stderr=quiet).returncode == 0


def test_a_disk_can_be_unmounted_that_was_looked_at(mount: Mounted, tmp_path: Path) -> None:
    place = mount.source / "disk"
    with tmpfs_at(place) as disk:
        (disk / "sub").mkdir()
        (disk / "sub" / "file").write_text("on the disk")
        seen = mount.path / "disk" / "sub" / "file"
        assert seen.read_text() == "on the disk"
        with open(seen) as file:
            assert os.listdir(mount.path / "disk" / "sub") == ["file"]
            assert not unmounts(place)
            assert file.read() == "on the disk"
        wait_for("it is unmounted", lambda: unmounts(place))
        assert os.listdir(mount.path / "disk") == []
        assert attempt(os.stat, seen) == "ENOENT"


def test_a_dead_one_is_listed_and_fails_by_itself(mount: Mounted, tmp_path: Path) -> None:
    """Also right after the listing, which must not make it an empty file."""
    dead = mount.source / "home" / "dead"
    dead.mkdir(parents=True)
    (mount.source / "home" / "file").write_text("content")
    with FaultyBacking(tmp_path) as backing:
        subprocess.run(["mount", "--move", backing.path, dead], check=True)
        try:
            backing.kill()
            wait_for("it is dead", lambda: attempt(os.stat, dead) == "ENOTCONN")
            for _ in range(2):
                assert sorted(os.listdir(mount.path / "home")) == ["dead", "file"]
                assert attempt(os.stat, mount.path / "home" / "dead") == "ENOTCONN"
                assert (mount.path / "home" / "file").read_text() == "content"
                drop_kernel_caches()
        finally:
            subprocess.run(["umount", "--lazy", dead], check=True)
    assert os.listdir(mount.path / "home" / "dead") == []


def test_a_disk_in_place_of_another(mount: Mounted, tmp_path: Path) -> None:
    """A copy of it even, with the same numbers, times and sizes, is another one."""
    place = mount.source / "disk"
    place.mkdir()
    for letter in ("A", "B"):
        (tmp_path / letter).mkdir()
    with ext4(tmp_path / "A", 4 << 20) as disk:
        (disk.path / "file").write_text("A" * 8192)
    content = (tmp_path / "A" / "image").read_bytes()
    assert content.count(b"A" * 8192) == 1
    (tmp_path / "B" / "image").write_bytes(content.replace(b"A" * 8192, b"B" * 8192))
    for letter in ("A", "B"):
        subprocess.run(["mount", "-o", "loop", tmp_path / letter / "image", place], check=True)
        try:
            assert (mount.path / "disk" / "file").read_text() == letter * 8192
        finally:
            wait_for("it is unmounted", lambda: unmounts(place))


@pytest.mark.skipif(shutil.which("automount") is None, reason="no automount")
def test_what_is_mounted_when_somebody_asks(mount: Mounted, tmp_path: Path) -> None:
    place = mount.source / "auto"
    place.mkdir()
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "file").write_text("far")
    (tmp_path / "map").write_text(f"one -fstype=bind :{tmp_path / 'far'}\n")
    (tmp_path / "master").write_text(f"{place} file:{tmp_path / 'map'}\n")
    words = ["automount", "--foreground", "--dont-check-daemon", tmp_path / "master"]
    with subprocess.Popen(words) as daemon:
        try:
            wait_for("autofs is there", lambda: system.mount_at(str(place)) is not None)
            assert (mount.path / "auto" / "one" / "file").read_text() == "far"
            assert os.listdir(mount.path / "auto" / "one") == ["file"]
            assert attempt(os.stat, mount.path / "auto" / "other") == "ENOENT"
            wait_for("it is unmounted", lambda: unmounts(place / "one"))
            assert (mount.path / "auto" / "one" / "file").read_text() == "far"
        finally:
            daemon.terminate()
            daemon.wait(SECONDS)
            # It leaves behind what is in use at that moment, as this may be through our mount.
            for left in (place / "one", place):
                if system.mount_at(str(left)) is not None:
                    subprocess.run(["umount", "--lazy", left], check=True)


@pytest.mark.parametrize("kind", ["tmpfs", "bindfs", "same"])
def test_numbers_stay_and_are_told_apart(mount: Mounted, tmp_path: Path, kind: str) -> None:
    (mount.source / "own").mkdir()
    (mount.source / "own" / "file").write_text("own")
    below = mount.source / "below"
    if kind == "tmpfs":
        nested = tmpfs_at(below)
    elif kind == "same":
        nested = bound(mount.source / "own", below)
    else:
        (tmp_path / "other").mkdir()
        nested = SOURCES["bindfs"](tmp_path / "other")  # type: ignore[assignment]
    with nested as inner:
        if kind == "bindfs":
            below.mkdir()
            subprocess.run(["mount", "--move", inner.path, below], check=True)
        try:
            for name in ("file", "b"):
                (below / name).write_text("below")
            before = _numbers(mount.path)
            for _ in range(3):
                drop_kernel_caches()
                assert _numbers(mount.path) == before
            assert len(set(before)) == len(before)
        finally:
            if kind == "bindfs":
                subprocess.run(["umount", "--lazy", below], check=True)


def _numbers(top: Path) -> list[int]:
    names = ("own", "own/file", "below", "below/file", "below/b")
    return [os.stat(top / name).st_ino for name in names]


def test_its_own_figures(mount: Mounted) -> None:
    with tmpfs_at(mount.source / "disk") as disk:
        (disk / "file").touch()
        for name in ("disk", "disk/file"):
            assert os.statvfs(mount.path / name).f_blocks == os.statvfs(disk).f_blocks
        assert os.statvfs(mount.path).f_blocks == os.statvfs(mount.source).f_blocks


def test_links_and_renames_between_two_mounts_of_one_filesystem(mount: Mounted) -> None:
    (mount.source / "own").mkdir()
    (mount.source / "file").write_text("x")
    with bound(mount.source / "own", mount.source / "again"):
        for top in (mount.source, mount.path):
            assert attempt(os.link, top / "file", top / "again" / "l") == "EXDEV"
            assert attempt(os.rename, top / "file", top / "again" / "r") == "EXDEV"


def _runs_as_root(path: Path) -> bool:
    """Whether a program of root's with the set-user-ID bit makes root of somebody else."""
    words = ["setpriv", "--reuid=65534", "--clear-groups", path]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return "euid=0" in done.stdout


def _opens(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError:
        return False
    return True


def _runs(path: Path) -> bool:
    try:
        return subprocess.run([path], check=False, capture_output=True).returncode == 0
    except OSError as error:
        assert error.errno == errno.EACCES
        return False


def _writes(path: Path) -> bool:
    calls = ((os.utime, path / "id"), (os.mkdir, path / "new"), (os.rmdir, path / "new"))
    results = {attempt(call, name) for call, name in calls}
    assert results in ({None}, {"EROFS"}, {"EROFS", "ENOENT"})
    return results == {None}


FORBIDDEN: dict[str, Callable[[Path], bool]] = {
    "nosuid": lambda place: _runs_as_root(place / "id"),
    "nodev": lambda place: _opens(place / "null"),
    "noexec": lambda place: _runs(place / "id"),
    "ro": _writes,
}


@pytest.mark.parametrize("option", FORBIDDEN)
@pytest.mark.parametrize("kind", ["a disk", "a bind mount"])
def test_what_a_nested_mount_forbids(
    mount: Mounted, tmp_path: Path, option: str, kind: str
) -> None:
    (tmp_path / "disk").mkdir()
    with ext4(tmp_path / "disk") as disk:
        origin = disk.path if kind == "a disk" else mount.source / "own"
        origin.mkdir(exist_ok=True)
        origin.chmod(0o755)
        program = origin / "id"
        program.write_bytes(Path("/usr/bin/id").read_bytes())
        program.chmod(0o4755)
        os.mknod(origin / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        with bound(origin, mount.source / "nested", option) as nested:
            assert not FORBIDDEN[option](nested)
            assert not FORBIDDEN[option](mount.path / "nested")
            drop_kernel_caches()
            assert not FORBIDDEN[option](mount.path / "nested")
            assert os.lstat(program).st_mode == stat.S_IFREG | 0o4755
            if kind == "a bind mount":
                # By its other name it may do what it may.
                assert FORBIDDEN[option](mount.path / "own")
                assert not FORBIDDEN[option](mount.path / "nested")
        with bound(origin, mount.source / "free"):
            assert FORBIDDEN[option](mount.path / "free")
