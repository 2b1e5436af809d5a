"""Opens and closes backing files: as the caller, within a quota, in a thread if it may block."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Hashable

from tmemfs.cachefs.inode import Inode
from tmemfs.cachefs.source import opening
from tmemfs.cachefs.source.executor import Block, Executor
from tmemfs.linux.credentials import Caller


class TooManyOpen(OSError):
    """Others need the descriptors that are left: an answer, and nothing to wait for."""


class Quota:
    """Up to *limit* descriptors, of which no user but root may have more than a half.

    What is counted is a descriptor, or a file that is going to have one.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._owners: dict[Hashable, int] = {}
        self._owned: Counter[int] = Counter()

    def __contains__(self, what: Hashable) -> bool:
        return what in self._owners

    def admit(self, caller: Caller) -> None:
        """Raise ENFILE where *caller* would take the last descriptors from others."""
        uid, count = caller.uid, len(self._owners)
        if count >= self._limit or (uid and self._owned[uid] >= self._limit // 2):
            raise TooManyOpen(errno.ENFILE, os.strerror(errno.ENFILE))

    def charge(self, what: Hashable, caller: Caller) -> None:
        """Count *what* as *caller*'s."""
        self._owners[what] = caller.uid
        self._owned[caller.uid] += 1

    def release(self, what: Hashable) -> None:
        """Count *what* no more, if it was."""
        uid = self._owners.pop(what, None)
        if uid is not None:
            self._owned[uid] -= 1


class BackingFiles:
    """Opens and closes backing files by calls of *executor*, up to *limit* of them."""

    def __init__(self, executor: Executor, limit: int) -> None:
        self.quota = Quota(limit)
        self._executor = executor

    async def open(
        self, inode: Inode, flags: int, wanted: int, caller: Caller
    ) -> tuple[int, Block]:
        """Open a file as *caller*, and read it if it is no larger than *wanted*.

        Returns the descriptor, and what was read and seen. Raises ENFILE beyond the quota.
        """
        self.quota.admit(caller)
        return await self.open_admitted(inode, flags, wanted, caller)

    async def open_admitted(
        self, inode: Inode, flags: int, wanted: int, caller: Caller
    ) -> tuple[int, Block]:
        """As `open`, for a descriptor that has its place in the quota."""
        opened, block = await self._open(inode, flags | self._executor.noatime, wanted, caller)
        self.quota.charge(opened, caller)
        return opened, block

    async def close(self, inode: Inode, fd: int, *, wrote: bool = False) -> None:
        """Close *fd*: in a thread where that may have to write, or free what is in the file."""
        self.quota.release(fd)
        on = inode.filesystem
        writes = wrote and self._executor.serves_swap
        if on.local and not writes and os.fstat(fd).st_nlink:
            os.close(fd)
        else:
            await self._executor.ask(on, os.close, fd)

    async def _open(
        self, inode: Inode, flags: int, wanted: int, caller: Caller
    ) -> tuple[int, Block]:
        if not inode.filesystem.local:
            return await inode.call(opening.open_and_read, flags, wanted, caller)
        async with inode.open() as fd:
            try:
                return opening.open_at_once(fd, flags, caller)
            except BlockingIOError:
                return await self._executor.ask(
                    inode.filesystem, opening.open_and_read, fd, flags, wanted, caller
                )
