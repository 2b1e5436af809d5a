"""Evicts pages to overflow files ahead of need, and wakes writers that wait for room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import trio

from tmemfs.supervise import failsafe
from tmemfs.swap.overflowfile import OverflowFile
from tmemfs.tmem import PersistentPool, Writeback
from tmemfs.tmem.writeback import Batch

# Seconds before a batch that failed is tried again, one after the other.
_PAUSES_S = (0.05, 0.2, 1.0)


class Evictor:
    """Takes the pages that *writeback* names to the file of their pool; one for all of a mount."""

    def __init__(self, writeback: Writeback, files: Mapping[PersistentPool, OverflowFile]) -> None:
        self._writeback = writeback
        self._files = files
        self._wake = trio.Event()
        self._round = _Round()
        # Whose file could not be written last: others must not have to wait for it.
        self._failing: set[PersistentPool] = set()

    def poke(self) -> None:
        """To be called when pages were put: they may be too many now."""
        if self._writeback.needed:
            self._wake.set()

    @property
    def has_spare(self) -> bool:
        """Whether there is memory for pages to come back to."""
        return self._writeback.enough

    async def make_room(self) -> bool:
        """Wait until some more pages have left; False when none can."""
        this = self._round
        this.awaited = True
        self._wake.set()
        await this.over.wait()
        return this.helped

    async def settle(self) -> None:
        """Wait until enough pages have left, after the budget was lowered."""
        while self._writeback.needed and await self.make_room():
            pass

    async def run(self) -> None:
        """Do it, until cancelled."""
        while True:
            if not self._round.awaited:
                await self._wake.wait()
            self._wake = trio.Event()
            while self._round.awaited or not self._writeback.enough:
                helped = await self._try_to_move_some()
                new = _Round()
                this, self._round = self._round, new
                this.helped = helped
                this.over.set()
                if not helped:
                    break

    async def _try_to_move_some(self) -> bool:
        """Move one batch; False when there is none, or that failed by any error several times."""
        for pause in (0.0, *_PAUSES_S):
            # Those who wait for room are not told of an error that may be over in a moment.
            await trio.sleep(pause)
            try:
                return await self._move_some()
            except Exception as error:
                failsafe.note("swap eviction", error)
        return False

    async def _move_some(self) -> bool:
        """Move one batch; False when there is none, or nothing of any pool could be written."""
        while batch := self._writeback.begin(heads=self._round.awaited, avoid=self._failing):
            if await self._move(batch):
                self._failing.discard(batch.pool)
                return True
            if batch.pool in self._failing:
                break
            self._failing.add(batch.pool)
        return False

    async def _move(self, batch: Batch) -> bool:
        """Move *batch*; False when nothing of it could be written."""
        checksums: Sequence[int | None] = ()
        try:
            checksums = await self._files[batch.pool].write(batch.pages())
        finally:
            self._writeback.finish(batch, checksums)
        return any(checksum is not None for checksum in checksums)


class _Round:
    """One batch that is waited for, and whether it gained anything."""

    def __init__(self) -> None:
        self.awaited = False
        self.over = trio.Event()
        self.helped = False
