"""The lane: threads that answer what is granted, reads and writes, without the interpreter.

The C of it begins in ``lane.h``.

A *grant* is what Python gives it for an open file, by the handle that the kernel has: which object
has the file's pages, how large the file is, and by which descriptor it may be written. It can be
taken back at any time, and when `revoke` returns no thread reads by it any more. What is written by
then is told (`written`), and until that is settled nobody reads the file here.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from tmemfs.native import load
from tmemfs.native.storage import NativeStorage

if TYPE_CHECKING:
    from tmemfs.native import _native

NEVER = (1 << 64) - 1
"""an edge that nobody reaches"""

# Requests of more than two clients at once are as many as two processors answer; a thread that has
# nothing to do costs nothing.
_MOST_THREADS = 4

ROOM_FOR_RAW = 2
"""what the stage misses: room for pages that do not compress; else for others, or in the tables"""

Note = tuple[int, int, int, bool]
"""a handle, the pages (first, last) that were read of it, and whether in order after the others"""


class Written(NamedTuple):
    """What the lane has written of a file.

    So many *writes* of *size* bytes together, all of them between *start* and *end*; *handle* is of
    one of those who wrote. The times are those of modification and of change (ns), and the size.
    *data* is there of a single write that was not too large.
    """

    handle: int
    start: int
    end: int
    writes: int
    size: int
    before: tuple[int, int, int]
    after: tuple[int, int, int]
    alone: bool
    """whether nobody else was seen to change the file meanwhile"""
    data: bytes


class Lane:
    """Answers requests read from *device*, of up to *largest* bytes of data, out of *storage*.

    With *touch*, all memory that it needs is there from now on. Raises OSError where it cannot be.
    """

    def __init__(
        self, storage: NativeStorage, device: int, largest: int, *, touch: bool = False
    ) -> None:
        threads = min(max(len(os.sched_getaffinity(0)), 2), _MOST_THREADS)
        assert load.extension is not None
        lane: _native.Lane = load.extension.Lane(
            storage.store, device=device, threads=threads, largest=largest, touch=touch
        )
        self._lane = lane
        self.turn = load.extension.Turn(storage.store)
        """an instrument of trio's; without it, all that changes the store is left to us"""
        self.events = lane.events
        """readable while the session has something to do"""
        self.capsule = lane.capsule
        """what the session calls it by"""
        self.revoke = lane.revoke
        self.resize = lane.resize
        self.is_settled = lane.is_settled
        self.unsettled = lane.unsettled
        self.settle = lane.settle
        self.stage = lane.stage
        self.settle_stage = lane.settle_stage
        self.poke_stage = lane.poke_stage
        self.follow = lane.follow
        self.move = lane.move
        self.watch = lane.watch

    def grant(
        self,
        handle: int,
        table: _native.Table,
        object_id: int,
        page_size: int,
        size: int,
        *,
        zeros: bool = False,
        position: int = 0,
        edge: int = NEVER,
        fd: int = -1,
        stores: bool = False,
    ) -> None:
        """Let reads of an open file of *size* bytes be answered.

        Its pages are those of an object in *table*. With *zeros* one that is not there is zeros.
        Whoever has read up to page *position* in order, and then beyond page *edge*, is noted.
        Writes are made by *fd*, if it is one. Where the store has all that there is (*stores*),
        whole pages are written and discarded there.
        """
        self._lane.grant(
            handle,
            table,
            object_id,
            page_size,
            size,
            zeros=zeros,
            position=position,
            edge=edge,
            fd=fd,
            stores=stores,
        )

    def written(self) -> Written | None:
        """Return what was written of a file; None where all is settled (`unsettled` is 0).

        What was written of a file first comes first. The same is returned again until `settle` is
        called: which is when its pages are gone, as far as they were there.
        """
        found = self._lane.written()
        return Written(*found) if found is not None else None

    async def notes(self) -> AsyncIterator[Note]:
        """Yield what is noted; for one task."""
        while True:
            await trio.lowlevel.wait_readable(self._lane.note_event)
            while (note := self._lane.note()) is not None:
                yield note

    async def missing(self) -> AsyncIterator[int]:
        """Yield what the stage of swap volumes misses, once it has tried; for one task.

        It tries again when it is given more pages, and when it is told to (`poke_stage`).
        """
        while self._lane.stage_event >= 0:
            await trio.lowlevel.wait_readable(self._lane.stage_event)
            os.read(self._lane.stage_event, 8)
            yield self._lane.stage_missing()

    def statistics(self) -> dict[str, Any]:
        """Return how many requests it has answered and handed over, and what it is doing."""
        return self._lane.figures()

    def end(self) -> None:
        """End its threads. Nothing may be asked of it afterwards."""
        self._lane.end()
