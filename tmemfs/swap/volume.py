"""A swap volume: a file of fixed size whose pages live in a persistent pool.

What was never written reads as zeros, and what is zeros takes nothing. A page that does not fit
into the budget is refused with ENOSPC before anything is given up for it: what was written before
is still there.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import trio

from tmemfs.errors import CorruptPage
from tmemfs.linux.syscalls import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE
from tmemfs.native.lane import ROOM_FOR_RAW, Lane
from tmemfs.swap.runs import runs
from tmemfs.tmem import PersistentPool

PAGE_SIZE = 4096

# A volume is one object; its pages are told apart by index alone.
OBJECT = 0

_ZERO_WORD = bytes(8)

# So many pages are flushed at once, in about a millisecond; others are let through after it.
_FLUSH_PAGES = 4096


class Buffered(dict[int, bytes]):
    """Pages by index that are hidden in *pool* while they are here: see `Table.hide`.

    Whoever adds pages, or takes some away, does it by the methods that are here.
    """

    def __init__(self, pool: PersistentPool) -> None:
        super().__init__()
        self._stored = pool.objects

    def add(self, first: int, pages: Sequence[bytes]) -> None:
        """Have *pages* from index *first* on, in the place of older ones."""
        self._stored.hide(first, first + len(pages))
        self.update(enumerate(pages, first))

    def add_missing(self, index: int, page: bytes) -> None:
        """Have a page unless there is one of that index, which is newer."""
        self._stored.hide(index, index + 1)
        self.setdefault(index, page)

    def drop(self, pages: Mapping[int, bytes]) -> None:
        """Forget *pages*, but for those of which there is a newer one by now."""
        gone = sorted(index for index, page in pages.items() if self.get(index) is page)
        for index in gone:
            del self[index]
        for place, count in runs(gone):
            self._stored.show(gone[place], gone[place] + count)

    @contextlib.contextmanager
    def hiding(self, first: int, last: int) -> Iterator[None]:
        """Around a change of what is stored of the pages *first* to *last* (excluded)."""
        if all(map(self.__contains__, range(first, last))):
            yield  # they are hidden already
            return
        self._stored.hide(first, last)
        try:
            yield
        finally:
            shown = [index for index in range(first, last) if index not in self]
            for place, count in runs(shown):
                self._stored.show(shown[place], shown[place] + count)


class SwapVolume:
    """A file of *size* bytes (a multiple of 4096) called *name*, kept in *pool*.

    Nothing here waits, and there are no awaits: a request is served in one go, but for large holes,
    which are made in slices. (A volume with an overflow file may have to wait; it returns a
    coroutine then.)
    """

    def __init__(self, name: str, size: int, pool: PersistentPool) -> None:
        self.name = name
        self.size = size
        self.keep: Callable[[int, bytes], None] = lambda first, data: None
        """called with the first page and the bytes of pages that could not be stored"""
        self.buffered = Buffered(pool)
        """pages that are newer than what is stored, or all that there is of them"""
        self._pool = pool
        pool.objects.watch(size // PAGE_SIZE)
        self._zeros = bytes(pool.page_size)
        self._lane: Lane | None = None

    def read(
        self, offset: int, size: int
    ) -> bytes | memoryview | Coroutine[Any, Any, bytes | memoryview]:
        """Return *size* bytes at *offset*, fewer at the end of the volume.

        Fewer also where a page on the way is corrupt, up to that page: so that the good pages of a
        request are not lost with the bad one. Raises EIO when it is the first.
        """
        first, count = self._span(offset, min(offset + size, self.size))
        return self._cut(self._run(first, count), offset, size) if count else b""

    def write(self, offset: int, buf: bytes) -> int | Coroutine[Any, Any, int]:
        """Write *buf* at *offset*; return its length.

        Raises ENOSPC when the budget has no room or *buf* reaches beyond the end; nothing has
        changed then.
        """
        self._check_end(offset + len(buf))
        if not self.write_now(offset, buf):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(buf)

    def write_now(self, offset: int, buf: bytes) -> bool:
        """Write *buf*, which ends within the volume; False if there is no room for it now."""
        return self._put_run(offset, buf, {})

    def grant(self, lane: Lane, handle: int) -> None:
        """Let *lane* read and write the file that is open as *handle*, as far as it can."""
        table = self._pool.objects.native
        lane.grant(handle, table, OBJECT, PAGE_SIZE, self.size, zeros=True, stores=True)
        if self._lane is None:
            self._pool.let_others_put()
            self._lane = lane

    @property
    def staged_pages(self) -> int:
        """How many pages the lane was given that are not compressed yet."""
        return self._pool.staged_pages

    def make_ready(self, missing: int) -> bool:
        """Let the lane go on with what it was given here, but *missing* something for that.

        Returns False where there is no room, or where it is not this volume that it waits for.
        """
        raw = missing == ROOM_FOR_RAW
        return self._pool.is_next_in_stage and self._pool.make_ready(raw=raw)

    async def refill(self, missing: int) -> bool:
        """As `make_ready`, waiting for room where that can be."""
        return self.make_ready(missing)

    def has_room(self, pages: int) -> bool:
        """Say whether so many more pages can be written now, whatever is in them."""
        return self._pool.has_room(pages)

    async def fallocate(self, mode: int, offset: int, length: int) -> None:
        """Do what fallocate(2) does to *length* bytes at *offset*, as far as the size is fixed.

        A hole and a range of zeros are the same here. All the rest is as good as allocated, though
        the budget may have no room for it. Raises ENOSPC where anything but a hole reaches beyond
        the end, and EOPNOTSUPP for modes that move bytes; nothing has changed then.
        """
        if mode & ~(FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE | FALLOC_ZERO_RANGE):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        end = offset + length
        if not mode & FALLOC_PUNCH_HOLE:
            self._check_end(end)
        if mode & (FALLOC_PUNCH_HOLE | FALLOC_ZERO_RANGE) and offset < self.size:
            await self._zero(offset, min(end, self.size))

    def statistics(self) -> dict[str, Any]:
        """Return name, size, and what the overflow file says, if there is one."""
        return {"name": self.name, "size": self.size, "overflow": None}

    def close(self) -> None:
        """Let go of what is not memory. The pool stays as it is."""

    # -- inside ------------------------------------------------------------------------------

    def _span(self, start: int, end: int) -> tuple[int, int]:
        """The first page of the bytes *start* to *end*, and how many pages they touch."""
        page_size = self._pool.page_size
        first = start // page_size
        return first, max(-(-end // page_size) - first, 0) if start < end else 0

    def _cut(self, run: bytes | bytearray, offset: int, size: int) -> memoryview:
        """The bytes at *offset* of a run of pages that begins with the page of *offset*."""
        start = offset % self._pool.page_size
        return memoryview(run)[start : start + min(size, self.size - offset)]

    async def _zero(self, offset: int, end: int) -> None:
        """Make the bytes *offset* to *end* zeros: flush whole pages, write to the edges."""
        page_size = self._pool.page_size
        first, last = -(-offset // page_size), end // page_size
        middle = min(first * page_size, end)
        for start, stop in (offset, middle), (max(last * page_size, middle), end):
            written = self.write(start, bytes(stop - start)) if start < stop else 0
            if isinstance(written, Coroutine):
                await written
        for index in range(first, last, _FLUSH_PAGES):
            if index > first:
                await trio.lowlevel.checkpoint()
            self._pool.flush_many(OBJECT, index, min(_FLUSH_PAGES, last - index))
        if self._lane is not None:
            self._go_on(self._lane)

    def _go_on(self, lane: Lane) -> None:
        """Let *lane* try again with pages for which it had no room: there may be some by now."""
        if self._pool.staged_pages:
            lane.poke_stage()

    def _check_end(self, end: int) -> None:
        if end > self.size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _put_run(self, offset: int, buf: bytes, overflowed: Mapping[int, bytes]) -> bool:
        """Put the pages of *buf*; False, and nothing has changed, when there is no room for them.

        *outside* are the pages of the run that are not in memory.
        """
        if not buf:
            return True
        page_size = self._pool.page_size
        first, count = self._span(offset, offset + len(buf))
        last = first + count - 1
        head, tail = offset % page_size, -(offset + len(buf)) % page_size
        data = buf
        edges = {
            index: self.buffered.get(index) or overflowed.get(index) or self._page(index)
            for index, cut in ((first, head), (last, tail))
            if cut
        }
        if head:
            data = edges[first][:head] + data
        if tail:
            data += edges[last][page_size - tail :]
        # Asked first, because a refused put would leave nothing where the older page was. Zeros
        # always find room.
        if not self._pool.has_room(count) and data.strip(b"\0"):
            return False
        self._put(first, data)
        self.buffered.drop(edges)  # they are stored now, with what was written to them
        if self._lane is not None:
            self._pool.lend()
            self._go_on(self._lane)
        return True

    def _put(self, first: int, data: bytes) -> None:
        """Put pages, for which there is room, and flush those of zeros: they read the same.

        On the way a page may be neither here nor there, and others would take that for zeros.
        """
        with self.buffered.hiding(first, first + len(data) // self._pool.page_size):
            self._put_hidden(first, data)

    def _put_hidden(self, first: int, data: bytes) -> None:
        page_size, zeros = self._pool.page_size, self._zeros
        empty = [
            # One word tells most pages apart; only then is the whole page looked at.
            data.startswith(_ZERO_WORD, at) and data[at : at + page_size] == zeros
            for at in range(0, len(data), page_size)
        ]
        if True not in empty:
            self._put_some(first, data)
            return
        index = first
        for is_empty, group in groupby(empty):
            count = len(list(group))
            if is_empty:
                self._pool.flush_many(OBJECT, index, count)
            else:
                start = (index - first) * page_size
                self._put_some(index, data[start : start + count * page_size])
            index += count

    def _put_some(self, first: int, data: bytes) -> None:
        try:
            if self._pool.put_many(OBJECT, first, data) * self._pool.page_size != len(data):
                raise OSError(errno.EIO, "a page was refused although there was room")
        except Exception:
            # The pool may have none of them now, old or new, and what it has not reads as zeros.
            self.keep(first, data)
            raise

    def _run(self, first: int, count: int) -> bytes | bytearray:
        """Pages that are in memory, up to the first that is corrupt. Raises EIO for that one."""
        if count == 1:
            return self._page(first)
        try:
            # Where there is no page, there are zeros.
            return self._pool.get_run(OBJECT, first, count)[0]
        except CorruptPage:
            good = [self._page(first)]
            with contextlib.suppress(OSError):
                good.extend(self._page(index) for index in range(first + 1, first + count))
            return b"".join(good)

    def _page(self, index: int) -> bytes:
        if index in self.buffered:
            return self.buffered[index]
        try:
            page = self._pool.get(OBJECT, index)
        except CorruptPage as error:
            raise OSError(errno.EIO, str(error)) from error
        return page if page is not None else self._zeros
