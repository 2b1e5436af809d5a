"""Open files: who has which open, and by which descriptors of the backing file they are served.

Who may write has a descriptor of their own. All who only read a file share one. Where nobody can
refuse it to us and it leads to the very inode, on a local disk, it is opened when something is
missing in the pool; elsewhere with each open, for later the name may be another file's. One of up
to 1 MiB that goes by path and is in the pool as a whole is opened later, too, and compared then.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections import Counter

import trio

from tmemfs.cachefs.inode import Inode
from tmemfs.cachefs.modify import Modifier
from tmemfs.cachefs.names import Names
from tmemfs.cachefs.pages import FileData
from tmemfs.cachefs.readahead import Window
from tmemfs.cachefs.source.executor import Asked, Block, Executor, read_block
from tmemfs.cachefs.source.routes import Stat, look_open, open_inode
from tmemfs.cachefs.stamps import stamp
from tmemfs.linux.credentials import Caller, as_caller, may_open_all, ourselves
from tmemfs.linux.syscalls import fstat_synced
from tmemfs.tmem import Pool

# What a backing file may be opened with. Not O_DIRECT: the buffers that FUSE hands over are not
# aligned. Not O_APPEND: what a mapping of such a file has changed would be appended, too.
_OPEN_FLAGS = os.O_ACCMODE | os.O_SYNC | os.O_DSYNC | os.O_NOATIME | os.O_NONBLOCK


# A file of so many bytes is read as soon as it is opened where each of the two is a journey over a
# network, and a thread's work here: hardly anybody opens a small file for anything else.
SMALL = 64 << 10
# A file of so many bytes is read before anybody has put another one in its place, as a rule.
_READ_AT_ONCE = 1 << 20
# So often an open looks at a file that is being written through us, before it gives up to see it
# at rest.
_LOOKS = 3


class TooManyOpen(OSError):
    """Others need the descriptors that are left: an answer, and nothing to wait for."""


class OpenFile:
    """One open of a file by *caller*: for who may write a descriptor of the backing file, and data.

    It stays open until the last of its `uses` has ended.
    """

    __slots__ = ("caller", "data", "direct", "fd", "flags", "inode", "uses", "window", "wrote")

    def __init__(self, inode: Inode, fd: int, data: FileData, flags: int, caller: Caller) -> None:
        self.inode = inode
        self.fd = fd
        self.data = data
        self.flags = flags
        self.caller = caller
        self.direct = data.mixes
        """whether it must not share the kernel's pages with others who have it open"""
        self.wrote = False
        self.uses = 1
        self.window = Window()

    @property
    def backing_fd(self) -> int:
        """A descriptor by which the file's attributes can be had."""
        return next(fd for fd in (self.fd, self.data.fd, self.inode.fd) if fd >= 0)


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
        self._descriptors = descriptors
        self._owners: dict[int | FileData, int] = {}  # by uid: of a descriptor, or of one to come
        self._owned: Counter[int] = Counter()
        # Where files go by path: what was opened last by a name, and is open.
        self._named: dict[tuple[Inode | None, bytes], FileData] = {}

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
        self._admit(caller)
        fd = await self._modify.create(parent, name, mode, flags & _OPEN_FLAGS | extra, caller)
        try:
            # By the descriptor: the name may be another file's by now.
            asked = self._executor.asking()
            look = await self._executor.call(parent.filesystem, look_open, fd)
        except BaseException:
            os.close(fd)
            raise
        self._own(fd, caller)
        inode = self._inodes.learn(parent, name, look, asked.changes)
        inode.kernel_size = look.info.st_size
        return self._attach(inode, fd, look.info, flags, asked, caller)[0], look.info

    async def create_unnamed(
        self, parent: Inode, mode: int, flags: int, caller: Caller
    ) -> tuple[OpenFile, Stat]:
        """Make a file without a name, as *caller*, on the filesystem of *parent*; see `create`."""
        flags = self._access(flags)
        extra = flags & (os.O_TMPFILE | os.O_EXCL)
        self._admit(caller)
        fd = await self._modify.create_unnamed(parent, mode, flags & _OPEN_FLAGS | extra, caller)
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
        self._own(fd, caller)
        return self._attach(inode, fd, look.info, flags, asked, caller)[0], look.info

    async def reader(self, file: OpenFile) -> int:
        """Return a descriptor by which the file can be read."""
        fd = await self._reader(file)
        if file.data.apart or file.data.mixes:
            # To the kernel they are one file: what it has read of one it gives to the other.
            _read_past_kernel(fd)
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
                flags = flags & _OPEN_FLAGS & ~os.O_ACCMODE
                if data not in self._owners:
                    self._admit(caller)
                opened, _ = await self._open_admitted(inode, flags, 0, caller)
                self._disown(data)
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
            self._left(file.inode, data)
            mine.append(data.fd)
            if data.apart:
                for fd in mine:
                    _drop_kernels(fd)
        file.inode.unpin()
        self.count -= 1
        errors = []
        for fd in mine:
            if fd >= 0:
                try:
                    await self._close(file.inode, fd, wrote=file.wrote)
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
        opened, block = await self._open_file(inode, flags & _OPEN_FLAGS, wanted, caller)
        try:
            for _ in range(_LOOKS):
                if inode.changed <= asked.changes:
                    break
                asked = self._executor.asking()
                block = Block(b"", await self._executor.call(inode.filesystem, os.fstat, opened))
            self._inodes.descriptors.check(inode, block.info)
        except BaseException:
            await self._close(inode, opened)
            raise
        return opened, block, asked

    async def _open_to_read(
        self, inode: Inode, flags: int, caller: Caller
    ) -> tuple[OpenFile, bool]:
        if inode.data is None and not self._pool.stamp(inode.object_id):
            wanted = 0 if inode.filesystem.local else SMALL
            opened, block, asked = await self._open(inode, flags, wanted, caller)
            file, keep = self._attach(inode, -1, block.info, flags, asked, caller)
            if block.data:
                self._executor.count_read(block)
                if len(block.data) == file.data.size and not file.data.changing:
                    file.data.put_written(0, block.data, b"", b"")
            await self._share(inode, file.data, opened)
            return file, keep
        if inode.filesystem.local and may_open_all():
            return await self._open_later(inode, flags, caller)
        if inode.filesystem.by_path and self._has_all(inode):
            return await self._open_later(inode, flags, caller)
        return await self._look_and_open(inode, flags, caller)

    async def _open_later(self, inode: Inode, flags: int, caller: Caller) -> tuple[OpenFile, bool]:
        """Open a file of which nothing may have to be read: in earnest when something has to."""
        self._admit(caller)
        info, asked = await self._look(inode)
        file, keep = self._attach(inode, -1, info, flags, asked, caller)
        if file.data.fd < 0 and file.data not in self._owners:
            # Nobody is told later, when something is missing, that there are too many.
            self._own(file.data, caller)
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
            opened, _ = await self._open_file(inode, flags & _OPEN_FLAGS, 0, caller)

        try:
            try:
                async with trio.open_nursery() as nursery:
                    # Behind the look, where the server takes them in order. What is opened may be
                    # newer than what is known of it, which the next look shows, and never older.
                    nursery.start_soon(open_it)
                    info, asked = await self._look(inode)
            except BaseExceptionGroup as group:
                raise _first(group) from None
            file, keep = self._attach(inode, -1, info, flags, asked, caller)
        except BaseException:
            if opened >= 0:
                await self._close(inode, opened)
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

    async def _open_file(
        self, inode: Inode, flags: int, wanted: int, caller: Caller
    ) -> tuple[int, Block]:
        """Open the file, and read it if it is no larger than *wanted*; see `_open_and_read`."""
        self._admit(caller)
        return await self._open_admitted(inode, flags, wanted, caller)

    async def _open_admitted(
        self, inode: Inode, flags: int, wanted: int, caller: Caller
    ) -> tuple[int, Block]:
        how = flags | self._executor.noatime, wanted, caller
        opened, block = await self._opened(inode, *how)
        self._own(opened, caller)
        return opened, block

    async def _opened(
        self, inode: Inode, flags: int, wanted: int, caller: Caller
    ) -> tuple[int, Block]:
        how = flags, wanted, caller
        if not inode.filesystem.local:
            return await inode.call(_open_and_read, *how)
        async with inode.open() as fd:
            try:
                return _open_at_once(fd, flags, caller)
            except BlockingIOError:
                return await self._executor.ask(inode.filesystem, _open_and_read, fd, *how)

    async def _close(self, inode: Inode, fd: int, *, wrote: bool = False) -> None:
        """Close *fd*: in a thread where that may have to write, or free what is in the file."""
        self._disown(fd)
        on = inode.filesystem
        writes = wrote and self._executor.serves_swap
        if on.local and not writes and os.fstat(fd).st_nlink:
            os.close(fd)
        else:
            await self._executor.ask(on, os.close, fd)

    async def _compare(self, inode: Inode, data: FileData, opened: int) -> None:
        """Set *data* apart unless *opened* is what is known of it, as far as anybody can tell."""
        try:
            info = await self._executor.call(inode.filesystem, fstat_synced, opened)
            if not data.may_be(info):
                data.set_apart()
                raise OSError(errno.ESTALE, "another file has taken the name", inode.name)
        except BaseException:
            await self._close(inode, opened)
            raise

    async def _share(self, inode: Inode, data: FileData, fd: int) -> None:
        """Let *fd* be the descriptor that all readers share, if they need one."""
        if data.fd < 0 and data.opens:
            data.fd = fd
        else:  # somebody else was quicker, or nobody reads any more
            await self._close(inode, fd)

    def _admit(self, caller: Caller) -> None:
        """Raise ENFILE where *caller* would take the last descriptors from others."""
        mine, all_of_them = self._owned[caller.uid], len(self._owners)
        if all_of_them >= self._descriptors or (caller.uid and mine >= self._descriptors // 2):
            raise TooManyOpen(errno.ENFILE, os.strerror(errno.ENFILE))

    def _own(self, what: int | FileData, caller: Caller) -> None:
        self._owners[what] = caller.uid
        self._owned[caller.uid] += 1

    def _disown(self, what: int | FileData) -> None:
        if what in self._owners:
            self._owned[self._owners.pop(what)] -= 1

    def _left(self, inode: Inode, data: FileData) -> None:
        """Take note that nobody has *data* open any more."""
        self._disown(data)
        older = data.older
        name = data.named and data.named[1]
        if self._named.get(name) is data:
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

    def _before(self, name: tuple[Inode | None, bytes]) -> FileData | None:
        """What is open that had that *name* last, unless we have taken the name from it."""
        data = self._named.get(name)
        if data is None or data.unlinked:
            return None
        inode, _ = data.named
        return data if (inode.parent, inode.name) == name else None

    def _attach(
        self, inode: Inode, fd: int, info: Stat, flags: int, asked: Asked, caller: Caller
    ) -> tuple[OpenFile, bool]:
        data: FileData | None = inode.data
        if data is not None:
            data.notice(info)
        by_path, name = inode.filesystem.by_path, (inode.parent, inode.name)
        before = self._before(name) if by_path else None
        if before is not None and before is not data:
            # Another file had the name, and its descriptors lead where the name does.
            before.set_apart()
        if data is None or data.apart:
            inode.data = FileData(
                self._pool,
                inode.object_id,
                self._executor,
                checks=self._checks,
                by_path=by_path,
                before=before,
            )
        if by_path:
            self._named[name] = inode.data
            inode.data.named = inode, name
        keep = inode.data.opened(info)
        inode.data.writers += fd >= 0
        if inode.changed > asked.changes:
            inode.data.doubt(info)
        self._names.attrcache.note(inode, info, asked)
        inode.pin()
        self.count += 1
        return OpenFile(inode, fd, inode.data, flags, caller), keep


def _read_past_kernel(fd: int) -> None:
    """Let *fd* be read from its filesystem each time, not from what the kernel has of the file."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_DIRECT)


def _drop_kernels(fd: int) -> None:
    """Let the kernel forget what it has of the file of *fd*."""
    with contextlib.suppress(OSError):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error in a group of a nursery's."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _open_at_once(fd: int, flags: int, caller: Caller) -> tuple[int, Block]:
    """Open the local file of an ``O_PATH`` descriptor, as *caller*.

    BlockingIOError where somebody has a lease on it, and is to give that back first.
    """
    opened = as_caller(caller, open_inode, fd, flags | os.O_NONBLOCK)
    os.set_blocking(opened, not flags & os.O_NONBLOCK)
    return opened, Block(b"", os.fstat(opened))


def _open_and_read(fd: int, flags: int, most: int, caller: Caller) -> tuple[int, Block]:
    """Open the file of an ``O_PATH`` descriptor as *caller*; read *most* bytes, or nothing."""
    # Before: what is opened may be newer, which the next look shows, and never older.
    block = Block(b"", os.fstat(fd))
    opened = as_caller(caller, open_inode, fd, flags)
    try:
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
