"""Reads of open files: out of the pool, and what is missing from the backing file."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Coroutine
from typing import Any

from tmemfs.cachefs.fetch import Fetcher
from tmemfs.cachefs.granting import Granter
from tmemfs.cachefs.handles import OpenFiles
from tmemfs.cachefs.names import Names
from tmemfs.cachefs.shared import OpenFile
from tmemfs.cachefs.source.executor import Executor
from tmemfs.cachefs.trace import Trace
from tmemfs.config import CacheMode
from tmemfs.errors import CorruptPage
from tmemfs.tmem import Pool

Read = bytes | memoryview


class Reader:
    """Reads *files* through *pool*; what is missing, *fetcher* brings by calls of *executor*.

    In the *mode* ``none`` the file is looked at before each read, in ``always`` never; else before
    a read of its end, unless it was *believe* seconds ago. Reads are noted in *trace*; *granter* is
    told of those from memory.
    """

    def __init__(
        self,
        names: Names,
        files: OpenFiles,
        fetcher: Fetcher,
        executor: Executor,
        granter: Granter,
        pool: Pool,
        *,
        mode: CacheMode,
        believe: float,
        trace: Trace | None,
    ) -> None:
        self._names = names
        self._files = files
        self._fetcher = fetcher
        self._executor = executor
        self._pool = pool
        self._page_size = pool.page_size
        self._mode = mode
        self._believe = 0.0 if mode == "none" else believe
        self._trace = trace
        self._granter = granter

    def read(
        self, file: OpenFile, offset: int, size: int, *, looked: bool = False
    ) -> Read | Coroutine[Any, Any, Read]:
        """Return up to *size* bytes at *offset*, fewer only at the end of the file.

        What the pool has is returned at once; where some of it is missing, a coroutine that
        reads it from the backing file and returns the bytes. Nobody has to look at the file if
        somebody has just *looked*.
        """
        data, end = file.data, offset + size
        # The file may have grown behind the mount: a log that somebody follows.
        unsure = (end > data.size or self._mode == "none") and not looked
        if unsure and self._may_have_changed(file):
            if not file.inode.filesystem.local:
                return self._look_and_read(file, offset, size)
            data.notice(os.fstat(file.backing_fd))
        if data.apart:
            return self._read_apart(file, offset, size)
        end = min(end, data.size)
        if offset >= end:
            return b""
        page_size = self._page_size
        first, last = offset // page_size, (end - 1) // page_size + 1
        start = offset - first * page_size
        if self._trace is not None:
            self._trace.note(data.object_id, first, last - first)
        if (lane := data.grants.get(file.handle)) is not None:
            # The lane went on from where we were, and could not answer this.
            file.window.follow(*lane.follow(file.handle))
        most = self._fetcher.readahead if end < data.size else 0  # behind the end there is nothing
        ahead = file.window.advance(first, last, most // page_size) if most else None
        if lane is not None:
            lane.move(file.handle, last)
            lane.watch(file.handle, self._granter.edge(file))
        if last - first == 1:
            # Most reads, so that this does without lists.
            try:
                page = self._pool.get(data.object_id, first)
            except CorruptPage:  # which the pool has dropped; the backing file has the right bytes
                page = None
            if ahead is not None:
                self._fetcher.read_ahead(file, *ahead)
            if page is None:
                return self._read_rest(file, first, bytearray(page_size), {0}, offset, end)
            if self._granter.lane is not None:
                self._granter.hit(file)
            return page[start : start + end - offset]
        run, missing = data.get_run(first, last - first)
        if ahead is not None:
            self._fetcher.read_ahead(file, *ahead)
        if missing:
            return self._read_rest(file, first, run, set(missing), offset, end)
        if self._granter.lane is not None:
            self._granter.hit(file)
        return memoryview(run)[start : start + end - offset]

    # -- past the pool -----------------------------------------------------------------------

    async def _read_apart(self, file: OpenFile, offset: int, size: int) -> bytes:
        """Read past the pool what *file* was opened on, which may have no name any more."""
        fd, data = await self._files.reader(file), file.data
        found = (await self._executor.read_past(data.threads, fd, offset, size)).data
        if len(found) < min(size, data.size - offset):
            # It cannot be read to its end any more, and the kernel might take the rest for zeros.
            raise OSError(errno.ESTALE, "another file has taken the name", file.inode.name)
        return found

    async def _look_and_read(self, file: OpenFile, offset: int, size: int) -> Read:
        generation = file.data.generation
        asked = self._executor.asking()
        info = await self._executor.call(file.inode.filesystem, os.fstat, file.backing_fd)
        self._names.attrcache.update(file.inode, info, asked)
        if file.data.generation == generation:
            file.data.notice(info)
        found = self.read(file, offset, size, looked=True)
        return await found if isinstance(found, Coroutine) else found

    async def _read_rest(
        self, file: OpenFile, first: int, run: bytearray, missing: set[int], offset: int, end: int
    ) -> memoryview:
        seen = await self._fetcher.fill(file, first, run, missing)
        if file.data.apart and seen < end:
            return memoryview(await self._read_apart(file, offset, end - offset))
        # The file may have been truncated and extended while we waited.
        end = max(int(min(end, file.data.size, seen)), offset)
        start = first * self._page_size
        return memoryview(run)[offset - start : end - start]

    def _may_have_changed(self, file: OpenFile) -> bool:
        """Whether what is known of a file is older than it may be."""
        if self._mode == "always":
            return False
        old = time.monotonic() - file.data.looked >= self._believe
        return old or file.inode.filesystem.local
