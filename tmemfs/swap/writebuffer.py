"""The write buffer: swap pages that were acknowledged at once and are not stored yet.

Who swaps out waits for the write, and whoever then wants a page back waits behind it: to compress a
request of the kernel may take a millisecond. So its pages are copied here, the kernel is told that
it has them no more to keep, and a task gives them to the volume, some at a time, with everybody
else served in between.

What is here was promised. It is only taken when the volume has room for all of it, and leaves when
the volume has it: a page that could not be stored, for lack of room or by any error, stays here, is
what a read gets, and is tried again.

Where there is a lane, it has a stage of its own for whole pages, and this is for what it leaves to
us (docs/native.md).
"""

from __future__ import annotations

import errno
from collections.abc import Coroutine, Iterator
from itertools import groupby
from typing import Any

import trio

from tmemfs.linux.syscalls import FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE
from tmemfs.supervise import failsafe
from tmemfs.swap.runs import runs
from tmemfs.swap.volume import PAGE_SIZE, SwapVolume

# 4 MiB: some of the largest requests of the kernel.
LIMIT = 1024
# So many pages are compressed at a time, in a tenth of a millisecond or two ...
_SLICE = 16
# ... and so many where nobody has read meanwhile, who would wait.
_LONG_SLICE = 64

Pages = dict[int, bytes]


class WriteBuffer:
    """*volume*, with up to `LIMIT` pages that are on their way to it.

    It is read and written like the volume itself; somebody has to `run` it.
    """

    def __init__(self, volume: SwapVolume) -> None:
        self.volume = volume
        self._noted = volume.buffered
        volume.keep = self._keep
        self._wake = trio.Event()
        self._slice = _LONG_SLICE
        # Held by whoever gives pages to the volume in an order that matters.
        self._order = trio.Lock()

    def read(
        self, offset: int, size: int
    ) -> bytes | memoryview | Coroutine[Any, Any, bytes | memoryview]:
        """See `SwapVolume.read`.

        A page that is here is not asked of the volume, which may have an older or no good one.
        """
        self._slice = _SLICE
        end = min(offset + size, self.volume.size)
        # As it is now: what is noted later is not older than the answer may be.
        noted = self._between(offset, end) if self._noted else {}
        if not noted:
            return self.volume.read(offset, size)
        first = offset // PAGE_SIZE
        if len(noted) < -(-end // PAGE_SIZE) - first:
            return self._read_around(noted, offset, end)
        run = b"".join(noted[index] for index in range(first, first + len(noted)))
        return memoryview(run)[offset % PAGE_SIZE :][: end - offset]

    def write(self, offset: int, buf: bytes) -> int | Coroutine[Any, Any, int]:
        """See `SwapVolume.write`."""
        noted = self._noted
        if not (offset | len(buf)) % PAGE_SIZE and offset + len(buf) <= self.volume.size:
            count = len(noted) + len(buf) // PAGE_SIZE
            if count <= LIMIT and self.volume.has_room(count):
                # Copies: a part of the request would hold all of it, and its size is not ours.
                pages = [buf[at : at + PAGE_SIZE] for at in range(0, len(buf), PAGE_SIZE)]
                noted.add(offset // PAGE_SIZE, pages)
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
                self._noted.drop(noted)

    def settle(self) -> None:
        """Give the volume all that it takes without waiting, so that its figures are complete."""
        try:
            while self._noted and not self._order.locked():
                if not self._give_now(self._next()):
                    break
        except Exception as error:
            failsafe.note("swap write buffer", error)  # whoever wants figures is not to blame

    async def run(self) -> None:
        """Give pages to the volume, until cancelled. After an error, to be run again."""
        while True:
            if not self._noted:
                await self._wake.wait()
            self._wake = trio.Event()
            while self._noted:
                # Others are let through here, while the lock is free.
                await trio.lowlevel.checkpoint()
                if self._order.locked():
                    await self._order.acquire()
                else:
                    self._order.acquire_nowait()
                try:
                    run, self._slice = self._next(), _LONG_SLICE
                    await self._give(run)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    break
                finally:
                    self._order.release()
            if self._noted:
                await self._wake.wait()  # no room: the next write tries again

    def statistics(self) -> dict[str, Any]:
        """Return what the volume says, and how many bytes wait here."""
        buffered = (len(self._noted) + self.volume.staged_pages) * PAGE_SIZE
        return {**self.volume.statistics(), "write_buffer_bytes": buffered}

    # -- inside ------------------------------------------------------------------------------

    def _keep(self, first: int, data: bytes) -> None:
        """Have pages that the volume could not store, unless there are newer ones.

        Not without end, where nothing can be stored: who writes is told of the error anyway.
        """
        for index, at in enumerate(range(0, len(data), PAGE_SIZE), first):
            if len(self._noted) < 2 * LIMIT:
                self._noted.add_missing(index, data[at : at + PAGE_SIZE])
        self._wake.set()

    async def _read_around(self, noted: Pages, offset: int, end: int) -> memoryview:
        """The bytes *offset* to *end*: pages that were *noted*, the others from the volume."""
        found = bytearray()
        for start, stop, here in _stretches(noted, offset, end):
            if here:
                first = start // PAGE_SIZE
                run = b"".join(noted[i] for i in range(first, -(-stop // PAGE_SIZE)))
                found += memoryview(run)[start % PAGE_SIZE :][: stop - start]
                continue
            try:
                part = self.volume.read(start, stop - start)
                found += await part if isinstance(part, Coroutine) else part
            except OSError:
                if not found:
                    raise
            if len(found) < stop - offset:
                break  # at a page that cannot be read: what lies before it is good
        return memoryview(found)

    async def _write(self, offset: int, buf: bytes) -> int:
        async with self._order:
            await self._give(self._between(offset, offset + len(buf)))
            written = self.volume.write(offset, buf)
            return await written if isinstance(written, Coroutine) else written

    def _between(self, start: int, end: int) -> Pages:
        """The pages noted of the bytes *start* to *end*, in no particular order."""
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
            self._noted.drop(pages)
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
                self._noted.drop(run)


def _stretches(noted: Pages, offset: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """Cut the bytes *offset* to *end* at pages: (start, stop, whether all or none are *noted*)."""
    pages = range(offset // PAGE_SIZE, -(-end // PAGE_SIZE))
    for here, group in groupby(pages, noted.__contains__):
        indices = list(group)
        yield (
            max(indices[0] * PAGE_SIZE, offset),
            min((indices[-1] + 1) * PAGE_SIZE, end),
            here,
        )
