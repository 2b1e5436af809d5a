"""Writes to a swap volume that are acknowledged at once, and compressed when nobody waits.

Who swaps out waits for the write, and whoever then wants a page back waits behind it: to compress a
request of the kernel may take a millisecond. So its pages are noted here, the kernel is told that
it has them no more to keep, and a task gives them to the volume, some at a time, with everybody
else served in between.

What is noted was promised. It is only taken when the volume has room for all of it, and leaves when
the volume has it: a page that finds no room all the same stays here and is tried again.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import trio

from tmemfs.syscalls import FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE
from tmemfs.volumes.runs import runs
from tmemfs.volumes.swap import PAGE_SIZE, SwapVolume

# 4 MiB: some of the largest requests of the kernel.
LIMIT = 1024
# So many pages are compressed at a time, in a tenth of a millisecond or two ...
_SLICE = 16
# ... and so many where nobody has read meanwhile, who would wait.
_LONG_SLICE = 64

Pages = dict[int, memoryview]


class WriteBehind:
    """*volume*, with up to `LIMIT` pages that are on their way to it.

    It is read and written like the volume itself; somebody has to `run` it.
    """

    def __init__(self, volume: SwapVolume) -> None:
        self.volume = volume
        self._noted: Pages = {}
        self._wake = trio.Event()
        self._slice = _LONG_SLICE
        # Held by whoever gives pages to the volume in an order that matters.
        self._order = trio.Lock()

    def read(
        self, offset: int, size: int
    ) -> bytes | memoryview | Coroutine[Any, Any, bytes | memoryview]:
        """See `SwapVolume.read`."""
        self._slice = _SLICE
        found = self.volume.read(offset, size)
        if not self._noted:
            return found
        # As it is now: what is noted later is not older than the answer may be.
        noted = self._between(offset, offset + size)
        if isinstance(found, Coroutine):
            return self._read(found, offset, noted) if noted else found
        return _overlaid(found, offset, noted) if noted else found

    def write(self, offset: int, buf: bytes) -> int | Coroutine[Any, Any, int]:
        """See `SwapVolume.write`."""
        noted = self._noted
        if not (offset | len(buf)) % PAGE_SIZE and offset + len(buf) <= self.volume.size:
            count = len(noted) + len(buf) // PAGE_SIZE
            if count <= LIMIT and self.volume.has_room(count):
                view, first = memoryview(buf), offset // PAGE_SIZE
                pages = [view[at : at + PAGE_SIZE] for at in range(0, len(buf), PAGE_SIZE)]
                noted.update(enumerate(pages, first))
                self._wake.set()
                return len(buf)
        if self._between(offset, offset + len(buf)):
            return self._write(offset, buf)
        return self.volume.write(offset, buf)

    async def fallocate(self, mode: int, offset: int, length: int) -> None:
        """See `SwapVolume.fallocate`."""
        async with self._order:
            noted = self._between(offset, offset + length)
            first, last = -(-offset // PAGE_SIZE), (offset + length) // PAGE_SIZE
            await self._give({i: page for i, page in noted.items() if not first <= i < last})
            await self.volume.fallocate(mode, offset, length)
            if mode & (FALLOC_PUNCH_HOLE | FALLOC_ZERO_RANGE):
                self._done(noted)

    def settle(self) -> None:
        """Give the volume all that it takes without waiting, so that its figures are complete."""
        while self._noted and not self._order.locked():
            if not self._give_now(self._next()):
                break

    async def run(self) -> None:
        """Give pages to the volume, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._noted:
                # This is also where others are let through.
                async with self._order:
                    run, self._slice = self._next(), _LONG_SLICE
                    try:
                        await self._give(run)
                    except OSError:
                        break  # no room: it stays, and the next write tries again

    # -- inside ------------------------------------------------------------------------------

    async def _read(
        self, found: Coroutine[Any, Any, bytes | memoryview], offset: int, noted: Pages
    ) -> memoryview:
        return _overlaid(await found, offset, noted)

    async def _write(self, offset: int, buf: bytes) -> int:
        async with self._order:
            await self._give(self._between(offset, offset + len(buf)))
            written = self.volume.write(offset, buf)
            return await written if isinstance(written, Coroutine) else written

    def _between(self, start: int, end: int) -> Pages:
        """The pages noted of the bytes *start* to *end*."""
        first, last = start // PAGE_SIZE, -(-end // PAGE_SIZE)
        noted = self._noted
        if last - first <= len(noted):
            return {index: noted[index] for index in range(first, last) if index in noted}
        return {index: page for index, page in noted.items() if first <= index < last}

    def _next(self) -> Pages:
        """A run of pages, beginning with the one that was noted first."""
        noted = self._noted
        first = next(iter(noted), 0)
        run: Pages = {}
        for index in range(first, first + self._slice):
            if index not in noted:
                break
            run[index] = noted[index]
        return run

    def _give_now(self, pages: Pages) -> bool:
        """Give adjacent *pages* to the volume; False when it would have to wait."""
        if pages:
            data = b"".join(pages.values())
            if not self.volume.write_now(next(iter(pages)) * PAGE_SIZE, data):
                return False
            self._done(pages)
        return True

    async def _give(self, pages: Pages) -> None:
        """Give *pages* to the volume, waiting where it has to. Raises ENOSPC."""
        indices = sorted(pages)
        for place, count in runs(indices):
            run = {index: pages[index] for index in indices[place : place + count]}
            if not self._give_now(run):
                written = self.volume.write(indices[place] * PAGE_SIZE, b"".join(run.values()))
                if isinstance(written, Coroutine):
                    await written
                self._done(run)

    def _done(self, pages: Pages) -> None:
        """Forget *pages*, but for those that were written again."""
        for index, page in pages.items():
            if self._noted.get(index) is page:
                del self._noted[index]


def _overlaid(found: bytes | memoryview, offset: int, noted: Pages) -> memoryview:
    """What was *found* at *offset*, with the pages *noted* in their places."""
    whole = bytearray(found)
    for index, page in noted.items():
        at = index * PAGE_SIZE - offset
        start, end = max(at, 0), min(at + PAGE_SIZE, len(whole))
        if start < end:
            whole[start:end] = page[start - at : end - at]
    return memoryview(whole)
