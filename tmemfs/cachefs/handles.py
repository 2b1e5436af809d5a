"""Opens and closes files, and decides which backing descriptor each open file is read by.

Who may write has a descriptor of their own. All who only read a file share one. Where nobody can
refuse it to us and it leads to the very inode, on a local disk, it is opened when something is
missing in the pool; elsewhere with each open, for later the name may be another file's. One of up
to 1 MiB that goes by path and is in the pool as a whole is opened later, too, and compared then.
"""

from __future__ import annotations

import errno
import os

import trio

from tmemfs.cachefs.backingfiles import BackingFiles
from tmemfs.cachefs.inode import Inode
from tmemfs.cachefs.modify import Modifier
from tmemfs.cachefs.names import Names
from tmemfs.cachefs.pages import FileData
from tmemfs.cachefs.shared import OpenFile, SharedData
from tmemfs.cachefs.source import opening
from tmemfs.cachefs.source.executor import Asked, Block, Executor
from tmemfs.cachefs.source.routes import Stat, look_open, open_inode
from tmemfs.linux.credentials import Caller, may_open_all, ourselves
from tmemfs.linux.syscalls import fstat_synced
from tmemfs.supervise import first_error
from tmemfs.tmem import Pool

# A file of so many bytes is read before anybody has put another one in its place, as a rule.
_READ_AT_ONCE = 1 << 20
# So often an open looks at a file that is being written through us, to see it at rest.
_LOOKS = 3


