"""What the kernel says about loop devices and swap, by what is open rather than by paths.

A path changes when a mount is moved, and leads nowhere when it is taken away lazily; the device
number of a filesystem stays. It is asked of the loop device itself. The kernel may hand that
question on to the filesystem of the file, which may not answer: it is given a deadline, and then,
or where the caller may not ask, the path has to do.
"""

from __future__ import annotations

import fcntl
import glob
import mmap
import os
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from tmemfs.linux import blockdevices, system
from tmemfs.linux.blockdevices import ANSWER_SECONDS, Number, number_of, read_text

DEV = "/dev"
PROC_SWAPS = "/proc/swaps"
LOOP_CONTROL = "/dev/loop-control"

_LOOP_CLR_FD = 0x4C01
_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_GET_STATUS64 = 0x4C05
_PAGE = 4096
_PLACES = 8
_STATUS_BYTES = 232  # struct loop_info64, which begins with device and inode


class FileId(NamedTuple):
    """What a file is told by, whatever it is called: its filesystem, and its number there."""

    device: Number
    inode: int


@dataclass(frozen=True, slots=True)
class SwapDevice:
    """One line of /proc/swaps; sizes in bytes."""

    device: str
    size: int
    used: int
    priority: int


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop device that is attached to a file, and whether it passes the page cache by.

    `path` is what the kernel calls the file now: for people, and where `file` could not be told.
    """

    device: str
    number: Number
    path: str
    dio: bool
    file: FileId | None = None

    @property
    def name(self) -> str:
        """What it is called in /sys/block: `loop0`."""
        return os.path.basename(self.device)

    def takes_discards(self) -> bool:
        """Whether what is discarded on it reaches the file."""
        with suppress(OSError, ValueError):
            return (
                int(read_text(f"{blockdevices.SYS}/block/{self.name}/queue/discard_max_bytes")) > 0
            )
        return False

    def is_readable(self) -> bool:
        """Whether any of some pages that lie apart can be read. It may wait for the daemon."""
        fd = os.open(self.device, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        try:
            size = os.lseek(fd, 0, os.SEEK_END)
            with mmap.mmap(-1, _PAGE) as page:
                for offset in range(0, size, max(size // _PLACES // _PAGE, 1) * _PAGE):
                    with suppress(OSError):
                        os.preadv(fd, [page], offset)
                        return True
        finally:
            os.close(fd)
        return False

    def is_on(self, device: Number) -> bool:
        """Whether its file is of the filesystem with this number."""
        if self.file is not None:
            return self.file.device == device
        mounts = [mount for mount in system.read_mounts() if mount.device == device]
        return any(self.path.startswith(f"{mount.mountpoint.rstrip('/')}/") for mount in mounts)


def swap_devices() -> dict[str, SwapDevice]:
    """All that is used as swap, by device (or file); empty on a kernel without swap."""
    try:
        with open(PROC_SWAPS, "rb") as file:
            lines = file.read().splitlines()[1:]
    except FileNotFoundError:
        return {}
    found = (_parse_swap(line) for line in lines)
    return {swap.device: swap for swap in found}


def attached() -> list[Loop]:
    """All loop devices that are on a file, of whatever filesystem. Takes ANSWER_SECONDS at most."""
    return _identified(_listed())


def on(device: Number) -> list[Loop]:
    """The loop devices on files of the filesystem with this number; see `attached`.

    Also when its mount was moved, is in another namespace, or was taken away lazily.
    """
    return [loop for loop in attached() if loop.is_on(device)]


def swaps_on(loop: Loop) -> list[SwapDevice]:
    """All swap that is on a loop device.

    On itself, a part of it, what is stacked on it, or a file of a filesystem that is on it.
    """
    swaps = swap_devices().values()
    return [swap for swap in swaps if loop.number in blockdevices.below(swap.device)]


def free_device(control: int) -> str:
    """A loop device that is on no file yet, by a descriptor of /dev/loop-control. Raises OSError.

    Nobody keeps it free.
    """
    return f"{DEV}/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"


def detach(loop: Loop) -> None:
    """Take the file from a loop device, unless it has another one by now. Raises OSError.

    The kernel does it when nobody has the device open any more: see `is_attached`.
    """
    with suppress(FileNotFoundError), _opened(loop) as fd:
        # While it is open here, nobody can give it another file.
        if is_attached(loop):
            fcntl.ioctl(fd, _LOOP_CLR_FD)


def is_attached(loop: Loop) -> bool:
    """Whether a loop device still is on the file that it was on."""
    for now in _identified(found for found in _listed() if found.number == loop.number):
        return now.file == loop.file if now.file and loop.file else now.path == loop.path
    return False


# --- which file a loop device is on ----------------------------------------------------------


def _identified(loops: Iterable[Loop]) -> list[Loop]:
    # Each in a thread of its own, so that one that is not answered does not hold up the others.
    questions = [(loop, system.Call(partial(_file_of, loop))) for loop in loops]
    deadline = time.monotonic() + ANSWER_SECONDS
    return [replace(loop, file=_answer(question, deadline)) for loop, question in questions]


def _answer(question: system.Call[FileId], deadline: float) -> FileId | None:
    try:
        return question.result(max(deadline - time.monotonic(), 0.0))
    except OSError:  # which a TimeoutError is, too
        return None


def _file_of(loop: Loop) -> FileId:
    with _opened(loop) as fd:
        return _status(fd)


@contextmanager
def _opened(loop: Loop) -> Iterator[int]:
    fd = os.open(loop.device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if number_of(os.fstat(fd).st_rdev) != loop.number:
            raise FileNotFoundError(f"{loop.device}: is another device here")
        yield fd
    finally:
        os.close(fd)


def _status(fd: int) -> FileId:
    status = bytearray(_STATUS_BYTES)
    fcntl.ioctl(fd, _LOOP_GET_STATUS64, status)
    device, inode = struct.unpack_from("=QQ", status)
    return FileId(number_of(device), inode)


# --- what is read ----------------------------------------------------------------------------


def _listed() -> Iterator[Loop]:
    directories = glob.glob(f"{blockdevices.SYS}/block/loop*/loop")
    for directory in sorted(directories, key=lambda path: (len(path), path)):
        with suppress(OSError, ValueError):  # detached since
            name = directory.split("/")[-2]
            number = blockdevices.read_number(f"{blockdevices.SYS}/block/{name}/dev")
            path = read_text(f"{directory}/backing_file")
            yield Loop(f"{DEV}/{name}", number, path, read_text(f"{directory}/dio") == "1")


def _parse_swap(line: bytes) -> SwapDevice:
    # Filename  Type  Size  Used  Priority, sizes in KiB
    name, _type, size, used, priority = line.rsplit(maxsplit=4)
    return SwapDevice(system.unescape(name), int(size) << 10, int(used) << 10, int(priority))
