"""What the modes of a mount promise about changes behind it, and what they risk; mappings."""

import mmap
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faulty import over_faulty, read_direct
from mounting import Mounted, drop_kernel_caches, mounted, wait_for
from page_data import run
from rig import left_alone

pytestmark = pytest.mark.root

PAGE = 4096
OLD, NEW = run(1, 20), run(100, 20)


@contextmanager
def mode(tmp_path: Path, *options: str) -> Iterator[Mounted]:
    (tmp_path / "source").mkdir(exist_ok=True)
    with mounted(tmp_path / "source", tmp_path / "m", "--budget=16M", *options) as made:
        yield made


def make(mount: Mounted, name: str, content: bytes = OLD) -> Path:
    """A file that was left alone, and is in the pool and in the kernel's cache."""
    behind = mount.source / name
    behind.write_bytes(content)
    left_alone(behind)
    for _ in range(2):
        assert (mount.path / name).read_bytes() == content
    return behind


def rewrite(path: Path, content: bytes = NEW) -> None:
    """Other bytes in the same file, of the same size and with the same modification time."""
    info = path.stat()
    with open(path, "r+b") as file:
        file.write(content)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


# --- the default ---------------------------------------------------------------------------------


def test_stat_sees_a_change_within_the_attribute_timeout(tmp_path: Path) -> None:
    with mode(tmp_path) as mount:
        behind = make(mount, "f")
        behind.write_bytes(NEW[:-1])
        wait_for("it is seen", lambda: (mount.path / "f").stat().st_size == len(NEW) - 1)
        # What a read finds fits to it from then on, without another open.
        assert (mount.path / "f").stat().st_mtime_ns == behind.stat().st_mtime_ns
        os.utime(behind, ns=(1, 2))
        wait_for("it is seen", lambda: (mount.path / "f").stat().st_mtime_ns == 2)
        assert (mount.path / "f").read_bytes() == NEW[:-1]


def test_without_an_attribute_timeout_stat_sees_it_at_once(tmp_path: Path) -> None:
    with mode(tmp_path, "-o", "attr_timeout=0,entry_timeout=0") as mount:
        behind = make(mount, "f")
        for size in (5, 100_000, 0):
            os.truncate(behind, size)
            assert (mount.path / "f").stat().st_size == size
        (mount.source / "new").write_bytes(NEW)
        os.rename(mount.source / "new", behind)
        assert (mount.path / "f").read_bytes() == NEW


@contextmanager
def ext4(tmp_path: Path) -> Iterator[None]:
    """A small filesystem at the source that gives inode numbers out again at once."""
    image = tmp_path / "image"
    with open(image, "wb") as file:
        file.truncate(8 << 20)
    (tmp_path / "source").mkdir()
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, tmp_path / "source"], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", tmp_path / "source"], check=True)


@pytest.mark.parametrize("known", ["kept by the kernel", "forgotten by it"])
def test_another_file_with_the_number_of_one_that_is_gone(known: str, tmp_path: Path) -> None:
    """Also where size and times are the same, as far as a program can make them."""
    with ext4(tmp_path), mode(tmp_path) as mount:
        behind = make(mount, "f")
        info = behind.stat()
        for _ in range(50):
            if known == "forgotten by it":
                drop_kernel_caches()
            behind.unlink()
            wait_for("its inode is free", lambda: not _exists(mount.path / "f"))
            if known == "forgotten by it":
                drop_kernel_caches()
            behind.write_bytes(NEW)
            os.utime(behind, ns=(info.st_atime_ns, info.st_mtime_ns))
            assert read_direct(mount.path / "f", 0, len(NEW)) == NEW
            assert (mount.path / "f").read_bytes() == NEW
            if behind.stat().st_ino == info.st_ino:
                break
        else:
            pytest.fail("the number has not come back")


def _exists(path: Path) -> bool:
    return path.name in os.listdir(path.parent) or path.exists()


# --- cache=none|open|always ----------------------------------------------------------------------


def test_cache_none_sees_a_change_at_the_next_read(tmp_path: Path) -> None:
    """On a descriptor that stays open."""
    with mode(tmp_path, "-o", "cache=none,attr_timeout=0") as mount:
        behind = make(mount, "f")
        with open(mount.path / "f", "rb", buffering=0) as file:
            for number in range(5):
                content = run(200 + number, 20)
                rewrite(behind, content)
                assert os.pread(file.fileno(), len(content), 0) == content
            os.truncate(behind, 5000)
            assert os.pread(file.fileno(), len(content), 0) == content[:5000]
        # What did not change comes out of the pool.
        behind = make(mount, "g")
        before = mount.status()["cache"]["backing_reads"]
        assert (mount.path / "g").read_bytes() == OLD
        assert mount.status()["cache"]["backing_reads"] == before


