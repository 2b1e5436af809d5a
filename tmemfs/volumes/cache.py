"""A cache volume: a backing directory whose file pages are kept in an ephemeral pool.

Reads come out of the pool; what is missing is read from the backing file and put there. Writes
go to the backing file before they are acknowledged, so that nothing is ever held here alone.

What keeps stale bytes out is in `tmemfs.volumes.filedata`.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Coroutine
from typing import Any

from tmemfs.config import CacheMode
from tmemfs.syscalls import (
    FALLOC_KEEP_SIZE,
    FALLOC_PUNCH_HOLE,
    FALLOC_ZERO_RANGE,
    fallocate,
    fstat_synced,
)
from tmemfs.tmem import INDEX_LIMIT, Pool
from tmemfs.volumes.backing import Backing, open_and_look
from tmemfs.volumes.filedata import FileData, stamp
from tmemfs.volumes.fills import Filler
from tmemfs.volumes.nodes import Node, NodeTable, look_open
from tmemfs.volumes.readahead import Window
from tmemfs.volumes.trace import Trace
from tmemfs.volumes.tree import Caller, Stat, Tree, inode_path

# What a backing file may be opened with. Not O_DIRECT: the buffers that FUSE hands over are not
# aligned. Not O_APPEND: what a mapping of such a file has changed would be appended, too.
_OPEN_FLAGS = os.O_ACCMODE | os.O_SYNC | os.O_DSYNC | os.O_NOATIME | os.O_NONBLOCK


class OpenFile:
    """One open of a file: for who may write a descriptor of the backing file, and the file's data.

    It stays open until the last of its `uses` has ended.
    """

    __slots__ = ("data", "fd", "flags", "node", "uses", "window", "wrote")

    def __init__(self, node: Node, fd: int, data: FileData, flags: int) -> None:
        self.node = node
        self.fd = fd
        self.data = data
        self.flags = flags
        self.wrote = False
        self.uses = 1
        self.window = Window()


class CacheVolume:
    """The directory *root_fd*, its file pages kept in *pool*, an ephemeral one.

    *local* says that the backing filesystem hardly ever makes us wait for names; *holds* that its
    inodes must be held to keep their numbers; *descriptors* is how many may be open for inodes
    (those of open files come on top). Names and attributes are
    the business of `tree`; what concerns the bytes of files is here. All errors are OSErrors.

    In the *mode* ``open`` pages are compared with the backing file at every open, and its end is
    looked for no more often than each *believe* seconds; ``none`` compares at every read, and
    ``always`` never. With *writeback* the kernel writes when it likes, and knows where a file ends.
    Up to *readahead* bytes are read ahead of who reads in order. Reads are noted in *trace*.
    """

    def __init__(
        self,
        root_fd: int,
        pool: Pool,
        *,
        local: bool,
        descriptors: int,
        holds: bool = False,
        mode: CacheMode = "open",
        believe: float = 0,
        writeback: bool = False,
        readahead: int = 0,
        trace: Trace | None = None,
    ) -> None:
        self.backing = Backing(local=local)
        self.nodes = NodeTable(root_fd, descriptors, holds=holds)
        self.tree = Tree(
            self.nodes, self.backing, changed=self._attributes_changed, leaving=self._leaving
        )
        self.mode = mode
        self.writeback = writeback
        # More would push out what it has just brought where the budget is small.
        readahead = min(readahead, 4 * pool.arena.segment_size)
        self.filler = Filler(self.backing, pool.page_size, readahead, self._reader, self._let_go)
        self.open_files = 0
        self._pool = pool
        self._page_size = pool.page_size
        self._believe = believe
        self._trace = trace

    def close(self) -> None:
        """Close every descriptor; the pool stays as it is."""
        self.nodes.close()
        if self._trace is not None:
            self._trace.close()

    def statistics(self) -> dict[str, int]:
        """Return the volume's counters, and how much it has open, plain numbers by name."""
        return {
            **self.backing.counters.as_dict(),
            "open_files": self.open_files,
            "known_inodes": len(self.nodes),
            "open_descriptors": self.nodes.open_descriptors,
            "threads_waiting": self.backing.waiting,
        }

    # -- opening -----------------------------------------------------------------------------

    async def open(self, node: Node, flags: int) -> tuple[OpenFile, bool]:
        """Open a file; return it, and whether the kernel may keep the pages it has of it.

        Who only reads gets no descriptor before one is needed, if the pool has pages of the file:
        to open it may take as long as to read it.
        """
        access = flags & os.O_ACCMODE
        if access == os.O_RDONLY and flags & os.O_TRUNC:
            # Such an open may cut the file, which a descriptor for reading only cannot.
            flags |= os.O_RDWR
        elif access == os.O_WRONLY and self.writeback:
            # The kernel reads what is around a part of a page before it keeps the page.
            flags ^= os.O_WRONLY | os.O_RDWR
        async with self.tree.reach(node) as fd:
            if flags & os.O_ACCMODE == os.O_RDONLY:
                return await self._open_to_read(node, fd, flags)
            opened, info = await self.backing.call(
                open_and_look, inode_path(fd), flags & _OPEN_FLAGS
            )
            file, keep = self._attach(node, opened, info, flags)
        if flags & os.O_TRUNC:
            try:
                await self.truncate(file, 0)
                node.told = 0
            except BaseException:
                await self.release(file)
                raise
        return file, keep

    async def create(
        self, parent: Node, name: bytes, mode: int, flags: int, caller: Caller
    ) -> tuple[OpenFile, Stat]:
        """Make a file that belongs to *caller* and open it; return it and its attributes."""
        if flags & os.O_ACCMODE == os.O_WRONLY and self.writeback:
            flags ^= os.O_WRONLY | os.O_RDWR
        extra = flags & os.O_EXCL
        fd = await self.tree.create(parent, name, mode, flags & _OPEN_FLAGS | extra, caller)
        try:
            # By the descriptor: the name may be another file's by now.
            info, handle = await self.backing.call(look_open, fd)
        except BaseException:
            os.close(fd)
            raise
        file, _ = self._attach(self.nodes.learn(parent, name, info, handle), fd, info, flags)
        return file, info

    async def release(self, file: OpenFile) -> None:
        """Close one open of a file."""
        await self._let_go(file)

    # -- bytes -------------------------------------------------------------------------------

    def read(
        self, file: OpenFile, offset: int, size: int
    ) -> bytes | memoryview | Coroutine[Any, Any, bytes | memoryview]:
        """Return up to *size* bytes at *offset*, fewer only at the end of the file.

        What the pool has is returned at once; where some of it is missing, a coroutine that
        reads it from the backing file and returns the bytes.
        """
        data = file.data
        # The file may have grown behind our back: a log that somebody follows.
        if (offset + size > data.size or self.mode == "none") and self._may_have_changed(data):
            if not self.backing.local:
                return self._look_and_read(file, offset, size)
            data.notice(os.fstat(self._looker(file)))
        return self._read(file, offset, size)

    def _read(
        self, file: OpenFile, offset: int, size: int
    ) -> bytes | memoryview | Coroutine[Any, Any, bytes | memoryview]:
        data = file.data
        end = min(offset + size, data.size)
        if offset >= end:
            return b""
        page_size = self._page_size
        first = offset // page_size
        start = offset - first * page_size
        last = (end - 1) // page_size + 1
        if self._trace is not None:
            self._trace.note(data.object_id, first, last - first)
        if last - first == 1:
            page = data.get_page(first)
            if self.filler.readahead:
                self.filler.look_ahead(file, first, last)
            if page is not None:
                return page[start : start + end - offset]
            return self._read_rest(file, first, [None], offset, end)
        pages = data.get(first, last - first)
        if self.filler.readahead:
            self.filler.look_ahead(file, first, last)
        if None in pages:
            return self._read_rest(file, first, pages, offset, end)
        return memoryview(b"".join(pages))[start : start + end - offset]  # type: ignore[arg-type]

    async def _look_and_read(self, file: OpenFile, offset: int, size: int) -> bytes | memoryview:
        file.data.notice(await self.backing.call(os.fstat, self._looker(file)))
        found = self._read(file, offset, size)
        return await found if isinstance(found, Coroutine) else found

    async def _read_rest(
        self, file: OpenFile, first: int, pages: list[bytes | None], offset: int, end: int
    ) -> memoryview:
        await self.filler.fill(file, first, pages)
        # Somebody may have cut the file meanwhile.
        end = max(min(end, file.data.size), offset)
        start = first * self._page_size
        return memoryview(b"".join(pages))[offset - start : end - start]  # type: ignore[arg-type]

    async def write(self, file: OpenFile, offset: int, buf: bytes) -> int:
        """Write *buf* at *offset* of the backing file; return how much was written."""
        data, page_size = file.data, self._page_size
        first = offset // page_size
        count = (offset + len(buf) - 1) // page_size + 1 - first
        file.wrote = True
        # The kernel turns O_APPEND into an offset, the end of the file as far as it knows; behind
        # the mount the file may have grown. Elsewhere than there, it writes back a mapping.
        at_end = file.flags & os.O_APPEND and offset == file.node.told
        flags = os.RWF_APPEND if at_end and not self.writeback else 0
        before, after = data.edges(offset, offset + len(buf))
        with data.change(first, count) as ours:
            size = max(data.size, offset + len(buf))
            ours.made = await self.backing.write(data.threads, file.fd, buf, offset, flags)
        written = ours.made.written
        file.node.told = max(file.node.told, offset + written)
        if ours.alone and data.size == size:
            # Nothing else has run since the write, so that these are the newest bytes.
            whole = written == len(buf)
            data.put_written(offset, buf[:written], before, after if whole else None)
        elif ours.alone:
            # Somebody else has cut or extended the file, and who knows what more.
            data.lose(ours.made.after)
        return written

    async def truncate(self, file: OpenFile, size: int) -> None:
        """Cut or extend a file to *size* bytes."""
        first = min(size, file.data.size) // self._page_size
        file.wrote = True
        with file.data.change(first, INDEX_LIMIT - first) as ours:
            ours.made = await self.backing.change(file.data.threads, os.ftruncate, file.fd, size)

    async def fallocate(self, file: OpenFile, mode: int, offset: int, length: int) -> None:
        """Allocate, punch out or zero a range of a file; see fallocate(2).

        Raises EOPNOTSUPP for modes that move what is behind the range.
        """
        if mode & ~(FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE | FALLOC_ZERO_RANGE):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        end = offset + length
        first = offset // self._page_size
        count = (end - 1) // self._page_size + 1 - first
        file.wrote = True
        with file.data.change(first, count) as ours:
            ours.made = await self.backing.change(
                file.data.threads, fallocate, file.fd, mode, offset, length
            )
        if not mode & FALLOC_KEEP_SIZE:
            file.node.told = max(file.node.told, end)

    async def fsync(self, file: OpenFile, datasync: bool) -> None:
        """Let what was written reach the backing file's disk."""
        sync = os.fdatasync if datasync else os.fsync
        fd = file.fd if file.fd >= 0 else await self._reader(file)
        await self.backing.wait(file.data.threads, sync, fd)

    async def sync_directory(self, node: Node) -> None:
        """Let a directory's names reach the backing disk."""
        async with self.tree.reach(node) as fd:
            await self.backing.wait(self.backing.limiter(), _sync_directory, inode_path(fd))

    async def flush(self, file: OpenFile) -> None:
        """One of the file's descriptors was closed: the last chance to report a late error."""
        if file.wrote and not self.backing.local:
            # A network filesystem tells of failed writes when a descriptor is closed.
            await self.backing.wait(file.data.threads, lambda: os.close(os.dup(file.fd)))

    def observe(self, node: Node, info: Stat) -> None:
        """Take note of attributes that the kernel is told."""
        node.told = info.st_size
        if node.data is not None:
            node.data.notice(info)

    # -- inside ------------------------------------------------------------------------------

    def _attach(self, node: Node, fd: int, info: Stat, flags: int) -> tuple[OpenFile, bool]:
        if node.data is None:
            node.data = FileData(
                self._pool, node.object_id, self.backing, checks=self.mode != "always"
            )
        kept = node.data.opened(info)
        node.pin()
        self.open_files += 1
        return OpenFile(node, fd, node.data, flags), kept

    async def _open_to_read(self, node: Node, fd: int, flags: int) -> tuple[OpenFile, bool]:
        """Open the file of *node*, which *fd* is open on, for who only reads it."""
        known = node.data is not None or self._pool.stamp(node.object_id)
        opened = -1
        if self.mode == "always" and known:
            info = await self.backing.call(os.fstat, fd)
        elif known:
            info = await self.backing.call(fstat_synced, fd)
        else:
            opened, info = await self.backing.call(
                open_and_look, inode_path(fd), flags & _OPEN_FLAGS
            )
        file, keep = self._attach(node, -1, info, flags)
        self._take_reader(file.data, opened)
        if not keep and known:
            try:
                await self._reader(file)  # whether it can be opened at all is to be told now
            except BaseException:
                await self._let_go(file)
                raise
        return file, keep

    async def _reader(self, file: OpenFile) -> int:
        """Return a descriptor by which the file can be read."""
        if file.fd >= 0 and file.flags & os.O_ACCMODE == os.O_RDWR:
            return file.fd
        data = file.data
        if data.fd < 0:
            flags = file.flags & _OPEN_FLAGS & ~os.O_ACCMODE
            async with self.tree.reach(file.node) as fd:
                opened, _ = await self.backing.call(open_and_look, inode_path(fd), flags)
            self._take_reader(data, opened)
        return data.fd

    def _take_reader(self, data: FileData, fd: int) -> None:
        if data.fd < 0:
            data.fd = fd
        elif fd >= 0:  # somebody else was quicker
            os.close(fd)

    def _looker(self, file: OpenFile) -> int:
        """Return a descriptor by which the attributes of an open file can be had."""
        return next(fd for fd in (file.fd, file.data.fd, file.node.fd) if fd >= 0)

    async def _let_go(self, file: OpenFile) -> None:
        """End one use of an open file; it is closed with the last."""
        file.uses -= 1
        if file.uses:
            return
        data = file.data
        data.closed()
        open_fds = [file.fd]
        if not data.opens:
            file.node.data = None
            open_fds.append(data.fd)
        file.node.unpin()
        self.open_files -= 1
        for fd in open_fds:
            if fd >= 0:
                await self.backing.call(os.close, fd)

    async def _leaving(self, node: Node) -> None:
        """A name of *node* goes; who has it open must be able to read on without it."""
        # Where the filesystem is local its inode will do for that.
        if node.data is not None and node.data.fd < 0 and not self.backing.local:
            async with self.tree.reach(node) as fd:
                opened, _ = await self.backing.call(open_and_look, inode_path(fd), os.O_RDONLY)
            self._take_reader(node.data, opened)

    def _may_have_changed(self, data: FileData) -> bool:
        """Whether what is known of a file is older than it may be."""
        if self.mode == "always":
            return False
        return self.backing.local or time.monotonic() - data.looked >= self._believe

    def _attributes_changed(self, node: Node, before: Stat, after: Stat) -> None:
        """An operation of ours on a name changed the file's times: no reason to lose its pages."""
        # Unless it is the modification time: behind that, somebody else's change may hide.
        ours = (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
        if node.data is not None:
            node.data.unlinked = not after.st_nlink
            if ours:
                node.data.restamp(before, after)
        elif not after.st_nlink:
            self._pool.flush_object(node.object_id)
        elif ours and self._pool.stamp(node.object_id) == stamp(before):
            self._pool.set_stamp(node.object_id, stamp(after))


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
