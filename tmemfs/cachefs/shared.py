"""Finds the `FileData` that all who have a file open share, also where files go by path.

There another file may take the name of one that is open, and the inode number with it. What is open
is set apart then, and the new file gets data of its own.
"""

from __future__ import annotations

from tmemfs.cachefs.inode import Inode
from tmemfs.cachefs.pages import FileData
from tmemfs.cachefs.source.executor import Executor
from tmemfs.cachefs.source.routes import Stat
from tmemfs.tmem import Pool

Name = tuple[Inode | None, bytes]
"""a directory, and a name in it"""


class SharedData:
    """The data of the files that are open, their pages in *pool*; see `FileData` for *checks*."""

    def __init__(self, pool: Pool, executor: Executor, *, checks: bool) -> None:
        self._pool = pool
        self._executor = executor
        self._checks = checks
        # Where files go by path: what was opened last by a name, and is open.
        self._named: dict[Name, FileData] = {}

    def attach(self, inode: Inode, info: Stat) -> FileData:
        """Return the data of a file that is being opened, and is as *info* has it."""
        data: FileData | None = inode.data
        if data is not None:
            data.notice(info)
        on = inode.filesystem
        if not on.by_path:
            if data is None:
                data = FileData(self._pool, inode.object_id, self._executor, checks=self._checks)
                inode.data = data
            return data
        name = inode.parent, inode.name
        before = self._before(name)
        if before is not None and before is not data:
            # Another file had the name, and its descriptors lead where the name does.
            before.set_apart()
        if data is None or data.apart:
            data = inode.data = FileData(
                self._pool,
                inode.object_id,
                self._executor,
                checks=self._checks,
                by_path=True,
                before=before,
            )
        self._named[name] = data
        data.named = inode, name
        return data

    def left(self, inode: Inode, data: FileData) -> None:
        """Take note that nobody has *data*, of *inode*, open any more."""
        older = data.older
        name = data.named and data.named[1]
        if name and self._named.get(name) is data:
            if older is not None:
                self._named[name] = older
            else:
                del self._named[name]
        if inode.data is data:
            inode.data = older if older and older.object_id == data.object_id else None
        if data.apart and inode.data is not None:
            inode.data.mixed()
        elif data.apart:
            # The kernel may have pages of what was set apart, which the next open has to drop.
            self._pool.set_stamp(inode.object_id, 0)

    def _before(self, name: Name) -> FileData | None:
        """What is open that had that *name* last, unless we have taken the name from it."""
        data = self._named.get(name)
        if data is None or data.unlinked:
            return None
        inode, _ = data.named
        return data if (inode.parent, inode.name) == name else None
