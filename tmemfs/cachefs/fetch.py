"""Reads missing pages from backing files: one read for all who miss them, and readahead.

Whoever misses a page that somebody else is reading already waits for that read. The caller gets
the bytes as soon as they are there; what takes longer than starting a task, to compress them, is
done behind its back. Until it is done the bytes are found in the fill.
"""

from __future__ import annotations

import math

from tmemfs import supervise
from tmemfs.cachefs.handles import OpenFiles
from tmemfs.cachefs.pages import FileData, Fill
from tmemfs.cachefs.shared import OpenFile
from tmemfs.cachefs.source.executor import Executor

# Bytes that are put at once: what is compressed in the time that a request waits anyway.
_SLICE = 64 << 10
# What is read ahead is read in pieces of so many bytes, so that the first is there soon.
_PIECE = 1 << 20
# No more bytes are read ahead, for all files together, until some of them are in the pool.
_AHEAD = 32 << 20


class Fetcher:
    """Brings pages of *page_size* bytes from backing files into the pool.

    Each read and each put in the background is a use of one of the open *files*.
    """

    def __init__(self, executor: Executor, files: OpenFiles, page_size: int) -> None:
        self.readahead = 0
        """the most bytes to be ahead of a reader"""
        self._executor = executor
        self._page_size = page_size
        self._files = files
        self._ahead = 0

    async def fill(self, file: OpenFile, first: int, run: bytearray, missing: set[int]) -> float:
        """Bring the *missing* pages of *run*, which starts at page *first*, by their places in it.

        Behind the end of the file they are zeros. *missing* is empty then. Returns where the file
        was seen to end, infinity if it was not.
        """
        end = math.inf
        while missing:
            mine, others = self._fills_for(file.data, first, missing)
            try:
                for fill in mine:
                    await self._read(file, fill)
                    self._put_soon(file, fill)
            finally:
                for fill in mine:
                    if not fill.done.is_set():
                        self._abandon(file.data, fill)
            for fill in others:
                self._executor.counters.shared_reads += 1
                await fill.done.wait()
            for fill in (*mine, *others):
                if fill.pages is not None:  # else somebody's read has failed: now it is ours to
                    self._hand_out(fill.first - first, fill.pages, run, missing)
                    end = min(end, fill.end)
        return end

    def _fills_for(
        self, data: FileData, first: int, missing: set[int]
    ) -> tuple[list[Fill], list[Fill]]:
        """What brings the missing pages: new fills, to be read now, and those under way."""
        mine: list[Fill] = []
        others: list[Fill] = []
        covered = first
        for index in sorted(first + place for place in missing):
            if index < covered:
                continue
            fill = data.fill(index)
            if fill is not None:
                others.append(fill)
            elif mine and mine[-1].first + mine[-1].count == index == covered:
                fill = mine[-1]
                fill.count += 1
            else:
                fill = Fill(index, 1, data.generation)
                mine.append(fill)
            covered = fill.first + fill.count
        # Not before all are known: they would be found above.
        data.fills.extend(mine)
        return mine, others

    def _hand_out(self, at: int, found: memoryview, run: bytearray, missing: set[int]) -> None:
        """Copy what was *found*, which starts at place *at* of *run*, to where it is missing."""
        size = self._page_size
        for place in [place for place in missing if 0 <= place - at < len(found) // size]:
            start = (place - at) * size
            run[place * size : (place + 1) * size] = found[start : start + size]
            missing.remove(place)

    def read_ahead(self, file: OpenFile, first: int, last: int) -> None:
        """Begin to read what is missing of the pages *first* to *last* (excluded)."""
        if self._ahead >= _AHEAD:
            return
        size = self._page_size
        last = min(last, -(-file.data.size // size))
        for start, count in file.data.lacks(first, last) if first < last else ():
            for at in range(start, start + count, _PIECE // size):
                part = Fill(at, min(_PIECE // size, start + count - at), file.data.generation)
                self._ahead += part.count * size
                file.data.fills.append(part)
                file.uses += 1
                self._executor.counters.readahead_reads += 1
                self._executor.counters.readahead_pages += part.count
                supervise.start(self._read_ahead, file, part)

    async def _read_ahead(self, file: OpenFile, fill: Fill) -> None:
        try:
            await self._read(file, fill)
            await self._put(file.data, fill)
        finally:
            self._ahead -= fill.count * self._page_size
            await self._finish(file, fill)

    async def _read(self, file: OpenFile, fill: Fill) -> None:
        """Read the pages of *fill*; whoever waits for it may go on then."""
        data, size = file.data, self._page_size
        start = fill.first * size
        try:
            fd = await self._files.reader(file)
            wanted = min(fill.count * size, max(data.size - start, 0))
            on = file.inode.filesystem
            block = await self._executor.read(on, data.threads, fd, start, wanted)
            fill.pages = memoryview(block.data.ljust(fill.count * size, b"\0"))
        except BaseException:
            self._abandon(data, fill)
            raise
        if len(block.data) < fill.count * size:
            fill.end = start + len(block.data)
        if data.generation == fill.generation:
            data.notice(block.info)
        fill.done.set()

    def _abandon(self, data: FileData, fill: Fill) -> None:
        """Let those who wait for *fill* try for themselves."""
        data.fills.remove(fill)
        fill.done.set()

    def _put_soon(self, file: OpenFile, fill: Fill) -> None:
        """Put what was read: at once if that takes no time, else by and by."""
        if fill.count * self._page_size <= _SLICE:
            assert fill.pages is not None
            file.data.fills.remove(fill)
            if self._current(file.data, fill):
                file.data.put(fill.first, bytes(fill.pages))
            return
        file.uses += 1
        supervise.start(self._put_later, file, fill)

    async def _put_later(self, file: OpenFile, fill: Fill) -> None:
        try:
            await self._put(file.data, fill)
        finally:
            await self._finish(file, fill)

    async def _put(self, data: FileData, fill: Fill) -> None:
        """Put what was read in slices, as long as it is what the file has."""
        assert fill.pages is not None
        size = self._page_size
        for at in range(0, fill.count, _SLICE // size):
            if not self._current(data, fill):
                break
            data.put(fill.first + at, bytes(fill.pages[at * size : at * size + _SLICE]))
            await self._executor.give_way()

    async def _finish(self, file: OpenFile, fill: Fill) -> None:
        if fill in file.data.fills:
            file.data.fills.remove(fill)
        await self._files.release(file)

    def _current(self, data: FileData, fill: Fill) -> bool:
        return data.generation == fill.generation and not data.changing
