"""The backing directory is gone, or says nothing any more: whatever needs nothing of it goes on."""

import errno
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from as_root import tmpfs_at
from command import COMMAND
from command import run as run_command
from faulty import FaultyBacking, over_faulty, read_direct
from mounting import SECONDS, drop_kernel_caches, mounted, wait_for
from page_data import run

from tmemfs.linux import system

pytestmark = pytest.mark.root

KIB = 1 << 10
MIB = 1 << 20
WARM, COLD = run(1, 64), run(100, 64)
SWAP = "--swap=s=1M"


@contextmanager
def silence(backing: FaultyBacking, how: str) -> Iterator[None]:
    """The backing filesystem answers nobody."""
    if how == "stopped":
        backing.stop()
    else:
        backing.inject("*", "*", hang=True)
    try:
        yield
    finally:
        backing.go_on()
        backing.mend()


@pytest.mark.parametrize("how", ["hung", "stopped"])
def test_a_backing_directory_that_says_nothing(how: str, tmp_path: Path) -> None:
    """What is in the pool, swap and figures are there meanwhile; then everybody gets an answer."""
    with ThreadPoolExecutor(40) as others, over_faulty(tmp_path, SWAP) as (backing, mount):
        for name, content in (("warm", WARM), ("cold", COLD)):
            (backing.under / name).write_bytes(content)
        files = {
            name: os.open(mount.path / name, os.O_RDWR | os.O_DIRECT) for name in ("warm", "cold")
        }
        swap = os.open(mount.control / "swap" / "s", os.O_RDWR)
        assert os.pread(files["warm"], len(WARM), 0) == WARM
        assert os.pread(files["cold"], 4 * KIB, 0) == COLD[: 4 * KIB]

        def soon(call: Any, *args: Any) -> Any:
            return others.submit(call, *args).result(SECONDS / 2)

        with silence(backing, how):
            stuck: list[Future[Any]] = [
                others.submit(os.pread, files["cold"], 64 * KIB, 64 * KIB),
                others.submit(os.pwrite, files["cold"], b"written", 0),
                others.submit(os.ftruncate, files["cold"], 250_000),
                others.submit(os.stat, mount.path / "cold"),
                others.submit(os.listdir, mount.path),
                others.submit(os.statvfs, mount.path),
                others.submit((mount.path / "warm").read_bytes),
                others.submit((mount.path / "new").write_bytes, b"new"),
            ]
            for number in range(10):
                start = number * 16 * KIB
                assert soon(os.pread, files["warm"], 16 * KIB, start) == WARM[start:][: 16 * KIB]
                page = run(number, 1)
                assert soon(os.pwrite, swap, page, number * 4 * KIB) == len(page)
                assert soon(os.pread, swap, 4 * KIB, number * 4 * KIB) == page
            assert soon(mount.status)["failsafe"]["count"] == 0
            assert not any(future.done() for future in stuck[:3])
        done, still = wait(stuck, SECONDS)
        assert not still
        assert all(future.exception() is None for future in done)
        content = (b"written" + COLD[7:])[:250_000]
        assert stuck[0].result() == COLD[64 * KIB : 128 * KIB]
        assert stuck[6].result() == WARM
        for fd in (*files.values(), swap):
            os.close(fd)
        for _ in range(2):
            for top in (backing.under, mount.path):
                assert (top / "cold").read_bytes() == content
                assert (top / "new").read_bytes() == b"new"
            drop_kernel_caches()
        assert mount.status()["failsafe"]["count"] == 0


def test_figures_are_there_after_the_roots_attributes_ran_out(tmp_path: Path) -> None:
    """The way to them leads through the root, of which the kernel asks again each second."""
    with (
        ThreadPoolExecutor(4) as others,
        over_faulty(tmp_path, "-o", "attr_timeout=0,entry_timeout=0") as (backing, mount),
    ):
        assert mount.status()["source"] == str(backing.path)
        with silence(backing, "hung"):
            for _ in range(2):
                figures = others.submit(mount.status).result(SECONDS)
                assert figures["source"] == str(backing.path)
                assert others.submit(os.statvfs, mount.path).result(SECONDS)


