"""A cache volume: a backing directory whose file pages are kept in an ephemeral pool.

Reads come out of the pool; what is missing is read from the backing file and put there. Writes
go to the backing file before they are acknowledged, so that nothing is ever held here alone.

What keeps stale bytes out is in `tmemfs.volumes.filedata`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Coroutine
from typing import Any

import trio

from tmemfs.syscalls import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, fallocate
from tmemfs.tmem import INDEX_LIMIT, Pool
from tmemfs.volumes.filedata import FileData, stamp
from tmemfs.volumes.nodes import Node, NodeTable, look_open
from tmemfs.volumes.tree import Caller, Stat, Tree, inode_path

# What a backing file may be opened with. Not O_DIRECT: the buffers that FUSE hands over are not
# aligned. Not O_APPEND: what a mapping of such a file has changed would be appended, too.
_OPEN_FLAGS = os.O_ACCMODE | os.O_SYNC | os.O_DSYNC | os.O_NOATIME | os.O_NONBLOCK


class OpenFile:
    """One open of a file: a descriptor of the backing file, and the file's data."""

    __slots__ = ("appends", "data", "fd", "node", "wrote")

    def __init__(self, node: Node, fd: int, data: FileData, flags: int) -> None:
        self.node = node
        self.fd = fd
        self.data = data
        self.appends = bool(flags & os.O_APPEND)
        self.wrote = False


