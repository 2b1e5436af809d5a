"""Block devices by their numbers, which no rename changes, and what each is made of."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from tmemfs.linux import system

SYS = "/sys"
ANSWER_SECONDS = 2.0  # who is asked by a path may be a filesystem that does not answer

Number = tuple[int, int]
"""Major and minor: the number of a block device, or of a filesystem."""


def number_of(device: int) -> Number:
    """The two parts of a number of `os.stat`."""
    return os.major(device), os.minor(device)


def below(path: str) -> set[Number]:
    """The numbers of all block devices that what /proc/swaps calls `path` is on.

    A device is on itself, a partition on its disk, a mapped one on what it is made of, and a file
    on that of its filesystem. Empty where that cannot be told.
    """
    found: set[Number] = set()
    todo = _numbers_at(path)
    while todo:
        number = todo.pop()
        found.add(number)
        todo += _next_below(number)
    return found


def read_number(path: str) -> Number:
    """The number in a file of /sys. Raises OSError, and ValueError where there is none."""
    major, _, minor = read_text(path).partition(":")
    return int(major), int(minor)


def read_text(path: str) -> str:
    """A file of /sys, without the end of its line."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read().rstrip("\n")


def _numbers_at(path: str) -> list[Number]:
    path = path.removesuffix(" (deleted)")
    with suppress(OSError):
        info = system.within(ANSWER_SECONDS, lambda: os.stat(path))
        return [number_of(info.st_rdev if stat.S_ISBLK(info.st_mode) else info.st_dev)]
    with suppress(OSError, ValueError):  # its node is gone, or in another /dev
        return [read_number(f"{SYS}/class/block/{os.path.basename(path)}/dev")]
    return []


def _next_below(number: Number) -> Iterator[Number]:
    place = f"{SYS}/dev/block/{number[0]}:{number[1]}"
    files = glob.glob(f"{place}/slaves/*/dev")
    if os.path.exists(f"{place}/partition"):
        files.append(f"{place}/../dev")
    for file in files:
        with suppress(OSError, ValueError):
            yield read_number(file)
