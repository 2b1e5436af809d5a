"""Changes names and attributes of the backing directory: make, remove, rename, set.

Each method does in the backing directory what its namesake in the VFS would do there, as whoever
asks for it, and raises the same OSError. A look after a change that was made never turns it into a
failure: it was made, and so it must be told.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tmemfs.cachefs.inode import Inode
from tmemfs.cachefs.names import Found, Names
from tmemfs.cachefs.source import changes, create
from tmemfs.cachefs.source.changes import Looks
from tmemfs.cachefs.source.executor import Executor
from tmemfs.cachefs.source.routes import Stat, open_cached
from tmemfs.linux.credentials import Caller

T = TypeVar("T")

_RENAME_EXCHANGE = 2


class Modifier:
    """Changes what *names* look at, by calls of *executor*.

    *changed* is told (inode, before, after) when a change of ours has moved a known file's
    attributes, so that it is not taken for somebody else's; None is what could not be looked at.
    """

    def __init__(
        self,
        names: Names,
        executor: Executor,
        changed: Callable[[Inode, Stat | None, Stat | None], None],
    ) -> None:
        self._names = names
        self._inodes = names.inodes
        self._executor = executor
        self._changed = changed

    # -- making ------------------------------------------------------------------------------

    async def mkdir(self, parent: Inode, name: bytes, mode: int, caller: Caller) -> Found | None:
        """Make a directory as *caller*; None where it was made and could not be looked at."""
        async with parent.open() as fd:
            await self._make((parent,), create.mkdir, caller, fd, name, stat.S_IMODE(mode))
        return await self._made(parent, name, stat.S_IFDIR)

    async def mknod(
        self, parent: Inode, name: bytes, mode: int, device: int, caller: Caller
    ) -> Found | None:
        """Make a file, FIFO, socket or device as *caller*; see `mkdir`."""
        async with parent.open() as fd:
            await self._make((parent,), create.mknod, caller, fd, name, mode, device)
        return await self._made(parent, name, stat.S_IFMT(mode) or stat.S_IFREG)

    async def symlink(
        self, parent: Inode, name: bytes, target: bytes, caller: Caller
    ) -> Found | None:
        """Make a symbolic link to *target* as *caller*; see `mkdir`."""
        async with parent.open() as fd:
            await self._make((parent,), create.symlink, caller, target, fd, name)
        return await self._made(parent, name, stat.S_IFLNK)

    async def create(
        self, parent: Inode, name: bytes, mode: int, flags: int, caller: Caller
    ) -> int:
        """Make a file as *caller* and open it; return the descriptor.

        Where somebody behind the mount has made *name* first: ESTALE without ``O_EXCL``.
        """
        mode = stat.S_IMODE(mode)
        async with parent.open() as fd:
            return await self._make((parent,), create.make_file, caller, fd, name, mode, flags)

    async def create_unnamed(self, parent: Inode, mode: int, flags: int, caller: Caller) -> int:
        """Make a file without a name as *caller* and open it; return the descriptor."""
        mode = stat.S_IMODE(mode)
        async with parent.open() as fd:
            # Which is no change of the directory.
            return await self._executor.make(
                parent.filesystem, create.make_unnamed, caller, fd, mode, flags
            )

    async def link(self, inode: Inode, parent: Inode, name: bytes, caller: Caller) -> Found:
        """Give *inode* another name, as *caller*."""
        async with inode.open() as fd, parent.open() as directory:
            looks = await self._make((inode, parent), changes.link, caller, fd, directory, name)
            self._settle(inode, looks)
        try:
            return await self._names.lookup_anew(parent, name)
        except OSError:
            if looks[1] is None:
                raise
            return Found(inode, looks[1])

    # -- removing and moving -----------------------------------------------------------------

    async def unlink(self, parent: Inode, name: bytes, caller: Caller) -> None:
        """Remove a name, as *caller*; the file lives on while it has others or is open."""
        await self._remove(changes.unlink, parent, name, caller)

    async def rmdir(self, parent: Inode, name: bytes, caller: Caller) -> None:
        """Remove an empty directory, as *caller*."""
        await self._remove(changes.rmdir, parent, name, caller)

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
        async with parent.open() as directory, new_parent.open() as new_directory:
            moved = await self._known(parent, directory, name)
            replaced = await self._known(new_parent, new_directory, new_name)
            async with contextlib.AsyncExitStack() as stack:
                fds = await self._open_known(stack, moved, replaced)
                looks = await self._make(
                    (parent, new_parent, *fds),
                    changes.rename,
                    caller,
                    list(fds.values()),
                    (directory, name),
                    (new_directory, new_name),
                    flags,
                )
                for inode, its_looks in zip(fds, looks, strict=True):
                    self._settle(inode, its_looks)
            if moved is not None:
                self._inodes.moved(moved, new_parent, new_name)
            if replaced is not None and flags & _RENAME_EXCHANGE:
                self._inodes.moved(replaced, parent, name)
            elif replaced is not None:
                self._unnamed(replaced)

    # -- attributes --------------------------------------------------------------------------

    async def chmod(self, inode: Inode, mode: int, caller: Caller) -> Stat | None:
        """Change the permission bits; return the attributes, None if they cannot be had."""
        return await self._change(inode, changes.chmod, caller, stat.S_IMODE(mode))

    async def chown(self, inode: Inode, uid: int, gid: int, caller: Caller) -> Stat | None:
        """Change owner and group, -1 for what is to stay; see `chmod`."""
        return await self._change(inode, changes.chown, caller, uid, gid)

    async def utimens(self, inode: Inode, times: tuple[int, int], caller: Caller) -> Stat | None:
        """Set access and modification time: ns since the epoch, `UTIME_NOW` or `UTIME_OMIT`."""
        return await self._change(inode, changes.set_times, caller, *times)

    async def setxattr(self, inode: Inode, name: bytes, value: bytes, caller: Caller) -> None:
        """Set an extended attribute, as *caller*."""
        await self._change(inode, changes.setxattr, caller, name, value)

    async def removexattr(self, inode: Inode, name: bytes, caller: Caller) -> None:
        """Remove an extended attribute, as *caller*."""
        await self._change(inode, changes.removexattr, caller, name)

    # -- inside ------------------------------------------------------------------------------

    async def _made(self, parent: Inode, name: bytes, kind: int) -> Found | None:
        """Look at what was just made as *name*, of that *kind* (``S_IFMT``).

        None where that fails or it is another one.
        """
        try:
            found = await self._names.lookup_anew(parent, name)
        except OSError:
            return None
        return found if stat.S_IFMT(found.info.st_mode) == kind else None

    async def _change(
        self, inode: Inode, change: Callable[..., Looks], caller: Caller, *args: Any
    ) -> Stat | None:
        async with inode.open() as fd:
            looks = await self._make((inode,), change, caller, fd, *args)
            self._settle(inode, looks)
            return looks[1] or looks[0]

    async def _remove(
        self, remove: Callable[..., list[Looks]], parent: Inode, name: bytes, caller: Caller
    ) -> None:
        async with parent.open() as directory, contextlib.AsyncExitStack() as stack:
            known = await self._known(parent, directory, name)
            fds = await self._open_known(stack, known)
            inodes = (parent, *fds)
            looks = await self._make(inodes, remove, caller, list(fds.values()), directory, name)
            for inode, its_looks in zip(fds, looks, strict=True):
                self._settle(inode, its_looks)
                if its_looks[1] is not None:
                    self._unnamed(inode)

    async def _known(self, parent: Inode, directory: int, name: bytes) -> Inode | None:
        """Return the inode that *name* leads to, if it is known; with a descriptor, if at once."""
        try:
            if parent.filesystem.local and (fd := open_cached(directory, name)) is not None:
                return self._inodes.known_open(parent, fd)
            return self._inodes.known(parent, await self._names.look(parent, directory, name))
        except OSError:
            return None

    async def _open_known(
        self, stack: contextlib.AsyncExitStack, *inodes: Inode | None
    ) -> dict[Inode, int]:
        """Return descriptors, open in *stack*, of those of *inodes* that there are and reached."""
        fds: dict[Inode, int] = {}
        for inode in inodes:
            if inode is not None and inode not in fds:
                with contextlib.suppress(OSError):  # it was looked at, or will be
                    fds[inode] = await stack.enter_async_context(inode.open())
        return fds

    async def _make(self, inodes: Sequence[Inode], change: Callable[..., T], *args: Any) -> T:
        """Make a call that changes *inodes*, which are on one filesystem."""
        try:
            return await self._executor.make(inodes[0].filesystem, change, *args)
        finally:
            self._executor.note_change(*inodes)

    def _settle(self, inode: Inode, looks: Looks) -> None:
        """Take note of what a change of ours did to *inode*; None where it could not be looked at.

        That is no failure of the change. Where files go by path, one has gone with its name.
        """
        before, after = looks
        self._changed(inode, before, after)
        if after is None:
            self._inodes.descriptors.lose(inode)
        elif not after.st_nlink:
            # No name leads there any more; only the descriptor does.
            inode.keep_open()

    def _unnamed(self, inode: Inode) -> None:
        """Take note that a name of *inode* has gone, which may have been its last."""
        if inode.filesystem.by_path and inode.data is not None and inode.fd >= 0:
            # It is open, and lives on under a name that only its filesystem knows.
            inode.keep_open()
