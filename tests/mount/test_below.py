"""What is below the source and does not answer holds up who asks for it, and nobody else."""

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from as_root import tmpfs_at
from faulty import FaultyBacking, read_direct
from mounting import SECONDS, Mounted, drop_kernel_caches, mounted, wait_for
from page_data import run

pytestmark = pytest.mark.root

PAGE = 4096
MANY = 200  # more than there are threads for one filesystem, or one mount


@pytest.fixture
def others() -> Iterator[ThreadPoolExecutor]:
    """Threads for those who may hang; taken down last, when nothing hangs any more."""
    with ThreadPoolExecutor(2 * MANY) as made:
        yield made


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    (made / "d").mkdir(parents=True)
    (made / "d" / "beside").write_bytes(b"beside")
    (made / "other").mkdir()
    return made


def live(mount: Mounted, pages: bytes) -> None:
    """What has nothing to do with what is mounted below."""
    swap = mount.control / "swap" / "s"
    assert read_direct(swap, 0, len(pages)) == pages
    assert mount.status()["failsafe"]["count"] == 0
    other = mount.path / "other"
    (other / "new").write_bytes(pages)
    os.rename(other / "new", other / "renamed")
    assert os.listdir(other) == ["renamed"]
    drop_kernel_caches()
    assert (other / "renamed").read_bytes() == pages
    (other / "renamed").unlink()


@pytest.mark.parametrize("known", [True, False])
def test_a_server_that_is_stopped(
    others: ThreadPoolExecutor, source: Path, known: bool, tmp_path: Path
) -> None:
    pages = run(1, 16)
    with (
        ExitStack() as below,  # ends last: the kernel knows inodes of it until the mount has gone
        mounted(source, tmp_path / "m", "--budget=32M", "--swap=s=1M") as mount,
    ):
        (mount.control / "swap" / "s").write_bytes(pages)
        backing = below.enter_context(FaultyBacking(source / "d"))
        (backing.under / "there").write_bytes(b"there")
        (backing.under / "sub").mkdir()
        seen = mount.path / "d" / "faulty"
        if known:
            assert (seen / "there").read_bytes() == b"there"
        drop_kernel_caches()
        backing.stop()
        try:
            waiting = [others.submit(os.stat, seen / f"none{number}") for number in range(MANY)]
            waiting.append(others.submit(os.stat, seen / "there"))
            waiting.append(others.submit(os.listdir, seen))  # type: ignore[arg-type]
            wait_for("somebody waits for it", lambda: mount.status()["cache"]["threads_waiting"])
            for _ in range(3):
                others.submit(live, mount, pages).result(SECONDS)
            assert not any(each.done() for each in waiting)
        finally:
            backing.go_on()
        for each in waiting[:MANY]:
            with pytest.raises(FileNotFoundError):
                each.result(SECONDS)
        assert waiting[MANY].result(SECONDS).st_size == len(b"there")
        assert set(waiting[-1].result(SECONDS)) == {"there", "sub"}  # type: ignore[arg-type]


def test_who_lists_a_directory_has_not_asked_for_what_is_mounted_in_it(
    others: ThreadPoolExecutor, source: Path, tmp_path: Path
) -> None:
    with (
        ExitStack() as below,
        mounted(source, tmp_path / "m", "--budget=32M") as mount,
    ):
        backing = below.enter_context(FaultyBacking(source / "d"))
        backing.stop()
        try:
            names = others.submit(os.listdir, mount.path / "d").result(SECONDS)
            assert set(names) == {"beside", "faulty", "under"}
            assert others.submit((mount.path / "d" / "beside").read_bytes).result(SECONDS)
        finally:
            backing.go_on()
        backing.kill()
        drop_kernel_caches()
        assert set(os.listdir(mount.path / "d")) == {"beside", "faulty", "under"}


def test_a_frozen_source(others: ThreadPoolExecutor, tmp_path: Path) -> None:
    """As for a snapshot: who changes something waits, who only looks does not."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    image.touch()
    os.truncate(image, 32 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    disk.mkdir()
    subprocess.run(["mount", "-o", "loop", image, disk], check=True)
    try:
        (disk / "other").mkdir()
        (disk / "f").write_bytes(b"content")
        pages = run(2, 16)
        with mounted(disk, tmp_path / "m", "--budget=32M", "--swap=s=1M") as mount:
            (mount.control / "swap" / "s").write_bytes(pages)
            subprocess.run(["fsfreeze", "--freeze", disk], check=True)
            try:
                making = others.submit(os.mkdir, mount.path / "other" / "new")
                moving = others.submit(os.chmod, mount.path / "f", 0o600)
                wait_for("both wait", lambda: mount.status()["cache"]["threads_waiting"] == 2)
                swap = mount.control / "swap" / "s"
                assert others.submit(read_direct, swap, 0, 65536).result(SECONDS) == pages
                assert others.submit((mount.path / "f").stat).result(SECONDS).st_size == 7
                assert not any(each.done() for each in (making, moving))
            finally:
                subprocess.run(["fsfreeze", "--unfreeze", disk], check=True)
            making.result(SECONDS)
            moving.result(SECONDS)
            assert os.listdir(mount.path / "other") == ["new"]
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_another_local_filesystem_below(source: Path, tmp_path: Path) -> None:
    """Mounted, unmounted and another one mounted there: each is what it is."""
    with mounted(source, tmp_path / "m", "--budget=32M") as mount:
        seen = mount.path / "d" / "t"
        for round_ in range(3):
            with tmpfs_at(source / "d" / "t") as place:
                (place / "f").write_bytes(b"%d" % round_)
                wait_for("it is seen", (seen / "f").exists)
                assert (seen / "f").read_bytes() == b"%d" % round_
                (seen / "g").write_bytes(b"through the mount")
                assert (place / "g").read_bytes() == b"through the mount"
                assert set(os.listdir(seen)) == {"f", "g"}
            drop_kernel_caches()
            (source / "d" / "t").rmdir()
            wait_for("it is gone", lambda: not seen.exists())
