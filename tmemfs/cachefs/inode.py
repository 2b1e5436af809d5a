"""Inodes of the backing directory, and the cache of descriptors that leads to them.

An `Inode` stands for one inode for as long as the kernel, or an open file, knows it. It is reached
through an ``O_PATH`` descriptor, so that renames and links do not matter and nothing leads out of
the source directory. Descriptors are only a cache: at most `Descriptors.limit` are open, and an
inode that lost its own gets another by file handle where that is permitted (CAP_DAC_READ_SEARCH),
else by the names that lead to it, each checked against what it was.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

from tmemfs.cachefs.source.executor import Executor
from tmemfs.cachefs.source.filesystems import Filesystem
from tmemfs.cachefs.source.routes import (
    Key,
    Route,
    Step,
    generation_of,
    reopen,
    reopen_and,
    reopen_cached,
)

T = TypeVar("T")

# Blocks of 512 bytes: freeing so many takes a filesystem long.
_LARGE = 1 << 11
# So many descriptors are looked at, at most, before it is given up to find one to close.
_TRIES = 64


class Inode:
    """One inode: `ino` is its number on its `filesystem`, `generation` tells reuses of it apart.

    There may be as many as the kernel has memory for: no more is kept of each than is needed.
    """

    __slots__ = (
        "_descriptors",
        "_handle",
        "_pins",
        "changed",
        "data",
        "fd",
        "filesystem",
        "generation",
        "ino",
        "is_directory",
        "kernel_size",
        "lookups",
        "name",
        "nameless",
        "number",
        "parent",
    )

    def __init__(
        self,
        descriptors: Descriptors,
        filesystem: Filesystem,
        info: os.stat_result,
        handle: bytes | None,
        parent: Inode | None,
        name: bytes,
    ) -> None:
        self.filesystem = filesystem
        """what it is on"""
        self.ino = info.st_ino
        self.number = 0
        """the number by which the kernel calls it (`InodeTable`)"""
        self.generation = generation_of(handle)
        self.is_directory = stat.S_ISDIR(info.st_mode)
        self.parent = parent
        self.name = name
        self.data: Any = None
        """what the volume knows of the file's bytes while it is open"""
        self.lookups = 0
        """how often the kernel has looked it up, and not forgotten it again"""
        self.kernel_size = -1
        """the size that the kernel takes the file to have"""
        self.changed = 0
        """the number of the last change that we have made to it (`Executor.note_change`)"""
        self.nameless = False
        """whether its last name has gone: nothing leads to it but its descriptor"""
        self.fd = -1
        """the descriptor that it has now, below 0 for none; it may go with the next await"""
        self._descriptors = descriptors
        self._handle = handle
        self._pins = 0

    @property
    def key(self) -> Key:
        """Device and inode number, as its filesystem has them."""
        return self.filesystem.device, self.ino

    @property
    def object_id(self) -> int:
        """The tmem object id: filesystem, inode number and generation, 64 bits each."""
        return self.filesystem.number << 128 | self.ino << 64 | self.generation

    def has(self, handle: bytes | None) -> bool:
        """Whether it is the inode of that *handle*, and none that had its number before."""
        return self._handle == handle or self.filesystem.by_path

    @property
    def pinned(self) -> bool:
        """Whether somebody needs it, or its descriptor, whatever the kernel knows."""
        return self._pins > 0

    def pin(self) -> None:
        """Let it stay the inode of its number, and its descriptor open, until `unpin`."""
        self._pins += 1

    def unpin(self) -> None:
        """Take one `pin` back. What was to be forgotten meanwhile is, with the last."""
        self._pins -= 1
        descriptors = self._descriptors
        if not self._pins and (descriptors.leaving or descriptors.astray):
            descriptors.unpinned(self)

    def open(self) -> Opened:
        """Return a context in which the inode has a descriptor, its value.

        Entering it raises ESTALE where nothing leads to the inode any more.
        """
        return Opened(self)

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call *function* with a descriptor of the inode and *args*, in one thread if at all.

        It is one that asks for what a local filesystem has in memory. Raises ESTALE, see `open`.
        """
        return await self._descriptors.call(self, function, *args)

    def keep_open(self) -> None:
        """Never close the descriptor again before the inode goes: its last name has gone."""
        assert self.fd >= 0
        self.nameless = True


class Opened:
    """Keeps a descriptor of *inode* open while its context lasts."""

    __slots__ = ("_inode",)

    def __init__(self, inode: Inode) -> None:
        self._inode = inode

    async def __aenter__(self) -> int:
        inode = self._inode
        inode._pins += 1
        try:
            if inode.fd < 0:
                await inode._descriptors.reopen(inode)
        except BaseException:
            inode.unpin()
            raise
        inode._descriptors.used(inode)
        return inode.fd

    async def __aexit__(self, *error: object) -> None:
        self._inode.unpin()


class Descriptors:
    """The descriptors of inodes below the directory *root_fd*, of which *limit* may be open.

    *forget* is called with an inode that nobody needs any more. Some filesystems (sshfs and most
    others in user space) give a file another inode number as soon as nobody holds it, so that its
    pages could not be found again: there a descriptor is `kept` for as long as there is room for
    it, although the kernel has forgotten the inode.
    """

    def __init__(
        self, root_fd: int, limit: int, executor: Executor, forget: Callable[[Inode], None]
    ) -> None:
        self.limit = max(limit, 16)
        self.leaving: set[Inode] = set()
        """inodes to be forgotten with their last pin"""
        self.kept: set[Inode] = set()
        """inodes that the kernel has forgotten, and that go when there is no more room"""
        self._executor = executor
        self._forget = forget
        self._root_fd = root_fd
        self._root: Inode | None = None
        self._open: OrderedDict[Inode, None] = OrderedDict()
        self.astray: dict[Inode, list[int]] = {}
        """descriptors that are not their inode's any more, to be closed with its last pin"""
        self._away: dict[Inode, int] = {}
        self._turn = 0
        self._closing = False

    def set_root(self, root: Inode) -> None:
        """Let *root* have the root's descriptor, for good."""
        self._root = root
        root.fd, root._pins = self._root_fd, 1

    @property
    def count(self) -> int:
        """How many are open."""
        return len(self._open)

    async def reopen(self, inode: Inode) -> None:
        """Give *inode* a descriptor again. Raises ESTALE when it cannot be found."""
        if self._reopen_cached(inode):
            return
        start = self._start(inode)
        start.pin()
        try:
            route = self._route(inode)
            self.adopt(inode, await self._executor.ask(inode.filesystem, reopen, route))
        finally:
            start.unpin()

    async def call(self, inode: Inode, function: Callable[..., T], *args: Any) -> T:
        """See `Inode.call`."""
        on = inode.filesystem
        if inode.fd >= 0 or self._reopen_cached(inode):
            self.used(inode)
            if on.local:
                return function(inode.fd, *args)
            inode.pin()
            try:
                return await self._executor.ask(on, function, inode.fd, *args)
            finally:
                inode.unpin()
        start = self._start(inode)
        start.pin()
        try:
            found: tuple[int, T] = await self._executor.ask(
                on, reopen_and, self._route(inode), function, args
            )
        finally:
            start.unpin()
        self.adopt(inode, found[0])
        return found[1]

    def adopt(self, inode: Inode, fd: int) -> None:
        """Let *fd*, which is open on *inode*, be its descriptor."""
        if inode.fd >= 0:  # somebody else was quicker
            os.close(fd)
            return
        inode.fd = fd
        self._open[inode] = None
        if not inode.filesystem.is_root:
            self._away[inode] = self._turn
        self._shrink()

    def used(self, inode: Inode) -> None:
        """Count *inode*'s descriptor as the last to be closed."""
        if inode is not self._root:
            self._open.move_to_end(inode)
            if not inode.filesystem.is_root:
                self._away[inode] = self._turn

    def unpinned(self, inode: Inode) -> None:
        """Take note that the last pin of *inode* has gone."""
        if inode in self.leaving and not inode.lookups:
            self._forget(inode)
        for fd in self.astray.pop(inode, ()):
            inode.filesystem.closer.close(fd)

    def check(self, inode: Inode, info: os.stat_result) -> None:
        """Raise ESTALE if *info*, which its descriptor gave, is not of *inode*: see `lose`."""
        if inode.filesystem.by_path and (info.st_dev, info.st_ino) != inode.key:
            self.lose(inode)
            raise OSError(errno.ESTALE, "another file has taken the name", inode.name)

    def lose(self, inode: Inode) -> None:
        """Take its descriptor from *inode*, which leads elsewhere; who uses it goes on with it.

        That is so where files go by path, when another one has taken the name.
        """
        if inode.fd < 0 or inode is self._root:
            return
        if not inode.pinned:
            self.close(inode)
            return
        self.astray.setdefault(inode, []).append(inode.fd)
        inode.fd = -1
        del self._open[inode]

    def close(self, inode: Inode) -> None:
        """Close the descriptor of *inode*, if it has one."""
        if inode.fd < 0:
            return
        fd, inode.fd = inode.fd, -1
        self._open.pop(inode, None)
        self._away.pop(inode, None)
        # Of an inode that has no name any more it may be the last, with which all is freed.
        if self._closing or (inode.filesystem.local and not _frees_much(fd)):
            os.close(fd)
        else:
            inode.filesystem.closer.close(fd)

    def leave_mounts(self) -> None:
        """Close descriptors on other mounts than the root's that were not used since the last call.

        As long as one is open, nobody can unmount what it is on.
        """
        for inode, turn in list(self._away.items()):
            if turn < self._turn and not inode.pinned:
                del self._away[inode]
                self.close(inode)
        self._turn += 1

    def close_all(self) -> None:
        """Close every descriptor, the root's too."""
        self._closing = True
        for inode in list(self._open):
            self.close(inode)
        for fds in self.astray.values():
            for fd in fds:
                os.close(fd)
        os.close(self._root_fd)

    # -- inside ------------------------------------------------------------------------------

    def _reopen_cached(self, inode: Inode) -> bool:
        """Reopen *inode* if that can be done at once; say whether it was."""
        parent = inode.parent
        if parent is None or parent.fd < 0 or not parent.filesystem.local:
            return False
        fd = reopen_cached(self._route(inode))
        if fd is None:
            return False
        self.adopt(inode, fd)
        return True

    def _route(self, inode: Inode) -> Route:
        """Return how *inode* can be opened (`reopen`). Where it starts from must stay open.

        Raises ESTALE when no name leads there.
        """
        steps = []
        while inode.fd < 0:
            here = inode.filesystem.is_root
            steps.append(Step(here, inode._handle, inode.name, inode.key, inode.generation))
            if inode.parent is None:
                raise OSError(errno.ESTALE, "inode cannot be reached any more")
            inode = inode.parent
        return Route(self._root_fd, inode.fd, steps[::-1])

    @staticmethod
    def _start(inode: Inode) -> Inode:
        """Return the inode that the route to *inode* starts from."""
        while inode.fd < 0 and inode.parent is not None:
            inode = inode.parent
        return inode

    def _shrink(self) -> None:
        for _ in range(_TRIES):
            if len(self._open) <= self.limit:
                break
            inode = next(iter(self._open))
            if inode.pinned or inode.nameless:
                self.used(inode)  # or all of them would be looked at each time
            elif inode in self.kept and not inode.lookups:
                self.kept.discard(inode)
                self.close(inode)
                self._forget(inode)
            else:
                self.close(inode)


def _frees_much(fd: int) -> bool:
    """Whether the inode, on a local filesystem, goes with its last descriptor, and much in it."""
    info = os.fstat(fd)
    return not info.st_nlink and info.st_blocks > _LARGE
