"""An open file, and the `FileData` that all who have it open share, also where files go by path.

There another file may take the name of one that is open, and the inode number with it. What is open
is set apart then, and the new file gets data of its own.
"""

from __future__ import annotations

from tmemfs.cachefs.inode import Inode
from tmemfs.cachefs.pages import FileData
from tmemfs.cachefs.source.executor import Executor
from tmemfs.cachefs.source.routes import Stat
from tmemfs.linux.credentials import Caller
from tmemfs.tmem import Pool

Name = tuple[Inode | None, bytes]
"""a directory, and a name in it"""


_SMALLEST_WINDOW = 8  # pages


class Window:
    """What one open of a file has read of late, in pages: how far to read ahead of it.

    It starts small and doubles each time it moves on; one read elsewhere closes it. It moves on
    when half of it has been read, so that what comes next is there before it is asked for.
    """

    __slots__ = ("_edge", "_size", "next")

    def __init__(self) -> None:
        self.next = 0
        """the page behind the last one that was read"""
        self._edge = 0
        """as far as it has been read ahead"""
        self._size = 0

    @property
    def size(self) -> int:
        """How many pages it reaches ahead; 0 while reads are not in order."""
        return self._size

    @property
    def turn(self) -> int:
        """The page behind which a read in order would move it on."""
        return self._edge - self._size // 2 if self._size else 0

    def follow(self, position: int, in_order: bool) -> None:
        """Take note of reads up to a page (excluded), all of them in order or not."""
        if not in_order:
            self._edge, self._size = position, 0
        self.next, self._edge = position, max(self._edge, position)

    def advance(self, first: int, last: int, most: int) -> tuple[int, int] | None:
        """Note a read of the pages *first* to *last* (excluded); return what to read ahead, if any.

        That are the pages from one to another (excluded), at most *most* of them at once.
        """
        count = last - first
        # Requests of one reader may pass each other by one; a page may be read in parts.
        if not self.next - count - 1 <= first <= max(self._edge, self.next):
            self.next = self._edge = last
            self._size = 0
            return None
        self.next = max(self.next, last)
        if self._size and self._edge - self.next >= self._size // 2:
            return None
        self._size = min(max(2 * self._size, 2 * count, _SMALLEST_WINDOW), most)
        start = max(self._edge, self.next)
        self._edge = max(self.next + self._size, start)
        return (start, self._edge) if self._edge > start else None


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