class CacheVolume:
    """The directory *root_fd*, its file pages kept in *pool*, an ephemeral one.

    *local* says that the backing filesystem hardly ever makes us wait for names; *descriptors* is
    how many may be open for inodes (those of open files come on top). Names and attributes are
    the business of `tree`; what concerns the bytes of files is here. All errors are OSErrors.
    """

    def __init__(self, root_fd: int, pool: Pool, *, local: bool, descriptors: int) -> None:
        self.nodes = NodeTable(root_fd, descriptors)
        self.tree = Tree(self.nodes, local=local, changed=self._attributes_changed)
        self._pool = pool
        self._page_size = pool.page_size
        self._nowait = True

    def close(self) -> None:
        """Close every descriptor; the pool stays as it is."""
        self.nodes.close()

    # -- opening -----------------------------------------------------------------------------

    async def open(self, node: Node, flags: int) -> tuple[OpenFile, bool]:
        """Open a file; return it, and whether the kernel may keep the pages it has of it."""
        if flags & os.O_TRUNC and flags & os.O_ACCMODE == os.O_RDONLY:
            # Such an open may cut the file, which a descriptor for reading only cannot.
            flags |= os.O_RDWR
        with node as fd:
            opened = await self.tree.call(os.open, inode_path(fd), flags & _OPEN_FLAGS)
        file, keep = self._attach(node, opened, flags)
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
        extra = flags & os.O_EXCL
        fd = await self.tree.create(parent, name, mode, flags & _OPEN_FLAGS | extra, caller)
        try:
            # By the descriptor: the name may be another file's by now.
            info, handle = await self.tree.call(look_open, fd)
        except BaseException:
            os.close(fd)
            raise
        file, _ = self._attach(self.nodes.learn(parent, name, info, handle), fd, flags)
        return file, info

    async def release(self, file: OpenFile) -> None:
        """Close one open of a file."""
        file.data.closed(os.fstat(file.fd))
        if not file.data.opens:
            file.node.data = None
        file.node.__exit__(None, None, None)
        os.close(file.fd)

    # -- bytes -------------------------------------------------------------------------------

    def read(
        self, file: OpenFile, offset: int, size: int
    ) -> bytes | memoryview | Coroutine[Any, Any, memoryview]:
        """Return up to *size* bytes at *offset*, fewer only at the end of the file.

        What the pool has is returned at once; where some of it is missing, a coroutine that
        reads it from the backing file and returns the bytes.
        """
        data = file.data
        if offset + size > data.size:
            # The file may have grown behind our back: a log that somebody follows.
            data.notice(os.fstat(file.fd))
        end = min(offset + size, data.size)
        if offset >= end:
            return b""
        page_size = self._page_size
        first = offset // page_size
        start = offset - first * page_size
        if start + end - offset <= page_size:
            page = data.get_page(first)
            if page is not None:
                return page[start : start + end - offset]
            return self._read_rest(file, first, [None], offset, end)
        pages = data.get(first, (end - 1) // page_size + 1 - first)
        if None in pages:
            return self._read_rest(file, first, pages, offset, end)
        return memoryview(b"".join(pages))[start : start + end - offset]  # type: ignore[arg-type]

    async def _read_rest(
        self, file: OpenFile, first: int, pages: list[bytes | None], offset: int, end: int
    ) -> memoryview:
        await self._fill(file, first, pages)
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
        flags = os.RWF_APPEND if file.appends and offset == file.node.told else 0
        data.notice(os.fstat(file.fd))
        before, after = data.edges(offset, offset + len(buf))
        with data.change(file.fd, first, count):
            generation, size = data.generation, max(data.size, offset + len(buf))
            written = await trio.to_thread.run_sync(_write_all, file.fd, buf, offset, flags)
            alone = data.generation == generation
        file.node.told = max(file.node.told, offset + written)
        if alone and data.size == size:
            # From here to the put nothing else runs, so that these are the newest bytes.
            whole = written == len(buf)
            data.put_written(offset, buf[:written], before, after if whole else None)
        elif alone:
            # Somebody else has cut or extended the file, and who knows what more.
            data.lose(os.fstat(file.fd))
        return written

    async def truncate(self, file: OpenFile, size: int) -> None:
        """Cut or extend a file to *size* bytes."""
        file.data.notice(os.fstat(file.fd))
        first = min(size, file.data.size) // self._page_size
        file.wrote = True
        with file.data.change(file.fd, first, INDEX_LIMIT - first):
            await trio.to_thread.run_sync(os.ftruncate, file.fd, size)

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
        file.data.notice(os.fstat(file.fd))
        with file.data.change(file.fd, first, count):
            await trio.to_thread.run_sync(fallocate, file.fd, mode, offset, length)
        if not mode & FALLOC_KEEP_SIZE:
            file.node.told = max(file.node.told, end)

    async def fsync(self, file: OpenFile, datasync: bool) -> None:
        """Let what was written reach the backing file's disk."""
        await trio.to_thread.run_sync(os.fdatasync if datasync else os.fsync, file.fd)

    async def sync_directory(self, node: Node) -> None:
        """Let a directory's names reach the backing disk."""
        with node as fd:
            opened = await self.tree.call(os.open, inode_path(fd), os.O_RDONLY | os.O_DIRECTORY)
        try:
            await trio.to_thread.run_sync(os.fsync, opened)
        finally:
            os.close(opened)

    async def flush(self, file: OpenFile) -> None:
        """One of the file's descriptors was closed: the last chance to report a late error."""
        if file.wrote and not self.tree.local:
            # A network filesystem tells of failed writes when a descriptor is closed.
            await trio.to_thread.run_sync(lambda: os.close(os.dup(file.fd)))

    def observe(self, node: Node, info: Stat) -> None:
        """Take note of attributes that the kernel is told."""
        node.told = info.st_size
        if node.data is not None:
            node.data.notice(info)

    # -- filling the pool --------------------------------------------------------------------

    async def _fill(self, file: OpenFile, first: int, pages: list[bytes | None]) -> None:
        """Read what is None in *pages*, which start at page *first*, from the backing file."""
        data, page_size = file.data, self._page_size
        low = pages.index(None)
        high = len(pages) - pages[::-1].index(None)
        generation = data.generation
        start = (first + low) * page_size
        block = await self._read_backing(file, start, (high - low) * page_size)
        data.notice(os.fstat(file.fd))
        filled = block.ljust((high - low) * page_size, b"\0")
        pages[low:high] = [filled[at : at + page_size] for at in range(0, len(filled), page_size)]
        if data.generation == generation and not data.changing and block:
            data.put(first + low, filled)

    async def _read_backing(self, file: OpenFile, offset: int, size: int) -> bytes:
        """Return *size* bytes at *offset* of the backing file, fewer only at its end."""
        if self._nowait:
            buffer = bytearray(min(size, max(file.data.size - offset, 0)))
            try:
                if os.preadv(file.fd, [buffer], offset, os.RWF_NOWAIT) == len(buffer):
                    _drop(file.fd, offset, size)
                    return bytes(buffer)
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
                self._nowait = False
        return await trio.to_thread.run_sync(_read_all, file.fd, offset, size)

    # -- inside ------------------------------------------------------------------------------

    def _attach(self, node: Node, fd: int, flags: int) -> tuple[OpenFile, bool]:
        if node.data is None:
            node.data = FileData(self._pool, node.object_id)
        kept = node.data.opened(os.fstat(fd))
        node.__enter__()
        return OpenFile(node, fd, node.data, flags), kept

    def _attributes_changed(self, node: Node, before: Stat, after: Stat) -> None:
        """An operation of ours on a name changed the file's times: no reason to lose its pages."""
        # Unless it is the modification time: behind that, somebody else's change may hide.
        ours = (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
        if node.data is not None:
            if ours:
                node.data.restamp(before, after)
        elif not after.st_nlink:
            self._pool.flush_object(node.object_id)
        elif ours and self._pool.stamp(node.object_id) == stamp(before):
            self._pool.set_stamp(node.object_id, stamp(after))


def _read_all(fd: int, offset: int, size: int) -> bytes:
    block = os.pread(fd, size, offset)
    # Fewer bytes are not the end yet where the filesystem is on a network.
    while 0 < len(block) < size and (more := os.pread(fd, size - len(block), offset + len(block))):
        block += more
    _drop(fd, offset, len(block))
    return block


def _write_all(fd: int, buf: bytes, offset: int, flags: int) -> int:
    written = os.pwritev(fd, [buf], offset, flags)
    while written < len(buf):
        try:
            written += os.pwritev(fd, [buf[written:]], offset + written, flags)
        except OSError:
            break
    return written


def _drop(fd: int, offset: int, size: int) -> None:
    """Let the kernel forget its own copy of what the pool now has: two copies are enough."""
    with contextlib.suppress(OSError):
        os.posix_fadvise(fd, offset, size, os.POSIX_FADV_DONTNEED)
