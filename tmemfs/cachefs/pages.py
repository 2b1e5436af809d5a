"""The pages of a file that is open, and what keeps stale bytes out of the pool.

Two things keep stale bytes out of the pool (docs/concurrency.md tells the whole story):

* a *generation*, for changes that pass through us while somebody waits: pages are put only if the
  generation is the one seen before the wait;
* a *stamp* on the object, for changes behind our back: modification time, change time and size of
  the file that the pages were read from, compared at every open, around every backing read and
  with all attributes that the kernel asks for.

Where files go by path (a filesystem in user space, as sshfs is), a change behind our back may be
another file in the place of the one that is open: what its descriptors read is not what the
attributes tell of. Nobody can know. So whoever has it open is *set apart* then: they read on what
they have opened, past the pool, and the next open begins with a `FileData` of its own. Not while
somebody has it open for writing through us: then it is mostly our own doing.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator
from typing import Any

import trio

from tmemfs.cachefs.source.executor import Change, Executor
from tmemfs.cachefs.source.stamps import IS_SET, SIZE, settled, stamp
from tmemfs.errors import CorruptPage
from tmemfs.native.lane import Lane
from tmemfs.tmem import Pool


class Fill:
    """A read of *count* pages from *first* on, begun in a *generation* of the file's data."""

    __slots__ = ("count", "done", "end", "first", "generation", "pages")

    def __init__(self, first: int, count: int, generation: int) -> None:
        self.first = first
        self.count = count
        self.generation = generation
        self.pages: memoryview | None = None
        """what was read, zeros behind the end of the file; None as long as, or if, there is none"""
        self.end: float = math.inf
        """where the file was seen to end"""
        self.done = trio.Event()