def test_a_backing_directory_that_is_unmounted_below(tmp_path: Path) -> None:
    """Who has it open does not notice; the place where it was is not looked at."""
    with tmpfs_at(tmp_path / "source") as source:
        (source / "warm").write_bytes(WARM)
        (source / "deep").mkdir()
        (source / "deep" / "cold").write_bytes(COLD)
        with mounted(source, tmp_path / "m", "--budget=8M") as mount:
            assert (mount.path / "warm").read_bytes() == WARM
            system.unmount(str(source), lazy=True)
            assert os.listdir(source) == []
            drop_kernel_caches()
            assert (mount.path / "warm").read_bytes() == WARM
            assert (mount.path / "deep" / "cold").read_bytes() == COLD
            (mount.path / "new").write_bytes(b"made")
            (mount.path / "new").rename(mount.path / "deep" / "renamed")
            drop_kernel_caches()
            assert (mount.path / "deep" / "renamed").read_bytes() == b"made"
            assert sorted(os.listdir(mount.path)) == ["deep", "warm"]
            assert os.listdir(source) == []


def test_a_backing_filesystem_that_has_died(tmp_path: Path) -> None:
    """Errors, at once; what is in the pool and swap are still there, and it ends in order."""
    with over_faulty(tmp_path, SWAP) as (backing, mount):
        for name, content in (("warm", WARM), ("cold", COLD)):
            (backing.under / name).write_bytes(content)
        with (
            open(mount.path / "warm", "rb") as warm,
            open(mount.path / "cold", "rb", buffering=0) as cold,
            open(mount.control / "swap" / "s", "r+b", buffering=0) as swap,
        ):
            assert read_direct(mount.path / "warm", 0, len(WARM)) == WARM
            figures = os.statvfs(mount.path)
            backing.kill()
            drop_kernel_caches()
            assert os.pread(warm.fileno(), len(WARM) // 2, 0) == WARM[: len(WARM) // 2]
            for call in (
                lambda: cold.read(64 * KIB),
                lambda: os.listdir(mount.path),
                lambda: os.stat(mount.path / "other"),
                (mount.path / "new").touch,
            ):
                with pytest.raises(OSError, match=r"\[Errno") as caught:
                    call()
                assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
            # Of the mount as a whole it is not told: that lives, and its root is the way to swap.
            assert os.statvfs(mount.path) == figures
            os.pwrite(swap.fileno(), run(1, 4), 0)
            assert os.pread(swap.fileno(), 16 * KIB, 0) == run(1, 4)
            assert mount.status()["failsafe"]["count"] == 0


def test_unmounted_while_the_backing_directory_says_nothing(tmp_path: Path) -> None:
    """Lazily the mount goes at once; the daemon ends when its last call does."""
    with ThreadPoolExecutor(4) as others, over_faulty(tmp_path) as (backing, mount):
        (backing.under / "cold").write_bytes(COLD)
        fd = os.open(mount.path / "cold", os.O_RDONLY | os.O_DIRECT)
        with silence(backing, "hung"):
            stuck = others.submit(os.pread, fd, 4 * KIB, 0)
            wait_for("it hangs", backing.held)
            run_command(*COMMAND, "umount", "--lazy", mount.path)
            assert system.mount_at(str(mount.path)) is None
            assert not stuck.done()
        assert stuck.result(SECONDS) == COLD[: 4 * KIB]
        os.close(fd)
        assert mount.process.wait(SECONDS) == 0


def test_ended_by_a_signal_while_the_backing_directory_says_nothing(tmp_path: Path) -> None:
    """The mount is gone while a call still hangs, and nobody waits for ever."""
    with ThreadPoolExecutor(4) as others, over_faulty(tmp_path, logs=True) as (backing, mount):
        (backing.under / "cold").write_bytes(COLD)
        fd = os.open(mount.path / "cold", os.O_RDONLY | os.O_DIRECT)
        with silence(backing, "hung"):
            stuck = others.submit(os.pread, fd, 4 * KIB, 0)
            wait_for("it hangs", backing.held)
            mount.process.terminate()
            wait_for("it is unmounted", lambda: system.mount_at(str(mount.path)) is None)
        assert wait([stuck], SECONDS).done
        with suppress(OSError):  # the mount is gone
            os.close(fd)
        assert mount.process.wait(SECONDS) == 0
        assert "a call does not return" in mount.log()