def test_cache_open_sees_a_change_at_the_next_open(tmp_path: Path) -> None:
    with mode(tmp_path, "-o", "cache=open") as mount:
        behind = make(mount, "f")
        with open(mount.path / "f", "rb", buffering=0) as file:
            rewrite(behind)
            assert os.pread(file.fileno(), len(OLD), 0) in (OLD, NEW)
            assert (mount.path / "f").read_bytes() == NEW
            assert os.pread(file.fileno(), len(OLD), 0) == NEW


def test_cache_always_risks_old_bytes(tmp_path: Path) -> None:
    """Of the same size at least; a new mount sees what is there."""
    with mode(tmp_path, "-o", "cache=always") as mount:
        behind = make(mount, "f")
        rewrite(behind)
        for _ in range(2):
            assert (mount.path / "f").read_bytes() == OLD
            drop_kernel_caches()
        assert mount.status()["cache"]["stale_objects"] == 0
        # Changes through the mount are no risk.
        (mount.path / "f").write_bytes(NEW[:30_000])
        assert (mount.path / "f").read_bytes() == NEW[:30_000] == behind.read_bytes()
        behind.write_bytes(OLD)
    with mode(tmp_path, "-o", "cache=always") as mount:
        assert (mount.path / "f").read_bytes() == OLD


# --- writeback -----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["fsync", "close"])
def test_writeback_gathers_small_writes(end: str, tmp_path: Path) -> None:
    """The backing file gets few large ones, at the latest with fsync or close."""
    content = run(1, 128)
    with over_faulty(tmp_path, "-o", "writeback") as (backing, mount):
        fd = os.open(mount.path / "f", os.O_CREAT | os.O_RDWR)
        for start in range(0, len(content), 100):
            os.pwrite(fd, content[start : start + 100], start)
        assert os.pread(fd, len(content), 0) == content
        if end == "fsync":
            os.fsync(fd)
            assert (backing.under / "f").read_bytes() == content
        os.close(fd)
        assert (backing.under / "f").read_bytes() == content
        calls = backing.calls("f", "write")
        assert sum(size for _, size in calls) <= 2 * len(content)
        assert len(calls) <= 32
        assert max(size for _, size in calls) > PAGE
        drop_kernel_caches()
        assert (mount.path / "f").read_bytes() == content


def test_writeback_changes_a_part_of_a_page_of_a_file_open_for_writing_only(tmp_path: Path) -> None:
    with mode(tmp_path, "-o", "writeback") as mount:
        behind = make(mount, "f")
        drop_kernel_caches()
        fd = os.open(mount.path / "f", os.O_WRONLY)
        os.pwrite(fd, b"new", 5000)
        os.close(fd)
        want = OLD[:5000] + b"new" + OLD[5003:]
        assert behind.read_bytes() == want == (mount.path / "f").read_bytes()
        # Appending, too, and what is appended behind it later is not written over.
        with open(mount.path / "f", "ab") as file:
            file.write(b"more")
        assert behind.read_bytes() == want + b"more"


# --- mappings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("-o", "writeback")], ids=["default", "writeback"])
def test_a_shared_mapping(options: tuple[str, ...], tmp_path: Path) -> None:
    """Reads see what it wrote, it sees what was written, and behind it is there after msync."""
    model = bytearray(OLD)
    with mode(tmp_path, *options) as mount:
        behind = make(mount, "f")
        with (
            open(mount.path / "f", "r+b", buffering=0) as file,
            mmap.mmap(file.fileno(), len(OLD)) as mapping,
        ):
            for number in range(20):
                start = 3000 * number
                mapping[start : start + 5000] = model[start : start + 5000] = run(number, 2)[:5000]
                assert os.pread(file.fileno(), len(model), 0) == model
                os.pwrite(file.fileno(), b"written", start + 10)
                model[start + 10 : start + 17] = b"written"
                assert mapping[:] == model
                if number % 5 == 0:
                    mapping.flush()
                    assert behind.read_bytes() == model
            mapping.flush()
            assert behind.read_bytes() == model
        drop_kernel_caches()
        assert read_direct(mount.path / "f", 0, len(model)) == model


@pytest.mark.parametrize("change", [rewrite, Path.write_bytes], ids=["times kept", "rewritten"])
def test_a_mapping_sees_a_change_behind_when_the_file_is_opened(
    change: Callable[..., object], tmp_path: Path
) -> None:
    with mode(tmp_path) as mount:
        behind = make(mount, "f")
        with (
            open(mount.path / "f", "rb") as file,
            mmap.mmap(file.fileno(), len(OLD), access=mmap.ACCESS_READ) as mapping,
        ):
            assert mapping[:] == OLD
            change(behind, NEW)
            assert (mount.path / "f").read_bytes() == NEW
            assert mapping[:] == NEW
