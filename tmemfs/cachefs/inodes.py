"""The inodes of a backing directory that are known, and the descriptors by which they are reached.

An `Inode` stands for one inode for as long as the kernel, or an open file, knows it. It is reached
through an ``O_PATH`` descriptor, so that renames and links do not matter and nothing leads out of
the source directory. Descriptors are only a cache: at most `InodeTable.limit` are open, and an
inode that lost its own gets another by file handle where that is permitted (CAP_DAC_READ_SEARCH),
else by the names that lead to it, each checked against what it was.

Some filesystems (sshfs and most others in user space) give a file another inode number as soon as
nobody holds it, so that its pages could not be found again. There a descriptor is held for as long
as there is room for it, although the kernel has forgotten the inode.

Nothing here waits. What a filesystem may make us wait for is done by others, in threads.
"""

from __future__ import annotations

import errno
import gc
import hashlib
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from tmemfs.cachefs.source.filesystems import Filesystem, OnMount, mount_number
from tmemfs.cachefs.source.routes import Key, Look, Route, Step, generation_of, handle_of
from tmemfs.linux import heap

# Blocks of 512 bytes: freeing so many takes a filesystem long.
_LARGE = 1 << 11
# So many descriptors are looked at, at most, before it is given up to find one to close.
_TRIES = 64
# After so many new inodes the garbage collector is told not to look at those that there are: with a
# million of them it would take a second every now and then, in which nothing is served.
_FROZEN = 4096
# So many inodes have left something in the heap that is worth the time to give it back.
_MANY = 10_000


class Inode:
    """One inode: `device`, `ino` its number there, `generation` tells reuses of it apart.

    There may be as many as the kernel has memory for: no more is kept of each than is needed.

    As long as it has a descriptor, use it as a context manager to keep that open inside the block::

        with inode as fd:
            ...
    """

    __slots__ = (
        "_fd",
        "_handle",
        "_pins",
        "_table",
        "changed",
        "data",
        "device",
        "generation",
        "ino",
        "is_directory",
        "kernel_size",
        "lookups",
        "name",
        "nameless",
        "parent",
    )

    def __init__(
        self,
        table: InodeTable,
        device: int,
        info: os.stat_result,
        handle: bytes | None,
        parent: Inode | None,
        name: bytes,
    ) -> None:
        self.device = device
        """the number of what it is on (see `InodeTable.filesystem`)"""
        self.ino = info.st_ino
        self.generation = generation_of(handle)
        self.is_directory = stat.S_ISDIR(info.st_mode)
        self.parent = parent
        self.name = name
        self.data: Any = None
        """What the volume knows of the file's bytes while it is open."""
        self.lookups = 0
        """how often the kernel has looked it up, and not forgotten it again"""
        self.kernel_size = -1
        """The size that the kernel takes the file to have."""
        self.changed = 0
        """the number of the last change that we have made to it (`Executor.note_change`)"""
        self.nameless = False
        """whether its last name has gone: nothing leads to it but its descriptor"""
        self._table = table
        self._handle = handle
        self._fd = -1
        self._pins = 0

    @property
    def key(self) -> Key:
        """Device and inode number, as its filesystem has them."""
        return self.filesystem.device, self.ino

    @property
    def filesystem(self) -> Filesystem:
        """What it is on."""
        return self._table.filesystem(self.device)

    @property
    def object_id(self) -> int:
        """The tmem object id: device, inode number and generation, 64 bits each."""
        return self.device << 128 | self.ino << 64 | self.generation

    def has(self, handle: bytes | None) -> bool:
        """Whether it is the inode of that *handle*, and none that had its number before."""
        return self._handle == handle or self.filesystem.by_path

    @property
    def is_open(self) -> bool:
        """Whether it has a descriptor now."""
        return self._fd >= 0

    @property
    def fd(self) -> int:
        """The descriptor that it has now, below 0 for none."""
        return self._fd

    @property
    def pinned(self) -> bool:
        """Whether somebody needs it, or its descriptor, whatever the kernel knows."""
        return self._pins > 0

    def pin(self) -> None:
        """Let it stay the inode of its inode, and its descriptor open, until `unpin`."""
        self._pins += 1

    def unpin(self) -> None:
        """Take one `pin` back. What was to be forgotten meanwhile is, with the last."""
        self._pins -= 1
        if self._pins:
            return
        if self in self._table.leaving and not self.lookups:
            self._table.forget(self)
        for fd in self._table.astray.pop(self, ()):
            self.filesystem.closer.close(fd)

    def __enter__(self) -> int:
        assert self._fd >= 0
        self.pin()
        self._table.used(self)
        return self._fd

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.unpin()

    def keep_open(self) -> None:
        """Never close the descriptor again before the inode goes: its last name has gone."""
        assert self._fd >= 0
        self.nameless = True


