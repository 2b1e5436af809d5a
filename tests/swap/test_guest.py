"""A guest under emulation whose disk is a swap volume: it writes, reads again, and so do we.

It takes qemu and, in the directory that the environment variable TMEMFS_TEST_GUEST names, a Linux
kernel for x86-64 and an initial RAM disk for it:

    DIR/vmlinuz     with a serial console
    DIR/initrd.gz   with what it takes for virtio_pci, virtio_blk and ext4

With `test=disk` on the kernel's command line, its init mounts the ext4 filesystem of /dev/vda,
writes files f* of random bytes and a file `sums` with what sha256sum says of them, unmounts it,
makes the kernel forget it, and mounts it again. If all sums are right then, it prints `GUEST disk
rc=0` on the console, and in any case it powers off.
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from loop_swap import detach
from loop_swap import run as run_tool
from mounting import Mounted, mounted

GUEST = Path(os.environ.get("TMEMFS_TEST_GUEST", "/nowhere"))
QEMU = "qemu-system-x86_64"
SECONDS = 240  # what is emulated takes its time
SIZE = "128M"


def lacking() -> str:
    """What it takes and is not here, in a line."""
    for tool in (QEMU, "mkfs.ext4", "e2fsck"):
        if shutil.which(tool) is None:
            return f"no {tool}"
    if "TMEMFS_TEST_GUEST" not in os.environ:
        return "no guest: TMEMFS_TEST_GUEST names no directory"
    for name in ("vmlinuz", "initrd.gz"):
        if not (GUEST / name).is_file():
            return f"no guest: {GUEST / name} is not there"
    return ""


pytestmark = [
    pytest.mark.root,
    pytest.mark.swap,
    pytest.mark.skipif(bool(lacking()), reason=lacking() or "nothing is lacking"),
]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mounted]:
    source = tmp_path / "source"
    source.mkdir()
    with mounted(source, tmp_path / "m", "--budget=160M", f"--swap=disk={SIZE}") as made:
        try:
            yield made
        finally:
            detach(made.path)


def takes_direct_io(file: Path) -> bool:
    try:
        os.close(os.open(file, os.O_RDWR | os.O_DIRECT))
    except OSError:
        return False
    return True


def boot(disk: Path, log: Path) -> str:
    """What the guest says until it has powered off."""
    cache = "none" if takes_direct_io(disk) else "writethrough"
    subprocess.run(
        [
            *(QEMU, "-accel", "tcg", "-m", "256", "-nodefaults", "-no-reboot", "-display", "none"),
            *("-serial", f"file:{log}"),
            *("-kernel", GUEST / "vmlinuz", "-initrd", GUEST / "initrd.gz"),
            *("-append", "console=ttyS0 quiet panic=-1 test=disk"),
            *("-drive", f"file={disk},format=raw,if=virtio,cache={cache}"),
        ],
        stdin=subprocess.DEVNULL,
        check=True,
        timeout=SECONDS,
    )
    return log.read_text(errors="replace")


def test_the_disk_of_a_guest(mount: Mounted, tmp_path: Path) -> None:
    disk = mount.control / "swap" / "disk"
    run_tool("mkfs.ext4", "-q", "-F", disk)
    said = boot(disk, tmp_path / "console")
    assert "GUEST disk rc=0" in said, said
    assert "FAIL" not in said, said
    # The same from here, through a device of this kernel.
    run_tool("e2fsck", "-f", "-n", disk)
    device = run_tool("losetup", "--find", "--show", "--read-only", "--direct-io=on", disk)
    place = tmp_path / "disk"
    place.mkdir()
    run_tool("mount", "-o", "ro", device, place)
    try:
        sums = dict(reversed(line.split()) for line in (place / "sums").read_text().splitlines())
        files = sorted(place.glob("f*"))
        assert sorted(sums) == [file.name for file in files] != []
        for file in files:
            assert hashlib.sha256(file.read_bytes()).hexdigest() == sums[file.name]
            assert file.stat().st_size > 0
    finally:
        run_tool("umount", place)
    assert mount.pool("disk")["corrupt_pages"] == 0
    assert mount.status()["failsafe"]["count"] == 0
