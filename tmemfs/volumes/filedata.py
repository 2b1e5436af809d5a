"""What is known of the bytes of a file while it is open, and how it is kept true.

Two things keep stale bytes out of the pool (docs/concurrency.md tells the whole story):

* a *generation*, for changes that pass through us while somebody waits: pages are put only if the
  generation is the one seen before the wait;
* a *stamp* on the object, for changes behind our back: modification time, change time and size of
  the file that the pages were read from, compared at every open, around every backing read and
  with all attributes that the kernel asks for.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from tmemfs.errors import CorruptPage
from tmemfs.tmem import Pool

# Two changes within one tick of a filesystem's clock leave the same times behind. A file that
# changed less than this long (ns) before it was looked at may change again unseen.
TICK = 20_000_000
_COARSE_TICK = 2_000_000_000
_SECOND = 1_000_000_000

_U64 = (1 << 64) - 1
_SET = 1 << 63  # no size has this bit


class FileData:
    """The pages of one file in *pool*; shared by all who have the file open.

    `size` is the file's in bytes, `generation` is raised by everything that makes pages wrong.
    Nothing here waits.
    """

    __slots__ = (
        "_fresh",
        "_pool",
        "_stamp",
        "_trusted",
        "changing",
        "generation",
        "object_id",
        "opens",
        "size",
    )

    def __init__(self, pool: Pool, object_id: int) -> None:
        self.object_id = object_id
        self.opens = 0
        self.generation = 0
        self.changing = 0
        """writes and truncations under way"""
        self.size = 0
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
            kept = self._fresh and self._trusted
            if not kept and not self.changing:
                self.lose(info)
        else:
            self._adopt(info)
            kept = self._pool.stamp(self.object_id) == self._stamp
            if not kept:
                self._pool.flush_object(self.object_id)
        self._fresh = True
        self.opens += 1
        return kept

    def closed(self, info: os.stat_result) -> None:
        """Count a close; with the last one, leave the pool as the next open should find it."""
        self.opens -= 1
        if not self.opens and not info.st_nlink:
            self._pool.flush_object(self.object_id)
        elif not self.opens and not self._fresh:
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

    def get(self, first: int, count: int) -> list[bytes | None]:
        """Return *count* pages from *first* on, None for those that must be read."""
        try:
            return self._pool.get_many(self.object_id, first, count)
        except CorruptPage:
            return [None] * count

    def put(self, first: int, pages: bytes) -> None:
        """Put whole pages, which are as new as the stamp."""
        self._pool.put_many(self.object_id, first, pages)
        self._pool.set_stamp(self.object_id, self._stamp if self._trusted else 0)

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
        if stamp(info) != self._stamp and not self.changing:
            self.lose(info)

    def lose(self, info: os.stat_result) -> None:
        """Flush the file's pages; from now on it is as *info* has it."""
        self.generation += 1
        self._fresh = False
        self._pool.flush_object(self.object_id)
        self._adopt(info)

    @contextlib.contextmanager
    def change(self, fd: int, first: int, count: int) -> Iterator[None]:
        """Around a change of ours to *count* pages: nothing old is found before, during, after.

        Flushed before, because the backing file may change at any moment from then on; flushed
        again after, because a read may have put what it saw meanwhile. *fd* is the backing file.
        """
        self.changing += 1
        try:
            self.generation += 1
            self._pool.flush_many(self.object_id, first, count)
            yield
        finally:
            self.changing -= 1
            self.generation += 1
            self._pool.flush_many(self.object_id, first, count)
            self._adopt(os.fstat(fd))
            # Our own change has moved the times. If somebody else has changed other pages at the
            # same time, nothing tells: the next open has to begin afresh.
            self._trusted = False
            self._pool.set_stamp(self.object_id, 0)

    def restamp(self, before: os.stat_result, after: os.stat_result) -> None:
        """Our own doing has changed the file's times from *before* to *after*, not its bytes."""
        if self._stamp == stamp(before):
            self._stamp = stamp(after)
            self._pool.set_stamp(self.object_id, self._stamp if self._trusted else 0)

    def _adopt(self, info: os.stat_result) -> None:
        self.size = info.st_size
        self._stamp = stamp(info)
        self._trusted = _settled(info)


def stamp(info: os.stat_result) -> int:
    """Modification time, change time and size in one int of 192 bits, which is never 0."""
    return (info.st_mtime_ns & _U64) << 128 | (info.st_ctime_ns & _U64) << 64 | info.st_size | _SET


def _settled(info: os.stat_result) -> bool:
    """Whether a change from now on must show in the file's times."""
    newest = max(info.st_mtime_ns, info.st_ctime_ns)
    coarse = not (info.st_mtime_ns % _SECOND or info.st_ctime_ns % _SECOND)
    return abs(time.time_ns() - newest) > (_COARSE_TICK if coarse else TICK)
