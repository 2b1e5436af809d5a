"""Which loop device, and which swap, is on a mount: whatever becomes of its path."""

import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from as_root import loop_on, tmpfs_at
from loop_swap import run
from mounting import SECONDS, Mounted, mounted

from tmemfs.linux import loops
from tmemfs.linux.loops import FileId, Number

pytestmark = [pytest.mark.root, pytest.mark.swap]

# What the kernel may not believe for any time, it asks for each time.
OPTIONS = ("--budget=16M", "--swap=s=8M", "-o", "attr_timeout=0,entry_timeout=0")


@contextmanager
def swap_on(mount: Mounted) -> Iterator[str]:
    with loop_on(mount.control / "swap" / "s") as device:
        run("mkswap", device)
        run("swapon", device)
        yield device


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mounted]:
    """A mount that can be moved, which it could not be on a mount that is shared."""
    with tmpfs_at(tmp_path / "private") as place:
        run("mount", "--make-private", place)
        for name in ("source", "elsewhere"):
            (place / name).mkdir()
        with mounted(place / "source", place / "m", *OPTIONS) as mount:
            yield mount


def number_of(mount: Mounted) -> Number:
    device = os.stat(mount.path).st_dev
    return os.major(device), os.minor(device)


def is_known(device: str, number: Number) -> bool:
    """Whether the loop device, and the swap on it, are found by the number of the filesystem."""
    (loop,) = loops.on(number)
    assert loop.device == device
    assert loop.file is not None
    return swaps_of(number) == [device]


def swaps_of(number: Number) -> list[str]:
    """What is swap on the loop devices of a filesystem."""
    return [swap.device for loop in loops.on(number) for swap in loops.swaps_on(loop)]


def test_a_mount_where_it_is(mount: Mounted) -> None:
    number, inode = number_of(mount), os.stat(mount.control / "swap" / "s").st_ino
    assert loops.on(number) == []
    with swap_on(mount) as device:
        assert is_known(device, number)
        assert loops.on(number)[0].file == FileId(number, inode)
    assert loops.on(number) == []


def test_a_file_that_is_mounted_elsewhere(mount: Mounted, tmp_path: Path) -> None:
    """Nothing of its path is left."""
    alias = tmp_path / "alias"
    alias.touch()
    run("mount", "--bind", mount.control / "swap" / "s", alias)
    try:
        with loop_on(alias) as device:
            run("mkswap", device)
            run("swapon", device)
            assert is_known(device, number_of(mount))
    finally:
        run("umount", alias)


def test_a_mount_that_was_moved(mount: Mounted) -> None:
    elsewhere = mount.path.parent / "elsewhere"
    with swap_on(mount) as device:
        run("mount", "--move", mount.path, elsewhere)
        try:
            assert is_known(device, number_of(replace(mount, path=elsewhere)))
        finally:
            run("mount", "--move", elsewhere, mount.path)


def test_a_mount_that_was_taken_away_lazily(mount: Mounted) -> None:
    number = number_of(mount)
    with swap_on(mount) as device:
        run("umount", "--lazy", mount.path)
        assert is_known(device, number)
    assert mount.process.wait(SECONDS) == 0


def test_a_node_that_has_another_name(mount: Mounted, tmp_path: Path) -> None:
    with loop_on(mount.control / "swap" / "s") as device:
        node = tmp_path / "a node"
        os.mknod(node, stat.S_IFBLK | 0o600, os.stat(device).st_rdev)
        run("mkswap", node)
        run("swapon", node)
        try:
            assert swaps_of(number_of(mount)) == [str(node)]
        finally:
            run("swapoff", node)


def test_a_swap_file_of_a_filesystem_on_the_device(mount: Mounted, tmp_path: Path) -> None:
    with loop_on(mount.control / "swap" / "s") as device:
        run("mkfs.ext4", "-q", device)
        (tmp_path / "disk").mkdir()
        run("mount", device, tmp_path / "disk")
        try:
            file = tmp_path / "disk" / "swap file"
            file.touch(0o600)
            file.write_bytes(bytes(2 << 20))
            run("mkswap", file)
            run("swapon", file)
            assert swaps_of(number_of(mount)) == [str(file)]
        finally:
            with suppress(OSError):
                run("swapoff", file)
            run("umount", tmp_path / "disk")


def test_nobody_is_asked_who_does_not_answer(mount: Mounted) -> None:
    number = number_of(mount)
    with swap_on(mount) as device:
        mount.process.send_signal(signal.SIGSTOP)
        try:
            assert is_known(device, number)
        finally:
            mount.process.send_signal(signal.SIGCONT)


def test_a_daemon_that_is_gone(mount: Mounted) -> None:
    number = number_of(mount)
    with swap_on(mount) as device:
        mount.kill()
        assert is_known(device, number)
