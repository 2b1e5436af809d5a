"""Open files: who has which open, and by which descriptors of the backing file they are served.

Who may write has a descriptor of their own. All who only read a file share one, and that is opened
only when something is missing in the pool: over a network an open takes as long as a read.
"""

from __future__ import annotations

import contextlib
import os

import trio

from tmemfs.credentials import Caller, as_caller, ourselves
from tmemfs.syscalls import fstat_synced
from tmemfs.tmem import Pool
from tmemfs.volumes.backing import Asked, Backing, Block, Stat, read_block
from tmemfs.volumes.calls import inode_path
from tmemfs.volumes.filedata import FileData
from tmemfs.volumes.nodes import Node
from tmemfs.volumes.readahead import Window
from tmemfs.volumes.routes import look_open
from tmemfs.volumes.stamps import stamp
from tmemfs.volumes.tree import Tree

# What a backing file may be opened with. Not O_DIRECT: the buffers that FUSE hands over are not
# aligned. Not O_APPEND: what a mapping of such a file has changed would be appended, too.
_OPEN_FLAGS = os.O_ACCMODE | os.O_SYNC | os.O_DSYNC | os.O_NOATIME | os.O_NONBLOCK


# A file of so many bytes is read as soon as it is opened where each of the two is a journey over a
# network, and a thread's work here: hardly anybody opens a small file for anything else.
SMALL = 64 << 10
# So often an open looks at a file that is being written through us, before it gives up to see it
# at rest.
_LOOKS = 3


class OpenFile:
    """One open of a file by *caller*: for who may write a descriptor of the backing file, and data.

    It stays open until the last of its `uses` has ended.
    """

    __slots__ = ("caller", "data", "fd", "flags", "node", "uses", "window", "wrote")

    def __init__(self, node: Node, fd: int, data: FileData, flags: int, caller: Caller) -> None:
        self.node = node
        self.fd = fd
        self.data = data
        self.flags = flags
        self.caller = caller
        self.wrote = False
        self.uses = 1
        self.window = Window()

    @property
    def looker(self) -> int:
        """A descriptor by which the file's attributes can be had."""
        return next(fd for fd in (self.fd, self.data.fd, self.node.fd) if fd >= 0)


