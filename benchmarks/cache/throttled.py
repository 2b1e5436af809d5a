"""A directory on a disk that is slow: a loop device, throttled by the block I/O controller.

The limit is one of the average: after a pause, tens of reads may pass at once. So this shows
another kind of slowness, and is too rough to hold promises against it.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loop_swap import detach, run

from benchmarks import servers
from benchmarks.cache.slow import Kind, Slow

READS_A_SECOND = 200
"""As many as a disk with 5 ms for each of them does."""

SIZE = 512 << 20
# Where the controller is mounted: alone (version 1), or in the one tree of version 2.
V1 = Path("/sys/fs/cgroup/blkio")
V2 = Path("/sys/fs/cgroup")


def _controller() -> Path | None:
    """The directory in which to make a group with a limit; None where this kernel offers none."""
    if (V1 / "blkio.throttle.read_iops_device").exists():
        return V1
    handed_down = V2 / "cgroup.subtree_control"
    return V2 if handed_down.exists() and "io" in handed_down.read_text().split() else None


def _lacking() -> str | None:
    if _controller() is None:
        return "needs the block I/O controller of cgroups, with throttling"
    return servers.lacking("mkfs.ext4", "losetup")


@contextmanager
def _throttled_disk(place: Path) -> Iterator[Path]:
    """A new filesystem on a loop device that this process, and all it starts, reads slowly.

    The limit is of the groups that read: a server has to be in one of them, as well as a program.
    """
    image, mountpoint = place / "image", place / "disk"
    with open(image, "wb") as made:
        made.truncate(SIZE)
    mountpoint.mkdir()
    try:
        device = run("losetup", "--find", "--show", image)
        run("mkfs.ext4", "-q", device)
        run("mount", device, mountpoint)
        with _limited(os.stat(device).st_rdev):
            yield mountpoint
    finally:
        if os.path.ismount(mountpoint):
            run("umount", mountpoint)
        detach(image)


@contextmanager
def _limited(device: int) -> Iterator[None]:
    """Be in a group that has a limit on *device*, and back in the old one afterwards."""
    parent = _controller()
    if parent is None:
        raise OSError("this kernel offers no block I/O cgroup (neither version 1 nor 2)")
    group = parent / f"tmemfs-{os.getpid()}"
    number = f"{os.major(device)}:{os.minor(device)}"
    before = parent / _own_group("blkio" if parent == V1 else "") / "cgroup.procs"
    group.mkdir()
    try:
        if parent == V1:
            (group / "blkio.throttle.read_iops_device").write_text(f"{number} {READS_A_SECOND}")
        else:
            (group / "io.max").write_text(f"{number} riops={READS_A_SECOND}")
        (group / "cgroup.procs").write_text(str(os.getpid()))
        try:
            yield
        finally:
            before.write_text(str(os.getpid()))
    finally:
        while (group / "cgroup.procs").read_text():
            time.sleep(0.02)  # what has been ended is not gone yet
        group.rmdir()


def _own_group(controller: str) -> str:
    """Where in the tree of *controller*, empty for that of version 2, this process is."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path.strip("/")
    return ""


@contextmanager
def _directory(store: Path, _: Path) -> Iterator[Slow]:
    device = os.stat(store).st_dev
    statistics = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    yield Slow(store, lambda: int(statistics.read_text().split()[0]))


THROTTLED = Kind(
    f"The slow directory is ext4 on a loop device, throttled to {READS_A_SECOND} reads a second"
    " on average: tens of them may pass at once after a pause.",
    "reads of the disk",
    _lacking,
    _throttled_disk,
    _directory,
    steady=False,
)
