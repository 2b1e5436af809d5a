"""What the lane may do of open files, if there is one (`tmemfs.native.lane`), and what it tells.

A file that is read from memory again and again is granted to it, and so is one that is open for
writing where a disk of this machine has it. What the lane reads is not seen here, as long as all of
it is in memory; what it has written is heard of before the next request is served.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from tmemfs.cachefs.fetch import Fetcher
from tmemfs.cachefs.shared import OpenFile
from tmemfs.native.lane import NEVER, Lane, Written
from tmemfs.tmem import Pool

# So many reads from memory are worth a grant: most files are read once and closed.
_HITS = 2
_SET_IDS = 0o6000


class Granter:
    """Grants open files whose pages are in *pool*, and which *fetcher* reads ahead of.

    Writes, too, if the lane *may write*.
    """

    def __init__(self, pool: Pool, fetcher: Fetcher, *, may_write: bool) -> None:
        self.lane: Lane | None = None
        """None where there is none, or each request has to be seen"""
        self._pool = pool
        self._page_size = pool.page_size
        self._fetcher = fetcher
        self._may_write = may_write
        self.files: dict[int, OpenFile] = {}
        """those that were granted, by the kernel's handle"""

    def opened(self, file: OpenFile) -> None:
        """Take note that a file has its handle."""
        if self.lane is not None and self._fd(file) >= 0:
            file.wrote = True  # from now on it may, and nothing is heard of it
            self._grant(self.lane, file)

    def closed(self, file: OpenFile) -> None:
        """Take note that its handle is nobody's any more."""
        self.files.pop(file.handle, None)
        if (lane := file.data.grants.pop(file.handle, None)) is not None:
            lane.revoke(file.handle)

    def hit(self, file: OpenFile) -> None:
        """Count a read from memory, and grant the file if that is worth it."""
        lane = self.lane
        if lane is None or not file.handle or file.handle in file.data.grants:
            return
        file.hits += 1
        if file.hits >= _HITS:
            file.hits = 0
            self._grant(lane, file)

    def edge(self, file: OpenFile) -> int:
        """How far the lane may answer before it has to note that somebody reads in order."""
        return file.window.turn if self._fetcher.readahead else NEVER

    def noted(self, handle: int, first: int, last: int, in_order: bool) -> None:
        """Read ahead of who has read the pages *first* to *last* (excluded) by the lane.

        They may have gone on since, and have been seen here; *in_order* after what was seen before.
        """
        file, most = self.files.get(handle), self._fetcher.readahead // self._page_size
        if file is None or (lane := file.data.grants.get(handle)) is None:
            return
        if most and last > file.window.next:
            file.window.follow(first, in_order)
            ahead = file.window.advance(first, last, most)
            if ahead is not None:
                self._fetcher.read_ahead(file, *ahead)
        lane.watch(file.handle, self.edge(file))

    def heard(self) -> Iterator[tuple[OpenFile, Written]]:
        """Yield what the lane has written by now; each is settled when the next is asked for.

        Not what it writes meanwhile: that would never end beside who writes without end.
        """
        if (lane := self.lane) is None:
            return
        for _ in range(lane.unsettled()):
            written = lane.written()
            if written and (file := self.files.get(written.handle)) is not None:
                yield file, written
            lane.settle()

    def _grant(self, lane: Lane, file: OpenFile) -> None:
        data = file.data
        lane.grant(
            file.handle,
            self._pool.objects.native,
            data.object_id,
            self._page_size,
            data.size,
            position=file.window.next,
            edge=self.edge(file),
            fd=self._fd(file),
        )
        data.grants[file.handle] = lane
        self.files[file.handle] = file

    def _fd(self, file: OpenFile) -> int:
        """By which the lane may write a file; -1 where each write has to be seen.

        At the end of a file, wherever that is by now, and where set-ID bits have to go or to stay:
        that is more than it knows.
        """
        on, info = file.inode.filesystem, file.data.info
        if file.fd < 0 or not self._may_write or not on.local or on.by_path:
            return -1
        if file.flags & os.O_APPEND or info is None or info.st_mode & _SET_IDS:
            return -1
        return file.fd
