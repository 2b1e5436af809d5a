"""Errors put into the way of a swap page, at every step of it.

    with injected("encode", Nth(3, MemoryError)):       # the third one fails
        ...

The steps are calls of the code under test, by names that say what they do. Used by tests without
FUSE, and by a serving process that a test starts with `install_random`.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tmemfs.native.storage import NativeLog, NativeStorage, NativeTable
from tmemfs.pages import Arena, SegmentLog, codec, reader
from tmemfs.swap import overflowfile, overflowing, writebuffer
from tmemfs.swap.evictor import Evictor
from tmemfs.swap.overflowfile import OverflowFile
from tmemfs.swap.volume import SwapVolume
from tmemfs.swap.writebuffer import WriteBuffer
from tmemfs.tmem.objects import ObjectTable
from tmemfs.tmem.persistent import PersistentPool
from tmemfs.tmem.reclaim import Reclaim
from tmemfs.tmem.writeback import Batch, Writeback

STEPS: dict[str, tuple[Any, str]] = {
    "note": (WriteBuffer, "write"),
    "room": (SwapVolume, "has_room"),
    "put": (SwapVolume, "write_now"),
    "encode": (codec, "encode"),
    "budget": (Reclaim, "make_room"),
    "segment": (Arena, "take"),
    "append": (SegmentLog, "append"),
    "index": (ObjectTable, "store"),
    "remove": (ObjectTable, "remove"),
    "decode": (reader, "page_at"),
    "decode a run": (reader, "read"),
    "wake the task": (Evictor, "poke"),
    "choose": (Writeback, "begin"),
    "read what leaves": (Batch, "pages"),
    "overflow write": (OverflowFile, "_write"),
    "checksum": (overflowfile, "checksum"),
    "compare": (overflowing, "checksum"),
    "note what left": (PersistentPool, "move_to_overflow"),
    "overflow read": (OverflowFile, "_read"),
    "runs": (writebuffer, "runs"),
}
LANE_STEPS: dict[str, tuple[Any, str]] = {
    "make ready": (PersistentPool, "make_ready"),
    "lend": (PersistentPool, "lend"),
}
"""what Python does for pages that the lane stores, and for no others"""
NATIVE: dict[Any, Any] = {codec: NativeStorage, SegmentLog: NativeLog, ObjectTable: NativeTable}
"""where the storage in C does the same"""
READS = {"decode", "decode a run", "overflow read", "compare"}
ERRORS: dict[str, Callable[[], Exception]] = {
    "MemoryError": MemoryError,
    "OSError": lambda: OSError(errno.EIO, os.strerror(errno.EIO)),
    "ValueError": lambda: ValueError("injected"),
}


@contextmanager
def injected(step: str, fails: Callable[[], Exception | None]) -> Iterator[None]:
    """Let a step fail whenever *fails* gives it an error to fail with."""
    undo = _install(step, fails)
    try:
        yield
    finally:
        for where, name, before in undo:
            setattr(where, name, before)


def _install(step: str, fails: Callable[[], Exception | None]) -> list[tuple[Any, str, Any]]:
    """Let a step fail, of whichever storage; return what there was before, and where."""
    where, name = (STEPS | LANE_STEPS)[step]
    places = [place for place in (where, NATIVE.get(where)) if place is not None]
    return [(place, name, _replace(place, name, fails)) for place in places]


def _replace(where: Any, name: str, fails: Callable[[], Exception | None]) -> Any:
    before = where.__dict__[name]

    def failing(*args: Any, **kwargs: Any) -> Any:
        if error := fails():
            raise error
        return before(*args, **kwargs)

    setattr(where, name, failing)
    return before


class Nth:
    """An error for the n-th call, and how many calls there were."""

    def __init__(self, n: int, error: Callable[[], Exception]) -> None:
        self.calls = 0
        self._n, self._error = n, error

    def __call__(self) -> Exception | None:
        self.calls += 1
        return self._error() if self.calls == self._n else None


def install_random(switch: str, count: int, seed: int, one_in: int) -> None:
    """While there is a file *switch*, let one call in so many fail, *count* of them in all.

    Writes the steps that failed to the file, a line each. What the system says of a page that is
    read is the answer for who reads it, and so is left out.
    """
    chooser, left = random.Random(seed), [count]

    def fails(step: str) -> Exception | None:
        if not left[0] or chooser.randrange(one_in) or not os.path.exists(switch):
            return None
        left[0] -= 1
        with open(switch, "a") as file:
            file.write(f"{step}\n")
        return ERRORS[chooser.choice([e for e in ERRORS if step not in READS or e != "OSError"])]()

    for step in STEPS | LANE_STEPS:
        _install(step, lambda step=step: fails(step))