class OpenFiles:
    """Opens and closes the files of *tree*, whose pages are in *pool*.

    Unless it *checks*, the pages that are there are believed; with *writeback* the kernel decides
    what is written when, and reads what it needs for that.
    """

    def __init__(
        self, tree: Tree, backing: Backing, pool: Pool, *, checks: bool, writeback: bool
    ) -> None:
        self.count = 0
        """how many files are open"""
        self._tree = tree
        self._backing = backing
        self._pool = pool
        self._checks = checks
        self._writeback = writeback

    async def open(self, node: Node, flags: int, caller: Caller) -> tuple[OpenFile, bool]:
        """Open a file as *caller*; return it, and whether the kernel may keep its pages of it."""
        access = flags & os.O_ACCMODE
        if access == os.O_RDONLY and flags & os.O_TRUNC:
            # Such an open may cut the file, which a descriptor for reading only cannot.
            flags |= os.O_RDWR
        flags = self._access(flags)
        if flags & os.O_ACCMODE == os.O_RDONLY:
            return await self._open_to_read(node, flags, caller)
        try:
            opened, block, asked = await self._open(node, flags, 0, caller)
        except PermissionError:
            if flags & os.O_ACCMODE == access:
                raise
            # They may write and not read: what the kernel needs of the file, we read.
            flags = flags & ~os.O_ACCMODE | access
            opened, block, asked = await self._open(node, flags, 0, caller)
        return self._attach(node, opened, block.info, flags, asked, caller)

    async def create(
        self, parent: Node, name: bytes, mode: int, flags: int, caller: Caller
    ) -> tuple[OpenFile, Stat]:
        """Make a file that belongs to *caller* and open it; return it and its attributes."""
        flags = self._access(flags)
        extra = flags & os.O_EXCL
        fd = await self._tree.create(parent, name, mode, flags & _OPEN_FLAGS | extra, caller)
        try:
            # By the descriptor: the name may be another file's by now.
            asked = self._backing.asking()
            look = await self._backing.call(parent.filesystem, look_open, fd)
        except BaseException:
            os.close(fd)
            raise
        node = self._tree.nodes.learn(parent, name, look, asked.changes)
        node.told = look.info.st_size
        return self._attach(node, fd, look.info, flags, asked, caller)[0], look.info

    async def reader(self, file: OpenFile) -> int:
        """Return a descriptor by which the file can be read."""
        if file.fd >= 0 and file.flags & os.O_ACCMODE == os.O_RDWR:
            return file.fd
        writes = file.flags & os.O_ACCMODE == os.O_WRONLY
        caller = ourselves() if writes else file.caller
        await self.open_data(file.node, file.data, file.flags, caller)
        return file.data.fd

    async def open_data(self, node: Node, data: FileData, flags: int, caller: Caller) -> None:
        """Open the descriptor that all readers share, unless it is open or nobody reads."""
        while data.fd < 0 and data.opens:
            if data.opening is not None:
                await data.opening.wait()
                continue
            data.opening = trio.Event()
            try:
                flags = flags & _OPEN_FLAGS & ~os.O_ACCMODE
                opened, _ = await self._open_file(node, flags, 0, caller)
                await self._share(node, data, opened)
            finally:
                data.opening.set()
                data.opening = None

    async def release(self, file: OpenFile) -> None:
        """End one use of an open file; it is closed with the last."""
        file.uses -= 1
        if file.uses:
            return
        data, mine = file.data, [file.fd]
        data.closed()
        if not data.opens:
            file.node.data = None
            mine.append(data.fd)
        file.node.unpin()
        self.count -= 1
        errors = []
        for fd in mine:
            if fd >= 0:
                try:
                    await self._close(file.node, fd, wrote=file.wrote)
                except OSError as error:  # of a write that failed late
                    errors.append(error)
        if file.wrote:
            self._backing.note_change(file.node)  # which may not have arrived before
        if errors:
            raise errors[0]

    # -- inside ------------------------------------------------------------------------------

    def _access(self, flags: int) -> int:
        if self._writeback and flags & os.O_ACCMODE == os.O_WRONLY:
            # The kernel reads what is around a part of a page before it keeps the page.
            flags ^= os.O_WRONLY | os.O_RDWR
        return flags

    async def _open(
        self, node: Node, flags: int, wanted: int, caller: Caller
    ) -> tuple[int, Block, Asked]:
        """Open the file; return descriptor, what was read of it, and when that was asked for."""
        asked = self._backing.asking()
        opened, block = await self._open_file(node, flags & _OPEN_FLAGS, wanted, caller)
        try:
            for _ in range(_LOOKS):
                if node.changed <= asked.changes:
                    break
                asked = self._backing.asking()
                block = Block(b"", await self._backing.call(node.filesystem, os.fstat, opened))
        except BaseException:
            os.close(opened)
            raise
        return opened, block, asked

    async def _open_to_read(self, node: Node, flags: int, caller: Caller) -> tuple[OpenFile, bool]:
        if node.data is None and not self._pool.stamp(node.object_id):
            wanted = 0 if node.filesystem.local else SMALL
            opened, block, asked = await self._open(node, flags, wanted, caller)
            file, keep = self._attach(node, -1, block.info, flags, asked, caller)
            if block.data:
                self._backing.count_read(block)
                if len(block.data) == file.data.size and not file.data.changing:
                    file.data.put_written(0, block.data, b"", b"")
            await self._share(node, file.data, opened)
            return file, keep
        async with self._tree.reach(node) as fd:
            for _ in range(_LOOKS):
                asked = self._backing.asking()
                fstat = fstat_synced if self._checks else os.fstat
                info = await self._backing.call(node.filesystem, fstat, fd)
                if node.changed <= asked.changes:
                    break
            return self._attach(node, -1, info, flags, asked, caller)

    async def _open_file(
        self, node: Node, flags: int, wanted: int, caller: Caller
    ) -> tuple[int, Block]:
        """Open the file, and read it if it is no larger than *wanted*; see `_open_and_read`."""
        how = flags, wanted, caller
        if not node.filesystem.local:
            return await self._tree.on(node, _open_and_read, *how)
        async with self._tree.reach(node) as fd:
            try:
                return _open_at_once(fd, flags, caller)
            except BlockingIOError:
                return await self._backing.ask(node.filesystem, _open_and_read, fd, *how)

    async def _close(self, node: Node, fd: int, *, wrote: bool = False) -> None:
        """Close *fd*: in a thread where that may have to write, or free what is in the file."""
        on = node.filesystem
        writes = wrote and self._backing.serves_swap
        if on.local and not writes and os.fstat(fd).st_nlink:
            os.close(fd)
        else:
            await self._backing.ask(on, os.close, fd)

    async def _share(self, node: Node, data: FileData, fd: int) -> None:
        """Let *fd* be the descriptor that all readers share, if they need one."""
        if data.fd < 0 and data.opens:
            data.fd = fd
        else:  # somebody else was quicker, or nobody reads any more
            await self._close(node, fd)

    def _attach(
        self, node: Node, fd: int, info: Stat, flags: int, asked: Asked, caller: Caller
    ) -> tuple[OpenFile, bool]:
        if node.data is None:
            node.data = FileData(self._pool, node.object_id, self._backing, checks=self._checks)
        keep = node.data.opened(info)
        if node.changed > asked.changes:
            node.data.doubt(info)
        self._tree.recent.note(node, info, asked)
        node.pin()
        self.count += 1
        return OpenFile(node, fd, node.data, flags, caller), keep


def _open_at_once(fd: int, flags: int, caller: Caller) -> tuple[int, Block]:
    """Open the local file of an ``O_PATH`` descriptor, as *caller*.

    BlockingIOError where somebody has a lease on it, and is to give that back first.
    """
    opened = as_caller(caller, os.open, inode_path(fd), flags | os.O_NONBLOCK)
    os.set_blocking(opened, not flags & os.O_NONBLOCK)
    return opened, Block(b"", os.fstat(opened))


def _open_and_read(fd: int, flags: int, most: int, caller: Caller) -> tuple[int, Block]:
    """Open the file of an ``O_PATH`` descriptor as *caller*; read *most* bytes, or nothing."""
    opened = as_caller(caller, os.open, inode_path(fd), flags)
    try:
        block = Block(b"", os.fstat(opened))
        if 0 < block.info.st_size <= most:
            with contextlib.suppress(OSError):  # it is told when somebody reads
                found = read_block(opened, 0, block.info.st_size)
                # Who changes it meanwhile leaves other times, and what was read is of neither.
                same = stamp(found.info) == stamp(block.info)
                block = found if same else Block(b"", found.info)
    except BaseException:
        os.close(opened)
        raise
    return opened, block
