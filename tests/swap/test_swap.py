"""Real swap, and a real filesystem, on a loop device over a swap volume of a real mount."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import memory_pressure
import pytest
from loop_swap import detach, loop_devices, swap_on, used_swap
from memory_limit import MemoryLimit
from mounting import Mounted, mounted
from page_data import run

pytestmark = [pytest.mark.root, pytest.mark.swap]

MIB = 1 << 20
FILL = 64  # MiB, of which a quarter fits


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mounted]:
    """A mount with a swap volume that the budget holds, and one that it does not."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "f").write_bytes(run(1, 100))
    options = ("--budget=96M", f"--swap=s={FILL + 32}M", "--swap=large=512M")
    with mounted(source, tmp_path / "m", *options) as made:
        try:
            yield made
        finally:
            detach(made.path)


def volume(mount: Mounted, name: str = "s") -> Path:
    return mount.control / "swap" / name


@contextmanager
def loop_device(file: Path) -> Iterator[str]:
    """A loop device on `file`, as a disk."""
    try:
        command = ["losetup", "--find", "--show", "--direct-io=on", str(file)]
        yield subprocess.check_output(command, text=True).strip()
    finally:
        detach(file)


def test_a_program_with_four_times_its_memory(mount: Mounted) -> None:
    before = mount.status()["memory"]["mem_used_total"]
    program = [sys.executable, memory_pressure.__file__, "--mib", str(FILL)]
    with swap_on(volume(mount)) as device, MemoryLimit(FILL * MIB // 4) as limit:
        done = subprocess.run(limit.command(program), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count(" 0 wrong") == 4
        swapped = mount.pool("s")
        # It was the swap volume that held what had no room.
        assert swapped["good_puts"] * 4096 > FILL * MIB // 2
        assert swapped["found_gets"] * 4096 > FILL * MIB
        assert swapped["compr_data_size"] < swapped["orig_data_size"] * 3 // 4
        assert used_swap(device) is not None
        # The files of the same mount are served beside it.
        assert (mount.path / "f").read_bytes() == run(1, 100)
    assert loop_devices(volume(mount)) == []
    # The device was zeroed when swap was off, and zeros take nothing.
    assert mount.pool("s")["compr_data_size"] < MIB
    assert mount.status()["memory"]["mem_used_total"] < before + 4 * MIB
    assert mount.status()["failsafe"]["count"] == 0


def test_the_figures_return_when_the_volume_is_emptied(mount: Mounted) -> None:
    """Pages stay until something else is in their place, and zeros take nothing."""
    before = mount.status()["memory"]
    with open(volume(mount), "r+b", buffering=0) as file:
        for at in range(0, 32 * MIB, MIB):
            os.pwrite(file.fileno(), run(at, 256), at)
        used = mount.status()["memory"]
        assert used["compr_data_size"] - before["compr_data_size"] == 32 * MIB
        for at in range(0, 32 * MIB, MIB):
            os.pwrite(file.fileno(), bytes(MIB), at)
    after = mount.status()["memory"]
    assert after["compr_data_size"] == before["compr_data_size"]
    assert after["mem_used_total"] - before["mem_used_total"] <= 2 * MIB


def test_a_filesystem_on_it_is_whole(mount: Mounted, tmp_path: Path) -> None:
    contents = {f"f{number}": run(number, 1 + number % 60) for number in range(100)}
    disk = tmp_path / "disk"
    disk.mkdir()
    with loop_device(volume(mount)) as device:
        subprocess.run(["mkfs.ext4", "-q", device], check=True)
        subprocess.run(["mount", device, disk], check=True)
        try:
            for name, content in contents.items():
                (disk / name).write_bytes(content)
            for number in range(0, 100, 3):
                (disk / f"f{number}").unlink()
        finally:
            subprocess.run(["umount", disk], check=True)
        check = ["e2fsck", "-f", "-n", device]
        assert subprocess.run(check, capture_output=True, check=False).returncode == 0
    # Another device on the same volume shows the same disk.
    with loop_device(volume(mount)) as device:
        subprocess.run(["mount", "-o", "ro", device, disk], check=True)
        try:
            left = {name for name in contents if int(name[1:]) % 3}
            assert {path.name for path in disk.iterdir()} == left | {"lost+found"}
            for name in left:
                assert (disk / name).read_bytes() == contents[name]
        finally:
            subprocess.run(["umount", disk], check=True)


def test_a_full_budget_is_told_and_loses_nothing(mount: Mounted) -> None:
    written = 0
    with open(volume(mount, "large"), "r+b", buffering=0) as file:
        with pytest.raises(OSError, match="space") as caught:
            while written < 200 * MIB:
                written += os.pwrite(file.fileno(), run(written % (64 * MIB), 256), written)
        assert caught.value.errno == errno.ENOSPC
        assert written > 64 * MIB
        for at in range(0, written, 8 * MIB):
            assert os.pread(file.fileno(), MIB, at) == run(at % (64 * MIB), 256)
        # The mount is well: files are read and written, and zeros make room.
        (mount.path / "g").write_bytes(run(7, 50))
        assert (mount.path / "g").read_bytes() == run(7, 50)
        assert (mount.path / "f").read_bytes() == run(1, 100)
        assert mount.status()["failsafe"]["count"] == 0
