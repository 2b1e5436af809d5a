"""The names and attributes of a backing directory: everything but the bytes of its files.

Each method does in the backing directory what its namesake in the VFS would do there, and raises
the same OSError. Nothing is cached here but inodes, and what is `AttrCache`; permissions are the
kernel's business (``default_permissions``), ownership of what is made is ours.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import trio

from tmemfs import supervise
from tmemfs.cachefs.attrcache import LARGEST, AttrCache, Listing
from tmemfs.cachefs.inodes import Inode, InodeTable
from tmemfs.cachefs.source import calls
from tmemfs.cachefs.source.create import make, make_file, make_link, make_unnamed
from tmemfs.cachefs.source.executor import Asked, Executor, Stat
from tmemfs.cachefs.source.routes import Look, look, look_across, look_cached, reopen, reopen_cached
from tmemfs.linux.credentials import Caller, as_caller
from tmemfs.linux.syscalls import renameat2, utimens

T = TypeVar("T")


class Found(NamedTuple):
    """An inode, its attributes, and for how long (s) these have been known."""

    inode: Inode
    info: Stat
    age: float = 0.0


# Calls under way at once that look at what is mounted on one name.
_THREADS_OF_A_MOUNT = 16


class Names:
    """The directory tree below the root of *inodes*, reached by calls to *backing*.

    Who asks for attributes gets them, and *seen* is told (inode, attributes, when they were asked
    for). What is *recent* is not asked for again. *changed* is told (inode, before, after) when an
    operation of ours has changed a known file's attributes, so that the change is not taken for
    somebody else's; None is what could not be looked at.
    """

    def __init__(
        self,
        inodes: InodeTable,
        executor: Executor,
        recent: AttrCache,
        *,
        seen: Callable[[Inode, Stat, Asked], None],
        changed: Callable[[Inode, Stat | None, Stat | None], None],
    ) -> None:
        self.inodes = inodes
        self.attrcache = recent
        self._executor = executor
        self._counters = executor.counters
        # So few that listings, which nobody has asked for, take no threads from those who ask.
        self._listings = executor.limiter()
        self._crossings: dict[tuple[Inode, bytes], trio.CapacityLimiter] = {}
        self._seen = seen
        self._changed = changed

    def reach(self, inode: Inode) -> Reach:
        """Return a context in which a descriptor of *inode* is open, its value."""
        return Reach(self, inode)

    async def reopen(self, inode: Inode) -> None:
        """Give *inode* a descriptor again. Raises ESTALE when its inode cannot be found."""
        if self._reopen_cached(inode):
            return
        start = self.inodes.start(inode)
        start.pin()
        try:
            route = self.inodes.route(inode)
            self.inodes.adopt(inode, await self._executor.ask(inode.filesystem, reopen, route))
        finally:
            start.unpin()

    async def on(self, inode: Inode, function: Callable[..., T], *args: Any) -> T:
        """Call *function* with a descriptor of *inode* and *args*: in one go, if it has to wait.

        It is one that asks for what a local filesystem has in memory.
        """
        if inode.is_open or self._reopen_cached(inode):
            with inode as fd:
                return await self._executor.call(inode.filesystem, function, fd, *args)
        start = self.inodes.start(inode)
        start.pin()
        try:
            found: tuple[int, T] = await self._executor.ask(
                inode.filesystem, calls.reopen_and, self.inodes.route(inode), function, args
            )
        finally:
            start.unpin()
        self.inodes.adopt(inode, found[0])
        return found[1]

    def _reopen_cached(self, inode: Inode) -> bool:
        """Reopen *inode* if that can be done at once; say whether it was."""
        if inode.parent is None or not (inode.parent.is_open and inode.parent.filesystem.local):
            return False
        fd = reopen_cached(self.inodes.route(inode))
        if fd is None:
            return False
        self.inodes.adopt(inode, fd)
        return True

    # -- looking -----------------------------------------------------------------------------

    async def lookup(self, parent: Inode, name: bytes) -> Found:
        """Return the inode of *name* in *parent* and its attributes."""
        if parent.filesystem.on_demand:
            return await self.look_up(parent, name)
        now = self._executor.asking()
        if self.attrcache.lacks(parent, name):
            self._counters.recalled_names += 1
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        listing = self.attrcache.listing(parent, now)
        if listing is not None:
            if not listing.begun:
                listing.begun = True
                self._counters.listed_directories += 1
                parent.pin()
                supervise.start(self._list, parent, listing)
            await listing.wait()
            if (found := self._from_listing(parent, name, listing)) is not None:
                self._counters.recalled_names += 1
                return found
        try:
            found = await self.look_up(parent, name)
        except FileNotFoundError:
            self.attrcache.missed(parent, name, now)
            raise
        self.attrcache.found(parent, now)
        return found

    async def look_up(self, parent: Inode, name: bytes) -> Found:
        """As `lookup`, whatever is known already."""
        asked = self._executor.asking()
        async with self.reach(parent) as directory:
            try:
                looked = await self._look(parent, directory, name)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                looked = await self._look_across(parent, directory, name)
        return self.learn(parent, name, looked, asked)

    async def look_many(self, parent: Inode, names: list[bytes]) -> list[Look | OSError]:
        """Look at some names in *parent* for a listing of it; an error for each that has one.

        What is mounted there is not looked at (EXDEV): it may not answer, and who lists the
        directory has not asked for it.
        """
        if parent.filesystem.on_demand:
            return [_crossing(name) for name in names]
        async with self.reach(parent) as directory:
            if not parent.filesystem.local:
                return await self._executor.ask(
                    parent.filesystem, calls.look_many, directory, names
                )
            found = calls.look_many_cached(directory, names)
            rest = [name for name, look in zip(names, found, strict=True) if look is None]
            others: Iterator[Look | OSError] = iter(
                await self._executor.ask(parent.filesystem, calls.look_many, directory, rest)
                if rest
                else ()
            )
            return [look or next(others) for look in found]

    def learn(self, parent: Inode, name: bytes, look: Look, asked: Asked) -> Found:
        """Return the inode of what was found as *name* in *parent*, when it was *asked* for."""
        self.attrcache.heard(parent, name, asked)
        return self._learned(parent, name, look, asked)

    async def getattr(self, inode: Inode) -> Found:
        """Return *inode* and its attributes, which need not be quite new."""
        if (recent := self.attrcache.attributes(inode)) is not None:
            inode.kernel_size = recent[0].st_size
            self._counters.recalled_attributes += 1
            return Found(inode, *recent)
        return Found(inode, await self.fstat(inode))

    async def fstat(self, inode: Inode) -> Stat:
        """Return the attributes of *inode* as they are now.

        What is open and has no name any more, where files go by path, is as it was seen last.
        """
        asked = self._executor.asking()
        try:
            info = await self.on(inode, os.fstat)
            self.inodes.check(inode, info)
        except OSError as error:
            if error.errno not in _GONE or inode.data is None or inode.data.info is None:
                raise
            inode.data.set_apart()
            last: Stat = inode.data.info
            return last
        self.attrcache.note(inode, info, asked)
        self._seen(inode, info, asked)
        return info

    async def listdir(self, inode: Inode) -> bytes:
        """Return every name in a directory, ``.`` and ``..`` first, with a NUL after each."""
        async with self.reach(inode) as fd:
            noatime = self._executor.noatime
            return await self._executor.ask(inode.filesystem, calls.listdir, fd, noatime)

    async def readlink(self, inode: Inode) -> bytes:
        """Return where a symbolic link points."""
        async with self.reach(inode) as fd:
            return os.fsencode(await self._executor.ask(inode.filesystem, calls.readlink, fd))

    async def statfs(self, inode: Inode) -> os.statvfs_result:
        """Return the figures of the filesystem that *inode* is on."""
        async with self.reach(inode) as fd:
            return await self._executor.ask(inode.filesystem, os.fstatvfs, fd)

    # -- making ------------------------------------------------------------------------------

    async def mkdir(self, parent: Inode, name: bytes, mode: int, caller: Caller) -> Found | None:
        """Make a directory as *caller*; None where it was made and could not be looked at."""
        mode = stat.S_IMODE(mode)
        async with self.reach(parent) as directory:
            await self._make((parent,), make, caller, os.mkdir, directory, name, mode)
        return await self._made(parent, name, stat.S_IFDIR)

    async def mknod(
        self, parent: Inode, name: bytes, mode: int, device: int, caller: Caller
    ) -> Found | None:
        """Make a file, FIFO, socket or device node as *caller*; see `mkdir`."""
        async with self.reach(parent) as directory:
            await self._make((parent,), make, caller, os.mknod, directory, name, mode, device)
        return await self._made(parent, name, stat.S_IFMT(mode) or stat.S_IFREG)

    async def symlink(
        self, parent: Inode, name: bytes, target: bytes, caller: Caller
    ) -> Found | None:
        """Make a symbolic link to *target* as *caller*; see `mkdir`."""
        async with self.reach(parent) as directory:
            await self._make((parent,), make_link, caller, target, directory, name)
        return await self._made(parent, name, stat.S_IFLNK)

    async def create(
        self, parent: Inode, name: bytes, mode: int, flags: int, caller: Caller
    ) -> int:
        """Make a file as *caller* and open it; return the descriptor.

        Where somebody behind the mount has made *name* first: ESTALE without ``O_EXCL``.
        """
        mode = stat.S_IMODE(mode)
        async with self.reach(parent) as directory:
            return await self._make((parent,), make_file, caller, directory, name, mode, flags)

    async def create_unnamed(self, parent: Inode, mode: int, flags: int, caller: Caller) -> int:
        """Make a file without a name as *caller* and open it; return the descriptor."""
        mode = stat.S_IMODE(mode)
        async with self.reach(parent) as directory:
            return await self._make((), make_unnamed, caller, directory, mode, flags, on=parent)

    async def link(self, inode: Inode, parent: Inode, name: bytes, caller: Caller) -> Found:
        """Give *inode* another name, as *caller*."""
        async with self.reach(inode) as fd, self.reach(parent) as directory:
            link = (calls.around, fd, as_caller, caller, calls.link, fd, directory, name)
            before, after = await self._make((inode, parent), *link)
            self._settle(inode, before, after)
        return await self._linked(inode, parent, name, after)

    # -- removing and moving -----------------------------------------------------------------

    async def unlink(self, parent: Inode, name: bytes, caller: Caller) -> None:
        """Remove a name, as *caller*; the file lives on while it has others or is open."""
        await self._remove(parent, name, os.unlink, caller)

    async def rmdir(self, parent: Inode, name: bytes, caller: Caller) -> None:
        """Remove an empty directory, as *caller*."""
        await self._remove(parent, name, os.rmdir, caller)

    async def rename(
        self,
        parent: Inode,
        name: bytes,
        new_parent: Inode,
        new_name: bytes,
        flags: int,
        caller: Caller,
    ) -> None:
        """Rename, with the flags of renameat2(2), as *caller*."""
        async with self.reach(parent) as directory, self.reach(new_parent) as new_directory:
            moved = await self._known(parent, directory, name)
            replaced = await self._known(new_parent, new_directory, new_name)
            async with contextlib.AsyncExitStack() as stack:
                fds = await self._reach_known(stack, moved, replaced)
                rename = (renameat2, directory, name, new_directory, new_name, flags)
                looks = await self._make(
                    (parent, new_parent, *fds),
                    calls.around_many,
                    list(fds.values()),
                    as_caller,
                    caller,
                    *rename,
                )
                for inode, (before, after) in zip(fds, looks, strict=True):
                    self._settle(inode, before, after)
            if moved is not None:
                self.inodes.moved(moved, new_parent, new_name)
            if replaced is not None and flags & _RENAME_EXCHANGE:
                self.inodes.moved(replaced, parent, name)
            elif replaced is not None:
                self._unnamed(replaced)

    # -- attributes --------------------------------------------------------------------------

    async def chmod(self, inode: Inode, mode: int, caller: Caller) -> Stat | None:
        """Change the permission bits; return the attributes, None if they cannot be had."""
        return await self._change(inode, caller, os.chmod, stat.S_IMODE(mode))

    async def chown(self, inode: Inode, uid: int, gid: int, caller: Caller) -> Stat | None:
        """Change owner and group, -1 for what is to stay; see `chmod`."""
        return await self._change(inode, caller, os.chown, uid, gid)

    async def utimens(self, inode: Inode, times: tuple[int, int], caller: Caller) -> Stat | None:
        """Set access and modification time: ns since the epoch, `UTIME_NOW` or `UTIME_OMIT`."""
        return await self._change(inode, caller, utimens, *times)

    async def setxattr(self, inode: Inode, name: bytes, value: bytes, caller: Caller) -> None:
        """Set an extended attribute, as *caller*."""
        await self._change(inode, caller, os.setxattr, name, value)

    async def removexattr(self, inode: Inode, name: bytes, caller: Caller) -> None:
        """Remove an extended attribute, as *caller*."""
        await self._change(inode, caller, os.removexattr, name)

    async def getxattr(self, inode: Inode, name: bytes) -> bytes:
        """Return the value of an extended attribute."""
        async with self.reach(inode) as fd:
            path = calls.inode_path(fd)
            return await self._executor.call(inode.filesystem, os.getxattr, path, name)

    async def listxattr(self, inode: Inode) -> list[bytes]:
        """Return the names of all extended attributes."""
        async with self.reach(inode) as fd:
            path = calls.inode_path(fd)
            names = await self._executor.call(inode.filesystem, os.listxattr, path)
            return [os.fsencode(name) for name in names]

    # -- inside ------------------------------------------------------------------------------

    async def _look(self, parent: Inode, directory: int, name: bytes) -> Look:
        """Look at *name* in *parent*, which is open as *directory*. EXDEV for a mount."""
        if parent.filesystem.on_demand:
            raise _crossing(name)
        if parent.filesystem.local and (found := look_cached(directory, name)) is not None:
            return found
        return await self._executor.ask(parent.filesystem, look, directory, name)

    async def _look_across(self, parent: Inode, directory: int, name: bytes) -> Look:
        """Look at what is mounted on *name* in *parent*: in threads that nobody else needs."""
        mounted = parent, name
        limiter = self._crossings.setdefault(mounted, trio.CapacityLimiter(_THREADS_OF_A_MOUNT))
        try:
            return await self._executor.ask_by(limiter, look_across, directory, name)
        finally:
            if not limiter.borrowed_tokens:
                self._crossings.pop(mounted, None)

    async def _fstat(self, inode: Inode, fd: int) -> Stat:
        return await self._executor.call(inode.filesystem, os.fstat, fd)

    def _learned(self, parent: Inode, name: bytes, looked: Look, asked: Asked) -> Found:
        inode = self.inodes.learn(parent, name, looked, asked.changes)
        info = looked.info
        self.attrcache.update(inode, info, asked)
        self._seen(inode, info, asked)
        return Found(inode, info)

    async def _made(self, parent: Inode, name: bytes, kind: int) -> Found | None:
        """Look at what was just made as *name*, of that *kind* (``S_IFMT``).

        None where that fails or it is another: it was made all the same, and so it must be told.
        """
        try:
            found = await self.look_up(parent, name)
        except OSError:
            return None
        return found if stat.S_IFMT(found.info.st_mode) == kind else None

    async def _linked(self, inode: Inode, parent: Inode, name: bytes, info: Stat | None) -> Found:
        """Look at a new *name* of *inode*, whose attributes are *info* if its name is not found."""
        try:
            return await self.look_up(parent, name)
        except OSError:
            if info is None:
                raise
            return Found(inode, info)

    async def _change(
        self, inode: Inode, caller: Caller, function: Callable[..., None], *args: Any
    ) -> Stat | None:
        async with self.reach(inode) as fd:
            change = (calls.around, fd, as_caller, caller, function, calls.inode_path(fd))
            before, after = await self._make((inode,), *change, *args)
            self._settle(inode, before, after)
            return after or before

    async def _known(self, parent: Inode, directory: int, name: bytes) -> Inode | None:
        try:
            return self.inodes.known(parent, await self._look(parent, directory, name))
        except OSError:
            return None

    async def _reach_known(
        self, stack: contextlib.AsyncExitStack, *inodes: Inode | None
    ) -> dict[Inode, int]:
        """Return descriptors, open in *stack*, of those of *inodes* that there are and reached."""
        fds: dict[Inode, int] = {}
        for inode in inodes:
            if inode is not None and inode not in fds:
                with contextlib.suppress(OSError):  # it was looked at, or will be
                    fds[inode] = await stack.enter_async_context(self.reach(inode))
        return fds

    async def _remove(
        self, parent: Inode, name: bytes, function: Callable[..., None], caller: Caller
    ) -> None:
        async with self.reach(parent) as directory, contextlib.AsyncExitStack() as stack:
            inode = await self._known(parent, directory, name)
            fds = await self._reach_known(stack, inode)
            looks = await self._make(
                (parent, *fds),
                calls.around_many,
                list(fds.values()),
                as_caller,
                caller,
                calls.at,
                function,
                directory,
                name,
            )
            for inode, (before, after) in zip(fds, looks, strict=True):
                self._settle(inode, before, after)
                if after is not None:
                    self._unnamed(inode)

    async def _make(
        self,
        inodes: Sequence[Inode],
        function: Callable[..., T],
        *args: Any,
        on: Inode | None = None,
    ) -> T:
        """Make a call that changes *inodes*, which are on one filesystem, that of *on*."""
        try:
            return await self._executor.make((on or inodes[0]).filesystem, function, *args)
        finally:
            self._executor.note_change(*inodes)

    async def _list(self, parent: Inode, listing: Listing) -> None:
        """See what there is in *parent*, which is pinned for it."""
        looks: dict[bytes, Look] | None = None
        try:
            async with self.reach(parent) as directory:
                looks = await self._executor.wait(
                    self._listings, calls.look_at_all, directory, LARGEST, safe=True
                )
        finally:
            self.attrcache.listed(parent, listing, looks)
            parent.unpin()

    def _from_listing(self, parent: Inode, name: bytes, listing: Listing) -> Found | None:
        """What *listing* says of *name*, if nothing has happened since that it cannot know."""
        found = self.attrcache.told_by(listing, name)
        if found is None or parent.changed > listing.asked.changes:
            return None
        look, age = found
        inode = self.inodes.known(parent, look)
        if inode is None:
            # Who knows whether we have changed it since.
            if self._executor.changes > listing.asked.changes:
                return None
        elif (
            inode.data is not None  # of a file that is open, more is known
            or inode.changed > listing.asked.changes
            or not inode.has(look.handle)
            or self.attrcache.is_newer(inode, listing.asked)
        ):
            return None
        return self._learned(parent, name, look, listing.asked)._replace(age=age)

    def _settle(self, inode: Inode, before: Stat | None, after: Stat | None) -> None:
        """Take note of what a change of ours did to *inode*; None where it could not be looked at.

        That is no failure of the change. Where files go by path, one has gone with its name.
        """
        self._changed(inode, before, after)
        if after is None:
            self.inodes.lose(inode)
        elif not after.st_nlink:
            # No name leads there any more; only the descriptor does.
            inode.keep_open()

    def _unnamed(self, inode: Inode) -> None:
        """Take note that a name of *inode* has gone, which may have been its last."""
        if inode.filesystem.by_path and inode.data is not None and inode.is_open:
            # It is open, and lives on under a name that only its filesystem knows.
            inode.keep_open()


class Reach:
    """Keeps a descriptor of *inode* open while its context lasts."""

    __slots__ = ("_inode", "_names")

    def __init__(self, names: Names, inode: Inode) -> None:
        self._names = names
        self._inode = inode

    async def __aenter__(self) -> int:
        inode = self._inode
        inode.pin()
        try:
            if not inode.is_open:
                await self._names.reopen(inode)
            return inode.__enter__()
        finally:
            inode.unpin()

    async def __aexit__(self, *error: object) -> None:
        self._inode.__exit__(None, None, None)


def _crossing(name: bytes) -> OSError:
    return OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)


_RENAME_EXCHANGE = 2
_GONE = (errno.ENOENT, errno.ESTALE)
