"""Detects sequential opens in a directory, and prefetches the small files that come next.

`tar`, `grep -r`, `cp -r` and `cat *` open one small file after the other. Over a network each of
them takes two journeys, in which nothing else happens. So after some opens in order the next files
are read before they are asked for, more of them each time.

There are two orders: that of the directory's listing, and that of the names.
"""

from __future__ import annotations

import os
import stat
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter

import trio

from tmemfs import supervise
from tmemfs.cachefs.handles import OpenFiles
from tmemfs.cachefs.inode import Inode
from tmemfs.cachefs.inodes import InodeTable
from tmemfs.cachefs.names import Found
from tmemfs.cachefs.source.executor import Executor
from tmemfs.cachefs.source.opening import SMALL
from tmemfs.linux.credentials import ourselves
from tmemfs.tmem import Pool

# So many files are remembered, those of the directories that were listed last.
_FILES = 16384
# Opens in order before the first file is read ahead, and the most files that are.
_IN_ORDER = 2
_MOST = 16
# Somebody may leave out a few files that are none of theirs.
_SKIPPED = 3

_NAME = attrgetter("name")


class _Order:
    """*files* in one order, in which *place_of* finds one, and which was opened last."""

    def __init__(self, files: Sequence[Inode], place_of: Callable[[Inode], int]) -> None:
        self.files = files
        self._place_of = place_of
        self._last = -1
        self._edge = 0
        self.run = 0

    def opened(self, inode: Inode) -> None:
        """Note that *inode* was opened."""
        place = self._place_of(inode)
        self.run = self.run + 1 if 0 < place - self._last <= _SKIPPED + 1 else 0
        if not self.run:
            self._edge = 0
        self._last = place

    def next(self) -> Sequence[Inode]:
        """Return the files to read now."""
        if self.run < _IN_ORDER:
            return ()
        start = max(self._last + 1, self._edge)
        end = self._last + 1 + min(2 * self.run, _MOST)
        self._edge = max(end, start)
        return self.files[start:end]


class _Directory:
    """The small files of a directory, as they were listed.

    Both orders are kept up with each part of the listing: sorting all of a large directory when the
    first file is opened would take milliseconds.
    """

    def __init__(self) -> None:
        self.listed: list[Inode] = []
        self._places: dict[Inode, int] = {}
        self._by_name: list[Inode] = []
        self._orders: tuple[_Order, ...] = ()

    def add(self, files: Sequence[Inode]) -> None:
        """Add *files*, which come next in the listing."""
        for inode in files:
            self._places[inode] = len(self.listed)
            self.listed.append(inode)
            insort(self._by_name, inode, key=_NAME)
        self._orders = (
            _Order(self.listed, self._places.__getitem__),
            _Order(self._by_name, lambda inode: bisect_left(self._by_name, inode.name, key=_NAME)),
        )

    def opened(self, inode: Inode) -> Sequence[Inode]:
        """Note that *inode* was opened; return what is next in the order that is kept best."""
        for order in self._orders:
            order.opened(inode)
        return max(self._orders, key=lambda order: order.run).next()


class SequentialOpens:
    """The small files of the directories that were listed last."""

    def __init__(self) -> None:
        self._directories: OrderedDict[Inode, _Directory] = OrderedDict()
        self._of: dict[Inode, _Directory] = {}

    def listed(self, parent: Inode, files: Sequence[Inode], *, first: bool) -> None:
        """Note that a listing of *parent* has come to *files*; the *first* part begins it anew."""
        if first:
            self._drop(parent)
            self._directories[parent] = _Directory()
        directory = self._directories.get(parent)
        if directory is not None:
            directory.add(files)
            self._of.update(dict.fromkeys(files, directory))
            while len(self._of) > _FILES:
                self._drop(next(iter(self._directories)))

    def opened(self, inode: Inode) -> Sequence[Inode]:
        """Note that *inode* was opened; return the files to be read ahead."""
        directory = self._of.get(inode)
        return directory.opened(inode) if directory is not None else ()

    def _drop(self, parent: Inode) -> None:
        directory = self._directories.pop(parent, None)
        for inode in directory.listed if directory is not None else ():
            if self._of.get(inode) is directory:
                del self._of[inode]


class Prefetcher:
    """Reads small files into *pool* before they are asked for, where an open is a journey.

    *inodes* are those that are known; the files are opened as one of *files*.
    """

    def __init__(
        self, inodes: InodeTable, files: OpenFiles, executor: Executor, pool: Pool
    ) -> None:
        self._inodes = inodes
        self._files = files
        self._executor = executor
        self._pool = pool
        self.enabled = True
        self._sequential = SequentialOpens()
        self.under_way: dict[Inode, trio.Event] = {}

    def listed(self, parent: Inode, found: Iterable[Found], *, first: bool) -> None:
        """Take note of what a listing of *parent* says; its *first* part begins it anew."""
        if parent.filesystem.local or not self.enabled:
            return
        small = [
            inode
            for inode, info, _ in found
            if stat.S_ISREG(info.st_mode) and 0 < info.st_size <= SMALL
        ]
        self._sequential.listed(parent, small, first=first)

    async def opened(self, inode: Inode) -> None:
        """Prefetch what is next after *inode*; wait for that one, if it is on its way itself."""
        for following in self._sequential.opened(inode):
            supervise.start(self._prefetch, following)
        if inode in self.under_way:
            await self.under_way[inode].wait()

    async def _prefetch(self, inode: Inode) -> None:
        """Have a small file in the pool: an open is all that it takes."""
        if inode in self.under_way or inode not in self._inodes:
            return
        if inode.data is not None or self._pool.stamp(inode.object_id):
            return
        self.under_way[inode] = trio.Event()
        inode.pin()
        try:
            file, _ = await self._files.open(inode, os.O_RDONLY, ourselves())
            counters = self._executor.counters
            counters.readahead_reads += 1
            counters.readahead_pages += -(-file.data.size // self._pool.page_size)
            await self._files.release(file)
        finally:
            inode.unpin()
            self.under_way.pop(inode).set()
