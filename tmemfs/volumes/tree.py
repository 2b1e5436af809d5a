"""The names and attributes of a backing directory: everything but the bytes of its files.

Each method does in the backing directory what its namesake in the VFS would do there, and raises
the same OSError. Nothing is cached here but nodes; permissions are the kernel's business
(``default_permissions``), ownership of what is made is ours.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from tmemfs.syscalls import renameat2
from tmemfs.volumes.backing import Backing
from tmemfs.volumes.making import Caller, make, make_file, make_link
from tmemfs.volumes.nodes import Node, NodeTable
from tmemfs.volumes.routes import Route, look, reopen

T = TypeVar("T")
Stat = os.stat_result
Found = tuple[Node, Stat]
Look = tuple[Stat, bytes | None]

# Blocks of 512 bytes; to free so many may take some milliseconds.
_LARGE = 1 << 14


class Tree:
    """The directory tree below the root of *nodes*, reached by calls to *backing*.

    Who asks for attributes gets them, and *seen* is told (node, attributes, changes that had been
    made when they were asked for). *changed* is told (node, before, after) when an operation of
    ours has changed a known file's attributes, so that the change is not taken for somebody
    else's; *leaving* is awaited before a known file loses a name.
    """

    def __init__(
        self,
        nodes: NodeTable,
        backing: Backing,
        *,
        seen: Callable[[Node, Stat, int], None],
        changed: Callable[[Node, Stat, Stat], None],
        leaving: Callable[[Node], Awaitable[None]],
    ) -> None:
        self.nodes = nodes
        self._backing = backing
        self._call = backing.call
        self._make = backing.make
        self._seen = seen
        self._changed = changed
        self._leaving = leaving

    def reach(self, node: Node) -> Reach:
        """Return a context in which a descriptor of *node* is open, its value."""
        return Reach(self, node)

    async def reopen(self, node: Node) -> None:
        """Give *node* a descriptor again. Raises ESTALE when its inode cannot be found."""
        start = self.nodes.start(node)
        start.pin()
        try:
            self.nodes.adopt(node, await self._call(reopen, self.nodes.route(node)))
        finally:
            start.unpin()

    async def on(self, node: Node, function: Callable[..., T], *args: Any) -> T:
        """Call *function* with a descriptor of *node* and *args*: in one go, if it has to wait."""
        if node.is_open or self._backing.local:
            async with self.reach(node) as fd:
                return await self._call(function, fd, *args)
        start = self.nodes.start(node)
        start.pin()
        try:
            found: tuple[int, T] = await self._call(
                _reopen_and, self.nodes.route(node), function, args
            )
        finally:
            start.unpin()
        self.nodes.adopt(node, found[0])
        return found[1]

    # -- looking -----------------------------------------------------------------------------

    async def lookup(self, parent: Node, name: bytes) -> Found:
        """Return the node of *name* in *parent* and its attributes."""
        asked = self._backing.changes
        async with self.reach(parent) as directory:
            looked = await self._call(look, directory, name)
        return self._learn(parent, name, looked, asked)

    async def lookup_many(self, parent: Node, names: list[bytes]) -> list[Found | None]:
        """Look up some names in *parent* at once; None for each that is not there any more."""
        asked = self._backing.changes
        async with self.reach(parent) as directory:
            looks = await self._call(_look_many, directory, names)
        return [
            looked and self._learn(parent, name, looked, asked)
            for name, looked in zip(names, looks, strict=True)
        ]

    async def getattr(self, node: Node) -> Stat:
        """Return the attributes of *node*."""
        asked = self._backing.changes
        info = await self.on(node, os.fstat)
        self._seen(node, info, asked)
        return info

    async def listdir(self, node: Node) -> list[bytes]:
        """Return every name in a directory but ``.`` and ``..``."""
        async with self.reach(node) as fd:
            return await self._call(_listdir, fd)

    async def readlink(self, node: Node) -> bytes:
        """Return where a symbolic link points."""
        async with self.reach(node) as fd:
            return os.fsencode(await self._call(_readlink, fd))

    async def statfs(self) -> os.statvfs_result:
        """Return the figures of the filesystem that the root is on."""
        with self.nodes.root as fd:
            return await self._call(os.fstatvfs, fd)

    # -- making ------------------------------------------------------------------------------

    async def mkdir(self, parent: Node, name: bytes, mode: int, caller: Caller) -> Found:
        """Make a directory that belongs to *caller*."""
        async with self.reach(parent) as directory:
            await self._make(make, os.mkdir, directory, name, stat.S_IMODE(mode), caller)
        return await self.lookup(parent, name)

    async def mknod(
        self, parent: Node, name: bytes, mode: int, device: int, caller: Caller
    ) -> Found:
        """Make a file, FIFO, socket or device node that belongs to *caller*."""
        async with self.reach(parent) as directory:
            await self._make(make, os.mknod, directory, name, mode, caller, device)
        return await self.lookup(parent, name)

    async def symlink(self, parent: Node, name: bytes, target: bytes, caller: Caller) -> Found:
        """Make a symbolic link to *target* that belongs to *caller*."""
        async with self.reach(parent) as directory:
            await self._make(make_link, target, directory, name, caller)
        return await self.lookup(parent, name)

    async def create(self, parent: Node, name: bytes, mode: int, flags: int, caller: Caller) -> int:
        """Make a file that belongs to *caller* and open it; return the descriptor.

        Where somebody behind the mount has made *name* first: ESTALE without ``O_EXCL``.
        """
        async with self.reach(parent) as directory:
            return await self._make(make_file, directory, name, stat.S_IMODE(mode), flags, caller)

    async def link(self, node: Node, parent: Node, name: bytes) -> Found:
        """Give *node* another name."""
        async with self.reach(node) as fd, self.reach(parent) as directory:
            self._changed(node, *await self._make(_around, fd, _link, fd, directory, name))
        return await self.lookup(parent, name)

    # -- removing and moving -----------------------------------------------------------------

    async def unlink(self, parent: Node, name: bytes) -> None:
        """Remove a name; the file lives on while it has others or is open."""
        async with self.reach(parent) as directory:
            await self._removing(directory, name, os.unlink)

    async def rmdir(self, parent: Node, name: bytes) -> None:
        """Remove an empty directory."""
        async with self.reach(parent) as directory:
            await self._removing(directory, name, os.rmdir)

    async def rename(
        self, parent: Node, name: bytes, new_parent: Node, new_name: bytes, flags: int
    ) -> None:
        """Rename, with the flags of renameat2(2)."""
        async with self.reach(parent) as directory, self.reach(new_parent) as new_directory:
            moved = await self._known(directory, name)
            replaced = await self._known(new_directory, new_name)
            known = {node for node in (moved, replaced) if node is not None}
            if replaced is not None:
                await self._leaving(replaced)
            async with contextlib.AsyncExitStack() as stack:
                fds = {node: await stack.enter_async_context(self.reach(node)) for node in known}
                before = [await self._call(os.fstat, fd) for fd in fds.values()]
                await self._make(renameat2, directory, name, new_directory, new_name, flags)
                after = [await self._call(os.fstat, fd) for fd in fds.values()]
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
        await self._change(node, _utime, times)

    async def setxattr(self, node: Node, name: bytes, value: bytes) -> None:
        """Set an extended attribute."""
        await self._change(node, os.setxattr, name, value)

    async def removexattr(self, node: Node, name: bytes) -> None:
        """Remove an extended attribute."""
        await self._change(node, os.removexattr, name)

    async def getxattr(self, node: Node, name: bytes) -> bytes:
        """Return the value of an extended attribute."""
        async with self.reach(node) as fd:
            return await self._call(os.getxattr, inode_path(fd), name)

    async def listxattr(self, node: Node) -> list[bytes]:
        """Return the names of all extended attributes."""
        async with self.reach(node) as fd:
            return [os.fsencode(name) for name in await self._call(os.listxattr, inode_path(fd))]

    # -- inside ------------------------------------------------------------------------------

    def _learn(self, parent: Node, name: bytes, looked: Look, asked: int) -> Found:
        info, handle = looked
        node = self.nodes.learn(parent, name, info, handle)
        self._seen(node, info, asked)
        return node, info

    async def _change(self, node: Node, function: Callable[..., None], *args: Any) -> None:
        async with self.reach(node) as fd:
            path = inode_path(fd)
            self._changed(node, *await self._make(_around, fd, function, path, *args))

    async def _known(self, directory: int, name: bytes) -> Node | None:
        try:
            return self.nodes.known(await self._call(_lstat, directory, name))
        except OSError:
            return None

    async def _removing(self, directory: int, name: bytes, function: Callable[..., None]) -> None:
        node = await self._known(directory, name)
        if node is None:
            await self._make(_at, function, directory, name)
            return
        await self._leaving(node)
        async with self.reach(node) as fd:
            self._settle(node, *await self._make(_around, fd, _at, function, directory, name))

    def _settle(self, node: Node, before: Stat, after: Stat) -> None:
        self._changed(node, before, after)
        if not after.st_nlink:
            # No name leads there any more; only the descriptor does.
            node.keep_open(large=after.st_blocks > _LARGE)


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


def inode_path(fd: int) -> str:
    """A path to the very inode of an ``O_PATH`` descriptor, links not followed any further."""
    return f"/proc/self/fd/{fd}"


def _reopen_and(route: Route, function: Callable[..., T], args: tuple[Any, ...]) -> tuple[int, T]:
    fd = reopen(route)
    try:
        return fd, function(fd, *args)
    except BaseException:
        os.close(fd)
        raise


def _around(fd: int, function: Callable[..., None], *args: Any) -> tuple[Stat, Stat]:
    """Call *function*; return the attributes of *fd* before and after."""
    before = os.fstat(fd)
    function(*args)
    return before, os.fstat(fd)


def _look_many(directory: int, names: list[bytes]) -> list[Look | None]:
    looks: list[Look | None] = []
    for name in names:
        try:
            looks.append(look(directory, name))
        except FileNotFoundError:
            looks.append(None)
    return looks


def _listdir(fd: int) -> list[bytes]:
    return os.listdir(os.fsencode(inode_path(fd)))


def _lstat(directory: int, name: bytes) -> Stat:
    return os.stat(name, dir_fd=directory, follow_symlinks=False)


def _utime(path: str, times: tuple[int, int]) -> None:
    os.utime(path, ns=times)


def _readlink(fd: int) -> str:
    return os.readlink("", dir_fd=fd)


def _at(function: Callable[..., None], directory: int, name: bytes) -> None:
    function(name, dir_fd=directory)


def _link(fd: int, directory: int, name: bytes) -> None:
    os.link(inode_path(fd), name, dst_dir_fd=directory, follow_symlinks=True)