class InodeTable:
    """The inodes below the directory *root_fd*, with at most *limit* descriptors open.

    That one is on a filesystem of the kind *kind*; on which others are, is learned with them. Where
    inode numbers are not theirs for good, inodes are held that the kernel has forgotten. The table
    owns *root_fd* and closes it with the others.
    """

    def __init__(self, root_fd: int, limit: int, kind: str) -> None:
        self.limit = max(limit, 16)
        self._closing = False
        self._forgotten: set[Inode] = set()
        self.leaving: set[Inode] = set()
        """inodes to be forgotten with their last pin"""
        self.astray: dict[Inode, list[int]] = {}
        """descriptors that are not the inode's any more, to be closed with its last pin"""
        self._root_fd = root_fd
        # By number where the device is the root's, which saves a tuple for each of very many.
        self._inodes: dict[int | Key, Inode] = {}
        self._most = 0
        self._new = 0
        self._open: OrderedDict[Inode, None] = OrderedDict()
        info = os.fstat(root_fd)
        self.device = info.st_dev
        self._mount = mount_number(root_fd)
        self._filesystems = {self.device: Filesystem(kind, self.device, self._mount)}
        self._away: dict[Inode, int] = {}
        self._turn = 0
        self.root = Inode(self, self.device, info, handle_of(root_fd), None, b"")
        self.root._fd = root_fd
        self.root._pins = 1
        self._inodes[self.root.ino] = self.root

    def __len__(self) -> int:
        return len(self._inodes)

    def __iter__(self) -> Iterator[Inode]:
        return iter(self._inodes.values())

    @property
    def open_descriptors(self) -> int:
        """How many inodes have a descriptor now."""
        return len(self._open)

    def filesystem(self, device: int) -> Filesystem:
        """Return the filesystem with that number (`Inode.device`)."""
        return self._filesystems[device]

    def learn(self, parent: Inode, name: bytes, look: Look, changes: int) -> Inode:
        """Return the inode of what was found as *name* in *parent*, known or new.

        It was asked for after so many *changes* of ours; what was seen earlier of a new inode may
        be from before one.
        """
        info, handle, mount = look
        device = self._device(parent, info.st_dev, mount)
        if self._filesystems[device].by_path:
            handle = None  # of the name, in fact: another link of the same inode has another one
        place = self._place(device, info.st_ino)
        inode = self._inodes.get(place)
        # An open descriptor keeps the inode, and with it the number, from being used again.
        if inode is None or (inode._fd < 0 and inode._handle != handle):
            new = self._inodes[place] = Inode(self, device, info, handle, parent, name)
            new.changed = changes
            if inode is not None and new.device == self.device:
                # The kernel counts by the number, whichever inode it means.
                new.lookups = inode.lookups
            inode = new
            self._new += 1
            if not self._new % _FROZEN:
                gc.freeze()
            self._most = max(self._most, len(self._inodes))
        elif inode is not self.root:
            if inode.filesystem.by_path and (inode.parent, inode.name) != (parent, name):
                self.lose(inode)  # where it leads, another file of that number may have been
            self._hang(inode, parent, name)
        return inode

    def known(self, parent: Inode, look: Look) -> Inode | None:
        """Return the inode of what was found in *parent*, if there is one."""
        info = look.info
        device = self._device(parent, info.st_dev, look.mount)
        return self._inodes.get(self._place(device, info.st_ino))

    def numbered(self, inode: int) -> Inode | None:
        """Return the inode of that inode number on the root's filesystem, if it is known."""
        return self._inodes.get(inode)

    def __contains__(self, inode: Inode) -> bool:
        return self._inodes.get(self._place(inode.device, inode.ino)) is inode

    def forget(self, inode: Inode) -> None:
        """Close what *inode* holds, now or when it is not pinned any more.

        The kernel does not know it any more.
        """
        if inode is self.root:
            return
        if inode.pinned:
            self.leaving.add(inode)
            return
        self.leaving.discard(inode)
        holds = inode.filesystem.by_path and inode.device == self.device
        if holds and inode.is_open and not inode.nameless and inode in self:
            self._forgotten.add(inode)
            return
        self._drop(inode)

    def moved(self, inode: Inode, parent: Inode, name: bytes) -> None:
        """Note that *inode* is *name* in *parent* now."""
        self._hang(inode, parent, name)

    def check(self, inode: Inode, info: os.stat_result) -> None:
        """Raise ESTALE if *info*, which its descriptor gave, is not of *inode*: see `lose`."""
        if inode.filesystem.by_path and (info.st_dev, info.st_ino) != inode.key:
            self.lose(inode)
            raise OSError(errno.ESTALE, "another file has taken the name", inode.name)

    def lose(self, inode: Inode) -> None:
        """Take its descriptor from *inode*, which leads elsewhere; who uses it goes on with it.

        That is so where files go by path, when another one has taken the name.
        """
        if not inode.is_open or inode is self.root:
            return
        if not inode.pinned:
            self._close(inode)
            return
        self.astray.setdefault(inode, []).append(inode._fd)
        inode._fd = -1
        del self._open[inode]

    def close(self) -> None:
        """Close every descriptor, the root's too."""
        self._closing = True
        for inode in list(self._open):
            self._close(inode)
        for fds in self.astray.values():
            for fd in fds:
                os.close(fd)
        self._inodes.clear()
        os.close(self._root_fd)

    # -- for Inode ----------------------------------------------------------------------------

    def used(self, inode: Inode) -> None:
        """Count *inode*'s descriptor as the last to be closed."""
        if inode is not self.root:
            self._open.move_to_end(inode)
        if inode.device != self.device:
            self._away[inode] = self._turn

    def leave_mounts(self) -> None:
        """Close descriptors on other mounts than the root's that were not used since the last call.

        As long as one is open, nobody can unmount what it is on.
        """
        for inode, turn in list(self._away.items()):
            if turn < self._turn and not inode.pinned:
                del self._away[inode]
                self._close(inode)
        self._turn += 1

    def route(self, inode: Inode) -> Route:
        """Return how *inode* can be opened (`reopen`). Where it starts from must stay open.

        Raises ESTALE when no name leads there.
        """
        steps = []
        while not inode.is_open:
            here = inode.device == self.device
            steps.append(Step(here, inode._handle, inode.name, inode.key, inode.generation))
            if inode.parent is None:
                raise OSError(errno.ESTALE, "inode cannot be reached any more")
            inode = inode.parent
        return Route(self._root_fd, inode._fd, steps[::-1])

    def start(self, inode: Inode) -> Inode:
        """Return the inode that the route to *inode* starts from."""
        while not inode.is_open and inode.parent is not None:
            inode = inode.parent
        return inode

    def adopt(self, inode: Inode, fd: int) -> None:
        """Let *fd*, which `reopen` returned, be the descriptor of *inode*."""
        if inode.is_open:  # somebody else was quicker
            os.close(fd)
            return
        inode._fd = fd
        self._open[inode] = None
        if inode.device != self.device:
            self._away[inode] = self._turn
        self._shrink()

    # -- inside ------------------------------------------------------------------------------

    def _hang(self, inode: Inode, parent: Inode, name: bytes) -> None:
        """Note that *inode* is *name* in *parent*. Parents are a tree, whatever is moved behind us.

        Where a directory is found below one that was known to be in it, what was known is old: that
        one has no parent until it is found again.
        """
        if parent is inode:
            return
        if inode.is_directory and inode.parent is not parent:
            above: Inode | None = parent
            while above is not None and above.parent is not inode:
                above = above.parent
            if above is not None:
                above.parent = None
        inode.parent, inode.name = parent, name

    def _place(self, device: int, inode: int) -> int | Key:
        return inode if device == self.device else (device, inode)

    def _drop(self, inode: Inode) -> None:
        place = self._place(inode.device, inode.ino)
        if self._inodes.get(place) is inode:
            del self._inodes[place]
            if len(self._inodes) < self._most // 8:
                self._make_small()
        self._forgotten.discard(inode)
        self._close(inode)

    def _make_small(self) -> None:
        """Give back the memory of inodes that have gone."""
        # A dict keeps the room that it once needed.
        self._inodes = dict(self._inodes)
        if self._most >= _MANY:
            heap.cool()
        self._most = len(self._inodes)

    def _shrink(self) -> None:
        for _ in range(_TRIES):
            if len(self._open) <= self.limit:
                break
            inode = next(iter(self._open))
            if inode.pinned or inode.nameless:
                self.used(inode)  # or all of them would be looked at each time
            elif inode in self._forgotten and not inode.lookups:
                self._drop(inode)
            else:
                self._close(inode)

    def _close(self, inode: Inode) -> None:
        if inode._fd < 0:
            return
        fd, inode._fd = inode._fd, -1
        self._open.pop(inode, None)
        self._away.pop(inode, None)
        # Of an inode that has no name any more it may be the last, with which all is freed.
        if self._closing or (inode.filesystem.local and not _frees_much(fd)):
            os.close(fd)
        else:
            inode.filesystem.closer.close(fd)

    def _device(self, parent: Inode, device: int, mount: OnMount | None) -> int:
        """Return the number for what is found in *parent* on *device*: on its mount, or on *mount*.

        What is on the root's mount has its device's. What is on another has one that is the same as
        long as that is mounted.
        """
        above = parent.filesystem
        if mount is None:
            if device == above.device:
                return parent.device
            number, kind, forbids = above.mount, above.kind, above.forbids
        else:
            number, kind, forbids = mount
        if (number, device) == (self._mount, self.device):
            return self.device
        text = f"{number} {device}".encode()
        told = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
        known = self._filesystems.get(told)
        if known is None or (known.kind, known.forbids) != (kind, forbids):
            self._filesystems[told] = Filesystem(kind, device, number, forbids)
        return told


def _frees_much(fd: int) -> bool:
    """Whether the inode, on a local filesystem, goes with its last descriptor, and much in it."""
    info = os.fstat(fd)
    return not info.st_nlink and info.st_blocks > _LARGE