class OpenFiles:
    """Opens and closes the files that *names* find, whose pages are in *pool*.

    Unless it *checks*, the pages that are there are believed; with *writeback* the kernel decides
    what is written when, and reads what it needs for that.
    """

    def __init__(
        self,
        names: Names,
        modify: Modifier,
        executor: Executor,
        pool: Pool,
        *,
        checks: bool,
        writeback: bool,
        descriptors: int,
    ) -> None:
        """Up to *descriptors* may be open, of which no user but root may have more than a half."""
        self.count = 0
        """how many files are open"""
        self._names = names
        self._modify = modify
        self._inodes = names.inodes
        self._executor = executor
        self._pool = pool
        self._checks = checks
        self._writeback = writeback
        self._backing = BackingFiles(executor, descriptors)
        self._shared = SharedData(pool, executor, checks=checks)

    async def open(self, inode: Inode, flags: int, caller: Caller) -> tuple[OpenFile, bool]:
        """Open a file as *caller*; return it, and whether the kernel may keep its pages of it."""
        access = flags & os.O_ACCMODE
        if access == os.O_RDONLY and flags & os.O_TRUNC:
            # Such an open may cut the file, which a descriptor for reading only cannot.
            flags |= os.O_RDWR
        flags = self._access(flags)
        if flags & os.O_ACCMODE == os.O_RDONLY:
            return await self._open_to_read(inode, flags, caller)
        try:
            opened, block, asked = await self._open(inode, flags, 0, caller)
        except PermissionError:
            if flags & os.O_ACCMODE == access:
                raise
            return await self._open_only_to_write(inode, flags & ~os.O_ACCMODE | access, caller)
        return self._attach(inode, opened, block.info, flags, asked, caller)

    async def create(
        self, parent: Inode, name: bytes, mode: int, flags: int, caller: Caller
    ) -> tuple[OpenFile, Stat]:
        """Make a file that belongs to *caller* and open it; return it and its attributes."""
        flags = self._access(flags)
        extra = flags & os.O_EXCL
        self._backing.quota.admit(caller)
        fd = await self._modify.create(
            parent, name, mode, flags & opening.OPEN_FLAGS | extra, caller
        )
        try:
            # By the descriptor: the name may be another file's by now.
            asked = self._executor.asking()
            look = await self._executor.call(parent.filesystem, look_open, fd)
        except BaseException:
            os.close(fd)
            raise
        self._backing.quota.charge(fd, caller)
        inode = self._inodes.learn(parent, name, look, asked.changes)
        inode.kernel_size = look.info.st_size
        return self._attach(inode, fd, look.info, flags, asked, caller)[0], look.info

    async def create_unnamed(
        self, parent: Inode, mode: int, flags: int, caller: Caller
    ) -> tuple[OpenFile, Stat]:
        """Make a file without a name, as *caller*, on the filesystem of *parent*; see `create`."""
        flags = self._access(flags)
        extra = flags & (os.O_TMPFILE | os.O_EXCL)
        self._backing.quota.admit(caller)
        fd = await self._modify.create_unnamed(
            parent, mode, flags & opening.OPEN_FLAGS | extra, caller
        )
        try:
            asked = self._executor.asking()
            look = await self._executor.call(parent.filesystem, look_open, fd)
            inode = self._inodes.learn(parent, b"", look, asked.changes)
            # Nothing else leads there.
            self._inodes.descriptors.adopt(inode, open_inode(fd, os.O_PATH))
            inode.keep_open()
        except BaseException:
            os.close(fd)
            raise
        self._backing.quota.charge(fd, caller)
        return self._attach(inode, fd, look.info, flags, asked, caller)[0], look.info

    async def reader(self, file: OpenFile) -> int:
        """Return a descriptor by which the file can be read."""
        fd = await self._reader(file)
        if file.data.apart or file.data.mixes:
            # To the kernel they are one file: what it has read of one it gives to the other.
            opening.read_past_kernel(fd)
        return fd

    async def _reader(self, file: OpenFile) -> int:
        if file.fd >= 0 and file.flags & os.O_ACCMODE == os.O_RDWR:
            return file.fd
        data = file.data
        writes = file.flags & os.O_ACCMODE == os.O_WRONLY
        caller = ourselves() if writes else file.caller
        await self.open_data(file.inode, data, file.flags, caller)
        return data.fd

    async def open_data(self, inode: Inode, data: FileData, flags: int, caller: Caller) -> None:
        """Open the descriptor that all readers share, unless it is open or nobody reads.

        Raises ESTALE where the name leads to another file by now.
        """
        while data.fd < 0 and data.opens:
            if data.apart:
                raise OSError(errno.ESTALE, "another file has taken the name", inode.name)
            if data.opening is not None:
                await data.opening.wait()
                continue
            data.opening = trio.Event()
            try:
                flags = flags & opening.OPEN_FLAGS & ~os.O_ACCMODE
                if data not in self._backing.quota:
                    self._backing.quota.admit(caller)
                opened, _ = await self._backing.open_admitted(inode, flags, 0, caller)
                self._backing.quota.release(data)
                if inode.filesystem.by_path:
                    await self._compare(inode, data, opened)
                await self._share(inode, data, opened)
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
        data.writers -= file.fd >= 0
        if not data.opens:
            self._backing.quota.release(data)
            self._shared.left(file.inode, data)
            mine.append(data.fd)
            if data.apart:
                for fd in mine:
                    opening.drop_kernels_copy(fd)
        file.inode.unpin()
        self.count -= 1
        errors = []
        for fd in mine:
            if fd >= 0:
                try:
                    await self._backing.close(file.inode, fd, wrote=file.wrote)
                except OSError as error:  # of a write that failed late
                    errors.append(error)
        if file.wrote:
            self._executor.note_change(file.inode)  # which may not have arrived before
        if errors:
            raise errors[0]

    # -- inside ------------------------------------------------------------------------------

    def _access(self, flags: int) -> int:
        if self._writeback and flags & os.O_ACCMODE == os.O_WRONLY:
            # The kernel reads what is around a part of a page before it keeps the page.
            flags ^= os.O_WRONLY | os.O_RDWR
        return flags

    async def _open(
        self, inode: Inode, flags: int, wanted: int, caller: Caller
    ) -> tuple[int, Block, Asked]:
        """Open the file; return descriptor, what was read of it, and when that was asked for."""
        asked = self._executor.asking()
        opened, block = await self._backing.open(inode, flags & opening.OPEN_FLAGS, wanted, caller)
        try:
            for _ in range(_LOOKS):
                if inode.changed <= asked.changes:
                    break
                asked = self._executor.asking()
                block = Block(b"", await self._executor.call(inode.filesystem, os.fstat, opened))
            self._inodes.descriptors.check(inode, block.info)
        except BaseException:
            await self._backing.close(inode, opened)
            raise
        return opened, block, asked

    async def _open_to_read(
        self, inode: Inode, flags: int, caller: Caller
    ) -> tuple[OpenFile, bool]:
        if inode.data is None and not self._pool.stamp(inode.object_id):
            wanted = 0 if inode.filesystem.local else opening.SMALL
            opened, block, asked = await self._open(inode, flags, wanted, caller)
            file, keep = self._attach(inode, -1, block.info, flags, asked, caller)
            if block.data:
                self._executor.count_read(block)
                if len(block.data) == file.data.size and not file.data.changing:
                    file.data.put_written(0, block.data, b"", b"")
            await self._share(inode, file.data, opened)
            return file, keep
        if inode.filesystem.local and may_open_all():
            if inode.fd < 0:
                return await self._open_later(inode, flags, caller)
            self._backing.quota.admit(caller)
            self._inodes.descriptors.used(inode)
            return self._attach_later(inode, os.fstat(inode.fd), flags, None, caller)
        if inode.filesystem.by_path and self._has_all(inode):
            return await self._open_later(inode, flags, caller)
        return await self._look_and_open(inode, flags, caller)

    async def _open_later(self, inode: Inode, flags: int, caller: Caller) -> tuple[OpenFile, bool]:
        """Open a file of which nothing may have to be read: in earnest when something has to."""
        self._backing.quota.admit(caller)
        info, asked = await self._look(inode)
        file, keep = self._attach_later(inode, info, flags, asked, caller)
        if not inode.filesystem.local and not self._has_all(inode):
            try:
                await self.open_data(inode, file.data, flags, caller)
            except BaseException:
                await self.release(file)
                raise
        return file, keep

    def _has_all(self, inode: Inode) -> bool:
        """Whether all of a file that is not large is in the pool, as far as is known."""
        size = inode.kernel_size
        if not 0 <= size <= _READ_AT_ONCE:
            return False
        return all(self._pool.holds(inode.object_id, 0, -(-size // self._pool.page_size)))

    async def _look(self, inode: Inode) -> tuple[Stat, Asked]:
        """Return the attributes of a file whose pages are known, and when they were asked for."""
        async with inode.open() as fd:
            for _ in range(_LOOKS):
                asked = self._executor.asking()
                fstat = fstat_synced if self._checks else os.fstat
                info = await self._executor.call(inode.filesystem, fstat, fd)
                if inode.changed <= asked.changes:
                    break
        self._inodes.descriptors.check(inode, info)
        return info, asked

    async def _look_and_open(
        self, inode: Inode, flags: int, caller: Caller
    ) -> tuple[OpenFile, bool]:
        """Open a file whose pages are known: at the same time, for each is a journey."""
        opened = -1

        async def open_it() -> None:
            nonlocal opened
            opened, _ = await self._backing.open(inode, flags & opening.OPEN_FLAGS, 0, caller)

        try:
            try:
                async with trio.open_nursery() as nursery:
                    # Behind the look, where the server takes them in order. What is opened may be
                    # newer than what is known of it, which the next look shows, and never older.
                    nursery.start_soon(open_it)
                    info, asked = await self._look(inode)
            except BaseExceptionGroup as group:
                raise first_error(group) from None
            file, keep = self._attach(inode, -1, info, flags, asked, caller)
        except BaseException:
            if opened >= 0:
                await self._backing.close(inode, opened)
            raise
        await self._share(inode, file.data, opened)
        return file, keep

    async def _open_only_to_write(
        self, inode: Inode, flags: int, caller: Caller
    ) -> tuple[OpenFile, bool]:
        """Open a file that *caller* may not read; what the kernel needs of it, we read."""
        opened, block, asked = await self._open(inode, flags, 0, caller)
        file, keep = self._attach(inode, opened, block.info, flags, asked, caller)
        try:
            await self.open_data(inode, file.data, flags, ourselves())
        except OSError:
            # Nor may we: then the kernel must not keep a page of which it has written a part.
            file.direct = True
        return file, keep

    async def _compare(self, inode: Inode, data: FileData, opened: int) -> None:
        """Set *data* apart unless *opened* is what is known of it, as far as anybody can tell."""
        try:
            info = await self._executor.call(inode.filesystem, fstat_synced, opened)
            if not data.may_be(info):
                data.set_apart()
                raise OSError(errno.ESTALE, "another file has taken the name", inode.name)
        except BaseException:
            await self._backing.close(inode, opened)
            raise

    async def _share(self, inode: Inode, data: FileData, fd: int) -> None:
        """Let *fd* be the descriptor that all readers share, if they need one."""
        if data.fd < 0 and data.opens:
            data.fd = fd
        else:  # somebody else was quicker, or nobody reads any more
            await self._backing.close(inode, fd)

    def _attach_later(
        self, inode: Inode, info: Stat, flags: int, asked: Asked | None, caller: Caller
    ) -> tuple[OpenFile, bool]:
        """As `_attach`, of a file that is opened in earnest when something has to be read."""
        file, keep = self._attach(inode, -1, info, flags, asked, caller)
        if file.data.fd < 0 and file.data not in self._backing.quota:
            # Nobody is told later, when something is missing, that there are too many.
            self._backing.quota.charge(file.data, caller)
        return file, keep

    def _attach(
        self,
        inode: Inode,
        fd: int,
        info: Stat,
        flags: int,
        asked: Asked | None,
        caller: Caller,
    ) -> tuple[OpenFile, bool]:
        """Count an open of the file, as *info* has it; without *asked*, as it is at this moment."""
        data = self._shared.attach(inode, info)
        keep = data.opened(info)
        data.writers += fd >= 0
        if asked is not None:
            if inode.changed > asked.changes:
                data.doubt(info)
            self._names.attrcache.note(inode, info, asked)
        inode.pin()
        self.count += 1
        return OpenFile(inode, fd, data, flags, caller), keep