class FileData:
    """The pages of one file in *pool*; shared by all who have the file open.

    `size` is the file's in bytes, `generation` is raised by everything that makes pages wrong.
    Unless it *checks*, pages are believed whatever the file's attributes say. *by_path* is whether
    another file may take the place of the one that is open; *before* is what was set apart when one
    has. Nothing here waits.
    """

    __slots__ = (
        *("_by_path", "_checks", "_counters", "_executor", "_fresh", "_older", "_pool", "_stamp"),
        *("_suspect", "_threads", "_trusted"),
        *("apart", "changing", "fd", "fills", "generation", "grants", "info", "looked", "named"),
        *("object_id", "opening", "opens", "size", "unlinked", "writers"),
    )

    def __init__(
        self,
        pool: Pool,
        object_id: int,
        executor: Executor,
        *,
        checks: bool,
        by_path: bool = False,
        before: FileData | None = None,
    ) -> None:
        self.object_id = object_id
        self.apart = False
        """whether those who have it open read past the pool"""
        self.named: Any = None
        """of which inode, and by which name of it, it was opened last, where that counts"""
        self.info: os.stat_result | None = None
        """the file's attributes, as they were seen last"""
        self.opens = 0
        self.writers = 0
        """of those that have it open, how many may write"""
        self.fd = -1
        """by which all read who only read, from the first time on that one has to"""
        self.opening: trio.Event | None = None
        """set while that descriptor is being opened"""
        self.unlinked = False
        """whether its last name has gone"""
        self.generation = 0
        self.changing = 0
        """writes and truncations under way"""
        self.size = 0
        self.grants: dict[int, Lane] = {}
        """who has it open and is answered by the lane, by the kernel's handle"""
        self.looked = 0.0
        """when (time.monotonic) the file's attributes were seen last"""
        self.fills: list[Fill] = []
        """reads of the backing file whose pages are not in the pool yet"""
        self._threads: trio.CapacityLimiter | None = None
        self._by_path = by_path
        self._older: list[FileData] = []
        if before is not None:
            self._older = [data for data in (*before._older, before) if data.opens]
        self._suspect = False
        """whether what its descriptors read may be another file, for all that we know"""
        self._checks = checks
        self._counters = executor.counters
        self._executor = executor
        self._pool = pool
        self._stamp = 0
        self._trusted = False
        """whether an equal stamp, later, will mean equal bytes"""
        self._fresh = True
        """whether the kernel's own pages of the file are as good as ours"""

    # -- opening -----------------------------------------------------------------------------

    def opened(self, info: os.stat_result) -> bool:
        """Count an open of the file as *info* has it; say whether the kernel may keep its pages."""
        if self.opens:
            self.notice(info)
            kept = not self._checks or (self._fresh and self._trusted)
            if not kept and not self.changing:
                self.lose(info)
            elif not kept:
                self.generation += 1
                self._pool.flush_object(self.object_id)
        else:
            self._adopt(info)
            noted = self._pool.stamp(self.object_id)
            kept = noted == self._stamp if self._checks else noted & SIZE in (0, info.st_size)
            if not kept and self._pool.flush_object(self.object_id):
                self._counters.stale_objects += 1
        self._fresh = True
        self.opens += 1
        return kept

    @property
    def threads(self) -> trio.CapacityLimiter:
        """What limits the threads that read or change the file: made when one has to."""
        if self._threads is None:
            self._threads = self._executor.limiter()
        return self._threads

    @property
    def older(self) -> FileData | None:
        """The last one that was set apart for this, if it is open."""
        still_open = [data for data in self._older if data.opens] if self._older else None
        return still_open[-1] if still_open else None

    @property
    def mixes(self) -> bool:
        """Whether another file is open still that the kernel takes for this one."""
        return bool(self._older) and self.older is not None

    def mixed(self) -> None:
        """Note that the kernel's pages may be those of another file: the next open drops them."""
        self._fresh = False

    def closed(self) -> None:
        """Count a close; with the last one, leave the pool as the next open should find it."""
        self.opens -= 1
        if self.apart:
            return
        if not self.opens and self.unlinked:
            self._pool.flush_object(self.object_id)
        elif not self.opens and not self._fresh and self._checks:
            # The next open must tell the kernel to drop its pages, so it must not find ours.
            self._pool.set_stamp(self.object_id, 0)

    # -- pages -------------------------------------------------------------------------------

    def get_page(self, index: int) -> bytes | None:
        """Return one page, None if it must be read."""
        try:
            return self._pool.get(self.object_id, index)
        except CorruptPage:
            # The backing file has the right bytes, and the pool has dropped the wrong ones.
            return None

    def get_run(self, first: int, count: int) -> tuple[bytearray, list[int]]:
        """Return *count* pages from *first* on, and the places of those that must be read."""
        try:
            return self._pool.get_run(self.object_id, first, count)
        except CorruptPage:
            return bytearray(count * self._pool.page_size), list(range(count))

    def lacks(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Yield (first, count) of the runs of pages that neither are in the pool nor on the way."""
        start = None
        for index, there in enumerate(self._pool.holds(self.object_id, first, last - first), first):
            if there or self.fill(index):
                if start is not None:
                    yield start, index - start
                start = None
            elif start is None:
                start = index
        if start is not None:
            yield start, last - start

    def fill(self, index: int) -> Fill | None:
        """Return what brings page *index*, as new as whoever asks now may expect it."""
        for fill in self.fills:
            if fill.generation == self.generation and 0 <= index - fill.first < fill.count:
                return fill
        return None

    def put(self, first: int, pages: bytes) -> None:
        """Put whole pages, which are as new as the stamp."""
        if self.apart:
            return
        self._pool.put_many(self.object_id, first, pages)
        self._note_stamp()

    def edges(self, start: int, end: int) -> tuple[bytes | None, bytes | None]:
        """Return what surrounds the bytes *start* to *end* in their first and their last page.

        None where the pool does not have that page; nothing behind the end of the file.
        """
        page_size = self._pool.page_size
        before: bytes | None = b""
        after: bytes | None = b""
        if start % page_size:
            page = self.get_page(start // page_size)
            before = page and page[: start % page_size]
        if end % page_size and end < self.size:
            page = self.get_page(end // page_size)
            after = page and page[end % page_size :]
        return before, after

    def put_written(
        self, offset: int, buf: bytes, before: bytes | None, after: bytes | None
    ) -> None:
        """Put the pages of *buf* at *offset*, with what surrounds it; no page that lacks a part."""
        page_size = self._pool.page_size
        if before is None:
            skip = -offset % page_size
            start, run = offset + skip, buf[skip:]
        else:
            start, run = offset - len(before), before + buf
        if after is None:
            run = run[: len(run) - len(run) % page_size]
        else:
            run += after
        if run:
            # Behind the end of the file a page is zeros.
            self.put(start // page_size, run + bytes(-len(run) % page_size))

    # -- change ------------------------------------------------------------------------------

    def notice(self, info: os.stat_result) -> None:
        """Flush the file's pages if *info* shows that somebody else has changed it."""
        self.looked = time.monotonic()
        if self.changing or self.apart or (self.grants and self._is_being_written()):
            return
        if stamp(info) != self._stamp if self._checks else info.st_size != self.size:
            # The size counts always: between an old end and a new one are bytes that never were.
            self.changed_behind(info)

    def _is_being_written(self) -> bool:
        """Whether the lane changes the file, or has done so and it was not heard of."""
        return any(not lane.is_settled(handle) for handle, lane in self.grants.items())

    def changed_behind(self, info: os.stat_result) -> None:
        """Flush the file's pages, because somebody else has changed it; it is as *info* has it."""
        if self._by_path and self._stamp and not self.writers:
            self.set_apart()
            return
        # Our own doing, whose times may come late from a server, or another file: nobody knows.
        self._suspect = self._by_path
        self.lose(info)

    def may_be(self, info: os.stat_result) -> bool:
        """Whether *info* is of the file as it is known, or as a change of ours may have left it."""
        return not self._stamp or self.writers > 0 or stamp(info) == self._stamp

    def set_apart(self) -> None:
        """Let those who have it open read past the pool from now on."""
        if self.apart:
            return
        self.apart = True
        self.revoke()
        self.generation += 1
        if self._pool.flush_object(self.object_id) and self._stamp:
            self._counters.stale_objects += 1

    def lose(self, info: os.stat_result) -> None:
        """Flush the file's pages; from now on it is as *info* has it."""
        self.generation += 1
        self._fresh = False
        if self._pool.flush_object(self.object_id) and self._stamp:
            self._counters.stale_objects += 1
        self._adopt(info)

    @contextlib.contextmanager
    def change(self, first: int, count: int, fd: int) -> Iterator[Ours]:
        """Around a change of ours to *count* pages: nothing old is found before, during, after.

        Flushed before, because the backing file may change at any moment from then on; flushed
        again after, because a read may have put what it saw meanwhile. What is yielded is to be
        told how the change went; *fd* is where to look then, if that does not make anybody wait.
        """
        ours = Ours(self.generation + 1, self._stamp)
        self.changing += 1
        try:
            self.generation += 1
            self._pool.flush_many(self.object_id, first, count)
            yield ours
        finally:
            self.changing -= 1
            ours.alone = self.generation == ours.generation
            self.generation += 1
            self._pool.flush_many(self.object_id, first, count)
            before = ours.made and ours.made.before
            after = ours.made and ours.made.after
            if before is None or after is None:
                # It failed, or could not be looked at.
                ours.alone = False
            elif self._checks and ours.alone and stamp(before) != ours.stamp:
                # Somebody else was there before us, and the file's times hide it by now.
                self.changed_behind(after)
                ours.alone = False
            if fd >= 0:
                self._adopt(os.fstat(fd))
            elif after is not None and ours.alone:
                self._adopt(after)
            if not ours.alone:
                # Others were at it, and what they hide has not been looked for.
                self.doubt(after)
            # Our own change has moved the times. If somebody else has changed other pages at the
            # same time, nothing tells: the next open has to begin afresh.
            self._trusted = False
            self._note_stamp()

    def doubt(self, info: os.stat_result | None) -> None:
        """Let the next look find the file changed: *info* may not be the latest."""
        self._stamp, self.looked = 0, -math.inf
        if info is not None:
            # Where it ends is looked for at the end; too early an end would hide bytes.
            self._resize(max(self.size, info.st_size))

    def retimed(self, before: os.stat_result, after: os.stat_result) -> None:
        """Our own doing has set the file's times; what somebody else has done hides behind them."""
        if self._stamp == stamp(before):
            self.doubt(after)

    def restamp(self, before: os.stat_result, after: os.stat_result) -> None:
        """Our own doing has changed the file's times from *before* to *after*, not its bytes."""
        if self._stamp == stamp(before):
            self._stamp = stamp(after)
            self._note_stamp()

    def _note_stamp(self) -> None:
        """Note with the pages what the next open has to find of the file to keep them."""
        if self.apart:
            return
        if self._checks:
            noted = self._stamp if self._trusted else 0
        else:
            noted = self._stamp or self.size | IS_SET
        self._pool.set_stamp(self.object_id, noted)

    def revoke(self) -> None:
        """Let the lane answer nobody any more."""
        while self.grants:
            handle, lane = self.grants.popitem()
            lane.revoke(handle)

    def _resize(self, size: int) -> None:
        """Before anybody else is told of it, the lane is."""
        for handle, lane in self.grants.items():
            lane.resize(handle, size)
        self.size = size

    def _adopt(self, info: os.stat_result) -> None:
        self.looked = time.monotonic()
        self.info = info
        if info.st_size != self.size:
            self._resize(info.st_size)
        self._stamp = stamp(info)
        self._trusted = settled(info) and not self._suspect


class Ours:
    """A change of ours that is under way."""

    __slots__ = ("alone", "generation", "made", "stamp")

    def __init__(self, generation: int, before: int) -> None:
        self.generation = generation
        self.stamp = before
        self.made: Change | None = None
        """to be set when it has been made"""
        self.alone = False
        """afterwards: whether nobody else has changed the file meanwhile, or unseen before"""
