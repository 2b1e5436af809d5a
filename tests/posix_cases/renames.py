"""A table: renaming every kind of thing to every other, with every flag of renameat2(2)."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from posix_cases.kinds import KINDS, snapshot
from posix_cases.runner import CASES, Case, attempt

from tmemfs.linux.syscalls import renameat2

FLAGS = {
    "plainly": 0,
    "noreplace": 1,
    "exchange": 2,
    "whiteout": 4,
    "whiteout_noreplace": 5,
    "noreplace_exchange": 3,
    "unknown": 8,
}
FROM = ("nothing", "file", "directory", "full directory", "link to file", "fifo")
TO = (*FROM, "link to nothing", "device")
ALL_OF_THEM = ("plainly", "noreplace", "exchange")  # with the others, one kind is as good as all


def to_every_kind(old: str, flags: int, kinds: tuple[str, ...]) -> Callable[[Path], Any]:
    """The case of one kind and set of flags."""

    def run(d: Path) -> Any:
        seen = []
        for number, new in enumerate(kinds):
            place = d / str(number)
            ends = place / "a" / "x", place / "b" / "y"
            for path, kind in zip(ends, (old, new), strict=True):
                path.parent.mkdir(parents=True)
                KINDS[kind](path)
            inodes = _inodes(place)
            names = (os.fsencode(end) for end in ends)
            done = attempt(renameat2, -100, next(names), -100, next(names), flags)
            # Which of the things is where now, by what it was before.
            kept = {name: inodes.get(number) for number, name in _inodes(place).items()}
            seen.append((old, new, done, kept))
        return seen, snapshot(d)

    return run


def _inodes(place: Path) -> dict[int, str]:
    return {
        os.lstat(place / side / name).st_ino: f"{side}/{name}"
        for side in "ab"
        for name in os.listdir(place / side)
    }


CASES += [
    Case(
        f"rename_{how}_of_{old.replace(' ', '_')}",
        to_every_kind(old, FLAGS[how], TO if how in ALL_OF_THEM else TO[:3]),
    )
    for how in FLAGS
    for old in (FROM if how in ALL_OF_THEM else FROM[:2])
]
