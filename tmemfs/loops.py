"""What the kernel says about loop devices and swap: /sys/block/loop*, /proc/swaps.

Nothing here opens a device or asks the filesystem that a device is on, so that all of it can be
asked while the daemon of that filesystem does not answer, and by the daemon itself.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from tmemfs import system

SYS_BLOCK = "/sys/block"
PROC_SWAPS = "/proc/swaps"


@dataclass(frozen=True, slots=True)
class SwapDevice:
    """One line of /proc/swaps; sizes in bytes."""

    device: str
    size: int
    used: int
    priority: int


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop device that is attached to a file, and whether it passes the page cache by."""

    device: str
    file: str
    dio: bool

    @property
    def name(self) -> str:
        """What it is called in /sys/block: `loop0`."""
        return os.path.basename(self.device)

    def takes_discards(self) -> bool:
        """Whether what is discarded on it reaches the file."""
        with suppress(OSError, ValueError):
            return int(_text(f"{SYS_BLOCK}/{self.name}/queue/discard_max_bytes")) > 0
        return False


def swap_devices() -> dict[str, SwapDevice]:
    """All that is used as swap, by device (or file); empty on a kernel without swap."""
    try:
        with open(PROC_SWAPS, "rb") as file:
            lines = file.read().splitlines()[1:]
    except FileNotFoundError:
        return {}
    found = (_parse_swap(line) for line in lines)
    return {swap.device: swap for swap in found}


def loop_devices(below: str) -> list[Loop]:
    """The loop devices on the file `below`, or on files below the directory of that name.

    The path is canonical, as that of a mount in mountinfo.
    """
    prefix = below.rstrip("/") + "/"
    return [loop for loop in _attached() if loop.file == below or loop.file.startswith(prefix)]


def swaps_on(mountpoint: str) -> list[SwapDevice]:
    """What is swap on files below `mountpoint`: on a loop device itself, or on a part of one."""
    swaps = swap_devices()
    if not swaps:
        return []
    loops = loop_devices(mountpoint)
    return [swap for loop in loops for swap in swaps.values() if _is_on(swap.device, loop.device)]


def _is_on(device: str, loop: str) -> bool:
    return re.fullmatch(re.escape(loop) + r"(p\d+)?", device) is not None


def _attached() -> Iterator[Loop]:
    directories = glob.glob(f"{SYS_BLOCK}/loop*/loop")
    for directory in sorted(directories, key=lambda path: (len(path), path)):
        with suppress(OSError):  # detached since
            name = directory.split("/")[-2]
            file = _text(f"{directory}/backing_file")
            yield Loop(f"/dev/{name}", file, _text(f"{directory}/dio") == "1")


def _parse_swap(line: bytes) -> SwapDevice:
    # Filename  Type  Size  Used  Priority, sizes in KiB
    name, _type, size, used, priority = line.rsplit(maxsplit=4)
    return SwapDevice(system.unescape(name), int(size) << 10, int(used) << 10, int(priority))


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read().rstrip("\n")
