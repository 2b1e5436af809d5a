"""The table of known inodes: by filesystem and inode number, by kernel number, and as a tree.

What is kept of them is true at all times, whatever is moved behind the mount:

* an inode is in the table once, under its place (filesystem and inode number) and, where that is
  another one, under the number by which the kernel calls it;
* parents are a tree: whoever goes from an inode to its parent, and so on, comes to an end;
* an inode leaves the table when the kernel has forgotten it and nobody has it pinned.

Nothing here waits. What a filesystem may make us wait for is done by others, in threads.
"""

from __future__ import annotations

import errno
import gc
import hashlib
import os
from collections.abc import Iterator

from tmemfs.cachefs.inode import Descriptors, Inode
from tmemfs.cachefs.source.executor import Executor
from tmemfs.cachefs.source.filesystems import Filesystem, OnMount, mount_number
from tmemfs.cachefs.source.routes import Key, Look, handle_of, look_open
from tmemfs.linux import heap

ROOT_NUMBER = 1
"""by which the kernel calls the root, as FUSE has it"""
OWN_NUMBERS = 1 << 62
"""Below this are the numbers of the backing filesystem itself, so that `ls -i`, `tar` and `git` see
the same ones as in the backing directory. From here on they are our own."""
NO_INODE = OWN_NUMBERS - 1
"""what is never an inode of ours"""

# Our own numbers for inodes that have to have one come after those of the control files.
_FIRST_FOREIGN = OWN_NUMBERS + (1 << 32)
_FOREIGN = 1 << 61
# After so many new inodes the garbage collector is told not to look at those that there are: with a
# million of them it would take a second every now and then, in which nothing is served.
_FROZEN = 4096
# So many inodes have left something in the heap that is worth the time to give it back.
_MANY = 10_000


