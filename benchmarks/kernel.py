"""The kernel's own caches, which stand between a program and what is measured."""

import os
from pathlib import Path


def drop_caches() -> None:
    """Make the kernel forget every page, name and attribute that it has, in all filesystems.

    Raises PermissionError where that is not permitted.
    """
    os.sync()  # what is dirty would survive
    Path("/proc/sys/vm/drop_caches").write_text("3")


def read_ahead(mount: Path) -> Path:
    """The file that holds how many KiB the kernel reads ahead on the filesystem of *mount*."""
    device = os.stat(mount).st_dev
    return Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
