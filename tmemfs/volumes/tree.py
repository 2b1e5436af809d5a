"""The names and attributes of a backing directory: everything but the bytes of its files.

Each method does in the backing directory what its namesake in the VFS would do there, and raises
the same OSError. Nothing is cached here but nodes, and what is `Recent`; permissions are the
kernel's business (``default_permissions``), ownership of what is made is ours.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import trio

from tmemfs import supervise
from tmemfs.syscalls import renameat2
from tmemfs.volumes import calls
from tmemfs.volumes.backing import Asked, Backing, Stat
from tmemfs.volumes.making import Caller, make, make_file, make_link
from tmemfs.volumes.nodes import Node, NodeTable
from tmemfs.volumes.recent import LARGEST, Listing, Recent
from tmemfs.volumes.routes import (
    Look,
    look,
    look_across,
    look_cached,
    reopen,
    reopen_cached,
)

T = TypeVar("T")


class Found(NamedTuple):
    """A node, its attributes, and for how long (s) these have been known."""

    node: Node
    info: Stat
    age: float = 0.0


# Calls under way at once that look at what is mounted on one name.
_THREADS_OF_A_MOUNT = 16


class Tree:
    """The directory tree below the root of *nodes*, reached by calls to *backing*.

    Who asks for attributes gets them, and *seen* is told (node, attributes, when they were asked
    for). What is *recent* is not asked for again. *changed* is told (node, before, after) when an
    operation of ours has changed a known file's attributes, so that the change is not taken for
    somebody else's; *leaving* is awaited before a known file loses a name.
    """

    def __init__(
        self,
        nodes: NodeTable,
        backing: Backing,
        recent: Recent,
        *,
        seen: Callable[[Node, Stat, Asked], None],
        changed: Callable[[Node, Stat, Stat], None],
        leaving: Callable[[Node], Awaitable[None]],
    ) -> None:
        self.nodes = nodes
        self.recent = recent
        self._backing = backing
        self._counters = backing.counters
        # So few that listings, which nobody has asked for, take no threads from those who ask.
        self._listings = backing.limiter()
        self._crossings: dict[tuple[Node, bytes], trio.CapacityLimiter] = {}
        self._seen = seen
        self._changed = changed
        self._leaving = leaving

    def reach(self, node: Node) -> Reach:
        """Return a context in which a descriptor of *node* is open, its value."""
        return Reach(self, node)

    async def reopen(self, node: Node) -> None:
        """Give *node* a descriptor again. Raises ESTALE when its inode cannot be found."""
        if self._reopen_cached(node):
            return
        start = self.nodes.start(node)
        start.pin()
        try:
            route = self.nodes.route(node)
            self.nodes.adopt(node, await self._backing.ask(node.filesystem, reopen, route))
        finally:
            start.unpin()

    async def on(self, node: Node, function: Callable[..., T], *args: Any) -> T:
        """Call *function* with a descriptor of *node* and *args*: in one go, if it has to wait.

        It is one that asks for what a local filesystem has in memory.
        """
        if node.is_open or self._reopen_cached(node):
            with node as fd:
                return await self._backing.call(node.filesystem, function, fd, *args)
        start = self.nodes.start(node)
        start.pin()
        try:
            found: tuple[int, T] = await self._backing.ask(
                node.filesystem, calls.reopen_and, self.nodes.route(node), function, args
            )
        finally:
            start.unpin()
        self.nodes.adopt(node, found[0])
        return found[1]

    def _reopen_cached(self, node: Node) -> bool:
        """Reopen *node* if that can be done at once; say whether it was."""
        if node.parent is None or not (node.parent.is_open and node.parent.filesystem.local):
            return False
        fd = reopen_cached(self.nodes.route(node))
        if fd is None:
            return False
        self.nodes.adopt(node, fd)
        return True

    # -- looking -----------------------------------------------------------------------------

    async def lookup(self, parent: Node, name: bytes) -> Found:
        """Return the node of *name* in *parent* and its attributes."""
        now = self._backing.asking()
        if self.recent.lacks(parent, name):
            self._counters.recalled_names += 1
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        listing = self.recent.listing(parent, now)
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
            self.recent.missed(parent, name, now)
            raise
        self.recent.found(parent, now)
        return found

    async def look_up(self, parent: Node, name: bytes) -> Found:
        """As `lookup`, whatever is known already."""
        asked = self._backing.asking()
        async with self.reach(parent) as directory:
            try:
                looked = await self._look(parent, directory, name)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                looked = await self._look_across(parent, directory, name)
        return self.learn(parent, name, looked, asked)

    async def look_many(self, parent: Node, names: list[bytes]) -> list[Look | OSError]:
        """Look at some names in *parent* for a listing of it; an error for each that has one.

        What is mounted there is not looked at (EXDEV): it may not answer, and who lists the
        directory has not asked for it.
        """
        async with self.reach(parent) as directory:
            if not parent.filesystem.local:
                return await self._backing.ask(parent.filesystem, calls.look_many, directory, names)
            found = calls.look_many_cached(directory, names)
            rest = [name for name, look in zip(names, found, strict=True) if look is None]
            others: Iterator[Look | OSError] = iter(
                await self._backing.ask(parent.filesystem, calls.look_many, directory, rest)
                if rest
                else ()
            )
            return [look or next(others) for look in found]

    def learn(self, parent: Node, name: bytes, look: Look, asked: Asked) -> Found:
        """Return the node of what was found as *name* in *parent*, when it was *asked* for."""
        self.recent.heard(parent, name, asked)
        return self._learned(parent, name, look, asked)

    async def getattr(self, node: Node) -> Found:
        """Return *node* and its attributes, which need not be quite new."""
        if (recent := self.recent.attributes(node)) is not None:
            node.told = recent[0].st_size
            self._counters.recalled_attributes += 1
            return Found(node, *recent)
        return Found(node, await self.fstat(node))

    async def fstat(self, node: Node) -> Stat:
        """Return the attributes of *node* as they are now."""
        asked = self._backing.asking()
        info = await self.on(node, os.fstat)
        self.recent.note(node, info, asked)
        self._seen(node, info, asked)
        return info

    async def listdir(self, node: Node) -> bytes:
        """Return every name in a directory, ``.`` and ``..`` first, with a NUL after each."""
        async with self.reach(node) as fd:
            return await self._backing.ask(node.filesystem, calls.listdir, fd)

    async def readlink(self, node: Node) -> bytes:
        """Return where a symbolic link points."""
        async with self.reach(node) as fd:
            return os.fsencode(await self._backing.ask(node.filesystem, calls.readlink, fd))

    async def statfs(self) -> os.statvfs_result:
        """Return the figures of the filesystem that the root is on."""
        root = self.nodes.root
        with root as fd:
            return await self._backing.ask(root.filesystem, os.fstatvfs, fd)

    # -- making ------------------------------------------------------------------------------

    async def mkdir(self, parent: Node, name: bytes, mode: int, caller: Caller) -> Found:
        """Make a directory that belongs to *caller*."""
        async with self.reach(parent) as directory:
            mode = stat.S_IMODE(mode)
            await self._make((parent,), make, os.mkdir, directory, name, mode, caller)
        return await self.look_up(parent, name)

    async def mknod(
        self, parent: Node, name: bytes, mode: int, device: int, caller: Caller
    ) -> Found:
        """Make a file, FIFO, socket or device node that belongs to *caller*."""
        async with self.reach(parent) as directory:
            await self._make((parent,), make, os.mknod, directory, name, mode, caller, device)
        return await self.look_up(parent, name)

    async def symlink(self, parent: Node, name: bytes, target: bytes, caller: Caller) -> Found:
        """Make a symbolic link to *target* that belongs to *caller*."""
        async with self.reach(parent) as directory:
            await self._make((parent,), make_link, target, directory, name, caller)
        return await self.look_up(parent, name)

    async def create(self, parent: Node, name: bytes, mode: int, flags: int, caller: Caller) -> int:
        """Make a file that belongs to *caller* and open it; return the descriptor.

        Where somebody behind the mount has made *name* first: ESTALE without ``O_EXCL``.
        """
        async with self.reach(parent) as directory:
            mode = stat.S_IMODE(mode)
            return await self._make((parent,), make_file, directory, name, mode, flags, caller)

    async def link(self, node: Node, parent: Node, name: bytes) -> Found:
        """Give *node* another name."""
        async with self.reach(node) as fd, self.reach(parent) as directory:
            made = await self._make(
                (node, parent), calls.around, fd, calls.link, fd, directory, name
            )
            self._changed(node, *made)
        return await self.look_up(parent, name)

    # -- removing and moving -----------------------------------------------------------------

    async def unlink(self, parent: Node, name: bytes) -> None:
        """Remove a name; the file lives on while it has others or is open."""
        async with self.reach(parent) as directory:
            await self._removing(parent, directory, name, os.unlink)

    async def rmdir(self, parent: Node, name: bytes) -> None:
        """Remove an empty directory."""
        async with self.reach(parent) as directory:
            await self._removing(parent, directory, name, os.rmdir)

    async def rename(
        self, parent: Node, name: bytes, new_parent: Node, new_name: bytes, flags: int
    ) -> None:
        """Rename, with the flags of renameat2(2)."""
        async with self.reach(parent) as directory, self.reach(new_parent) as new_directory:
            moved = await self._known(parent, directory, name)
            replaced = await self._known(new_parent, new_directory, new_name)
            known = {node for node in (moved, replaced) if node is not None}
            if replaced is not None:
                await self._leaving(replaced)
            async with contextlib.AsyncExitStack() as stack:
                fds = {node: await stack.enter_async_context(self.reach(node)) for node in known}
                before = [await self._fstat(node, fd) for node, fd in fds.items()]
                nodes = (parent, new_parent, *known)
                await self._make(nodes, renameat2, directory, name, new_directory, new_name, flags)
                after = [await self._fstat(node, fd) for node, fd in fds.items()]
                for node, old, new in zip(fds, before, after, strict=True):
                    self._settle(node, old, new)
            if moved is not None:
                moved.parent, moved.name = new_parent, new_name
            if replaced is not None and flags & _RENAME_EXCHANGE:
                replaced.parent, replaced.name = parent, name

    # -- attributes --------------------------------------------------------------------------

    async def chmod(self, node: Node, mode: int) -> None:
        """Change the permission bits."""
        await self._change(node, os.chmod, stat.S_IMODE(mode))

    async def chown(self, node: Node, uid: int, gid: int) -> None:
        """Change owner and group, -1 for what is to stay."""
        await self._change(node, os.chown, uid, gid)

    async def utimens(self, node: Node, times: tuple[int, int]) -> None:
        """Set access and modification time in ns since the epoch."""
        await self._change(node, calls.utime, times)

    async def setxattr(self, node: Node, name: bytes, value: bytes) -> None:
        """Set an extended attribute."""
        await self._change(node, os.setxattr, name, value)

    async def removexattr(self, node: Node, name: bytes) -> None:
        """Remove an extended attribute."""
        await self._change(node, os.removexattr, name)

    async def getxattr(self, node: Node, name: bytes) -> bytes:
        """Return the value of an extended attribute."""
        async with self.reach(node) as fd:
            path = calls.inode_path(fd)
            return await self._backing.call(node.filesystem, os.getxattr, path, name)

    async def listxattr(self, node: Node) -> list[bytes]:
        """Return the names of all extended attributes."""
        async with self.reach(node) as fd:
            path = calls.inode_path(fd)
            names = await self._backing.call(node.filesystem, os.listxattr, path)
            return [os.fsencode(name) for name in names]

    # -- inside ------------------------------------------------------------------------------

    async def _look(self, parent: Node, directory: int, name: bytes) -> Look:
        """Look at *name* in *parent*, which is open as *directory*. EXDEV where a mount is."""
        if parent.filesystem.local and (found := look_cached(directory, name)) is not None:
            return found
        return await self._backing.ask(parent.filesystem, look, directory, name)

    async def _look_across(self, parent: Node, directory: int, name: bytes) -> Look:
        """Look at what is mounted on *name* in *parent*: in threads that nobody else needs."""
        mounted = parent, name
        limiter = self._crossings.setdefault(mounted, trio.CapacityLimiter(_THREADS_OF_A_MOUNT))
        try:
            return await self._backing.ask_by(limiter, look_across, directory, name)
        finally:
            if not limiter.borrowed_tokens:
                self._crossings.pop(mounted, None)

    async def _fstat(self, node: Node, fd: int) -> Stat:
        return await self._backing.call(node.filesystem, os.fstat, fd)

    def _learned(self, parent: Node, name: bytes, looked: Look, asked: Asked) -> Found:
        node = self.nodes.learn(parent, name, looked, asked.changes)
        info = looked.info
        self.recent.update(node, info, asked)
        self._seen(node, info, asked)
        return Found(node, info)

    async def _change(self, node: Node, function: Callable[..., None], *args: Any) -> None:
        async with self.reach(node) as fd:
            path = calls.inode_path(fd)
            self._changed(node, *await self._make((node,), calls.around, fd, function, path, *args))

    async def _known(self, parent: Node, directory: int, name: bytes) -> Node | None:
        try:
            return self.nodes.known((await self._look(parent, directory, name)).info)
        except OSError:
            return None

    async def _removing(
        self, parent: Node, directory: int, name: bytes, function: Callable[..., None]
    ) -> None:
        node = await self._known(parent, directory, name)
        if node is None:
            await self._make((parent,), calls.at, function, directory, name)
            return
        await self._leaving(node)
        async with self.reach(node) as fd:
            change = (calls.around, fd, calls.at, function, directory, name)
            self._settle(node, *await self._make((node, parent), *change))

    async def _make(self, nodes: Sequence[Node], function: Callable[..., T], *args: Any) -> T:
        """Make a call that changes *nodes*, which are on one filesystem."""
        try:
            return await self._backing.make(nodes[0].filesystem, function, *args)
        finally:
            self._backing.note_change(*nodes)

    async def _list(self, parent: Node, listing: Listing) -> None:
        """See what there is in *parent*, which is pinned for it."""
        looks: dict[bytes, Look] | None = None
        try:
            async with self.reach(parent) as directory:
                looks = await self._backing.wait(
                    self._listings, calls.look_at_all, directory, LARGEST, safe=True
                )
        finally:
            self.recent.listed(parent, listing, looks)
            parent.unpin()

    def _from_listing(self, parent: Node, name: bytes, listing: Listing) -> Found | None:
        """What *listing* says of *name*, if nothing has happened since that it cannot know."""
        found = self.recent.told_by(listing, name)
        if found is None or parent.changed > listing.asked.changes:
            return None
        look, age = found
        node = self.nodes.known(look.info)
        if node is None:
            # Who knows whether we have changed it since.
            if self._backing.changes > listing.asked.changes:
                return None
        elif (
            node.data is not None  # of a file that is open, more is known
            or node.changed > listing.asked.changes
            or not node.has(look.handle)
            or self.recent.is_newer(node, listing.asked)
        ):
            return None
        return self._learned(parent, name, look, listing.asked)._replace(age=age)

    def _settle(self, node: Node, before: Stat, after: Stat) -> None:
        self._changed(node, before, after)
        if not after.st_nlink:
            # No name leads there any more; only the descriptor does.
            node.keep_open()


class Reach:
    """Keeps a descriptor of *node* open while its context lasts."""

    __slots__ = ("_node", "_tree")

    def __init__(self, tree: Tree, node: Node) -> None:
        self._tree = tree
        self._node = node

    async def __aenter__(self) -> int:
        node = self._node
        node.pin()
        try:
            if not node.is_open:
                await self._tree.reopen(node)
            return node.__enter__()
        finally:
            node.unpin()

    async def __aexit__(self, *error: object) -> None:
        self._node.__exit__(None, None, None)


_RENAME_EXCHANGE = 2
