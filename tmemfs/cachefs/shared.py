"""An open file, and the `FileData` that all who have it open share, also where files go by path.

There another file may take the name of one that is open, and the inode number with it. What is open
is set apart then, and the new file gets data of its own.
"""

from __future__ import annotations

from tmemfs.cachefs.inode import Inode
from tmemfs.cachefs.pages import FileData
from tmemfs.cachefs.readahead import Window
from tmemfs.cachefs.source.executor import Executor
from tmemfs.cachefs.source.routes import Stat
from tmemfs.linux.credentials import Caller
from tmemfs.tmem import Pool

Name = tuple[Inode | None, bytes]
"""a directory, and a name in it"""


class OpenFile:
    """One open of a file by *caller*: for who may write a descriptor of the backing file, and data.

    It stays open until the last of its `uses` has ended.
    """

    __slots__ = (
        *("caller", "data", "direct", "fd", "flags", "handle", "hits"),
        *("inode", "needs_flush", "uses", "window", "wrote"),
    )

    def __init__(self, inode: Inode, fd: int, data: FileData, flags: int, caller: Caller) -> None:
        self.inode = inode
        self.fd = fd
        self.data = data
        self.flags = flags
        self.caller = caller
        self.direct = data.mixes
        """whether it must not share the kernel's pages with others who have it open"""
        self.needs_flush = fd >= 0 and not inode.filesystem.local
        """whether a close of a descriptor may have something to tell (`CacheVolume.flush`)"""
        self.handle = 0
        """the kernel's number for it, once it has one"""
        self.hits = 0
        """reads from memory since it could have been granted to the lane"""
        self.wrote = False
        self.uses = 1
        self.window = Window()

    @property
    def backing_fd(self) -> int:
        """A descriptor by which the file's attributes can be had."""
        return self.fd if self.fd >= 0 else self.data.fd if self.data.fd >= 0 else self.inode.fd


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
