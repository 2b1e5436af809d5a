"""Opens and closes backing files: as the caller, within a quota, in a thread if it may block."""

from __future__ import annotations

import os

from tmemfs.cachefs.inode import Inode
from tmemfs.cachefs.quota import Quota
from tmemfs.cachefs.source import opening
from tmemfs.cachefs.source.executor import Block, Executor
from tmemfs.linux.credentials import Caller


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