class InodeTable:
    """The inodes below the directory *root_fd*, with at most *limit* descriptors open.

    That one is on a filesystem of the kind *kind*; on which others are, is learned with them. The
    table owns *root_fd* and closes it with the others.
    """

    def __init__(self, root_fd: int, limit: int, kind: str, executor: Executor) -> None:
        self.descriptors = Descriptors(root_fd, limit, executor, self._leave)
        # By number where that is the inode's own, which saves a tuple for each of very many; else
        # by place and by number.
        self._inodes: dict[int | Key, Inode] = {}
        self._count = 0
        self._most = 0
        self._new = 0
        info = os.fstat(root_fd)
        self._on = Filesystem(
            kind, info.st_dev, mount_number(root_fd), number=info.st_dev, is_root=True
        )
        self._filesystems: dict[int, Filesystem] = {}
        self.root = self._add(None, b"", self._on, Look(info, handle_of(root_fd)))
        self.root.number = ROOT_NUMBER
        self.descriptors.set_root(self.root)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Inode]:
        return (inode for key, inode in self._inodes.items() if self._place(inode) == key)

    def __contains__(self, inode: Inode) -> bool:
        return self._inodes.get(self._place(inode)) is inode

    # -- by name -----------------------------------------------------------------------------

    def learn(self, parent: Inode, name: bytes, look: Look, changes: int) -> Inode:
        """Return the inode of what was found as *name* in *parent*, known or new.

        It was asked for after so many *changes* of ours; what was seen earlier of a new inode may
        be from before one.
        """
        info, handle, mount = look
        on = parent.filesystem
        if mount is not None or info.st_dev != on.device:
            on = self._filesystem(on, info.st_dev, mount)
        if on.by_path:
            handle = None  # of the name, in fact: another link of the same inode has another one
        ino = info.st_ino
        own = on.is_root and ROOT_NUMBER < ino < NO_INODE
        inode = self._inodes.get(ino if own else (on.number, ino))
        # An open descriptor keeps the inode, and with it the number, from being used again.
        if inode is None or (inode.fd < 0 and inode._handle != handle):
            new = self._add(parent, name, on, look._replace(handle=handle))
            new.changed = changes
            if inode is not None and own:
                # The kernel counts by the number, whichever inode it means.
                new.lookups = inode.lookups
            return new
        if inode is not self.root and (inode.parent is not parent or inode.name != name):
            if on.by_path:
                # Where its descriptor leads, another file of that number may have been.
                self.descriptors.lose(inode)
            self.moved(inode, parent, name)
        return inode

    def known(self, parent: Inode, look: Look) -> Inode | None:
        """Return the inode of what was found in *parent*, if there is one."""
        on = self._filesystem(parent.filesystem, look.info.st_dev, look.mount)
        return self._inodes.get(_place(on, look.info.st_ino))

    def known_open(self, parent: Inode, fd: int) -> Inode | None:
        """Return the inode that *fd* is open on, found in *parent*, if it is known.

        *fd*, an ``O_PATH`` descriptor, is its own from now on, or closed.
        """
        try:
            look = look_open(fd)
            inode = self.known(parent, look)
        except BaseException:
            os.close(fd)
            raise
        if inode is not None and inode.fd < 0 and inode.has(look.handle):
            self.descriptors.adopt(inode, fd)
        else:
            os.close(fd)
        return inode

    def moved(self, inode: Inode, parent: Inode, name: bytes) -> None:
        """Note that *inode* is *name* in *parent* now. Parents stay a tree.

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

    # -- by number ---------------------------------------------------------------------------

    def inode(self, number: int) -> Inode:
        """Return the inode that the kernel calls *number*. Raises ESTALE."""
        if number == ROOT_NUMBER:
            return self.root
        found = self._inodes.get(number)
        if found is None or not found.lookups:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return found

    def numbers(self) -> list[int]:
        """Return every number that the kernel may use."""
        return [ROOT_NUMBER, *(inode.number for inode in self if inode.lookups)]

    def remember(self, inode: Inode) -> None:
        """Count one lookup of *inode* by the kernel."""
        if inode is not self.root:
            inode.lookups += 1

    def forget(self, number: int, lookups: int) -> None:
        """Take *lookups* back; at zero the kernel will not use the number again."""
        inode = self._inodes.get(number)
        if inode is None or not inode.lookups:
            return
        inode.lookups = max(inode.lookups - lookups, 0)
        if not inode.lookups:
            self._leave(inode)

    def abandon(self, inode: Inode) -> None:
        """Forget *inode* if the kernel was never told of it."""
        if not inode.lookups:
            self._leave(inode)

    def close(self) -> None:
        """Close every descriptor, the root's too."""
        self.descriptors.close_all()
        self._inodes.clear()

    # -- inside ------------------------------------------------------------------------------

    def _add(self, parent: Inode | None, name: bytes, on: Filesystem, look: Look) -> Inode:
        inode = Inode(self.descriptors, on, look.info, look.handle, parent, name)
        place = _place(on, inode.ino)
        if place not in self._inodes:
            self._count += 1
            self._most = max(self._most, self._count)
        self._inodes[place] = inode
        if isinstance(place, int):
            inode.number = place
        else:
            # The same whenever the kernel asks anew, as long as what it is on is mounted.
            key = repr((on.number, inode.ino, inode.generation)).encode()
            digest = hashlib.blake2b(key, digest_size=8).digest()
            inode.number = _FIRST_FOREIGN + int.from_bytes(digest, "little") % _FOREIGN
            while inode.number in self._inodes:
                inode.number += 1
            self._inodes[inode.number] = inode
        self._new += 1
        if not self._new % _FROZEN:
            gc.freeze()
        return inode

    def _leave(self, inode: Inode) -> None:
        """Close what *inode* holds, now or when it is not pinned any more."""
        if inode is self.root:
            return
        descriptors = self.descriptors
        if inode.pinned:
            descriptors.leaving.add(inode)
            return
        descriptors.leaving.discard(inode)
        on = inode.filesystem
        if on.by_path and on.is_root and inode.fd >= 0 and not inode.nameless and inode in self:
            descriptors.kept.add(inode)
            return
        self._drop(inode)

    def _drop(self, inode: Inode) -> None:
        """Take *inode* out of the table. The kernel does not know it any more."""
        descriptors = self.descriptors
        descriptors.kept.discard(inode)
        if inode in self:
            del self._inodes[self._place(inode)]
            self._count -= 1
            if self._count < self._most // 8:
                self._make_small()
        if self._inodes.get(inode.number) is inode:
            del self._inodes[inode.number]
        descriptors.close(inode)

    def _make_small(self) -> None:
        """Give back the memory of inodes that have gone."""
        # A dict keeps the room that it once needed.
        self._inodes = dict(self._inodes)
        if self._most >= _MANY:
            heap.cool()
        self._most = self._count

    @staticmethod
    def _place(inode: Inode) -> int | Key:
        return _place(inode.filesystem, inode.ino)

    def _filesystem(self, above: Filesystem, device: int, mount: OnMount | None) -> Filesystem:
        """Return the filesystem of what is on *device*: on the mount of *above*, or on *mount*.

        One that is not the root's has a number that is the same as long as it is mounted.
        """
        if mount is None:
            if device == above.device:
                return above
            mount = OnMount(above.mount, above.kind, above.forbids)
        if (mount.number, device) == (self._on.mount, self._on.device):
            return self._on
        text = f"{mount.number} {device}".encode()
        number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
        known = self._filesystems.get(number)
        if known is None:
            known = Filesystem(mount.kind, device, mount.number, mount.forbids, number=number)
            self._filesystems[number] = known
        else:
            known.is_now(mount)
        return known


def _place(on: Filesystem, ino: int) -> int | Key:
    """The key of an inode: its number where that is ours as well."""
    return ino if on.is_root and ROOT_NUMBER < ino < NO_INODE else (on.number, ino)
