"""Inode numbers: by which number the kernel calls an inode, and how often it has looked it up."""

from __future__ import annotations

import errno
import hashlib
import os

import pyfuse3

from tmemfs.cachefs.inodes import Inode, InodeTable

# Below this are the numbers of the backing filesystem itself, so that `ls -i`, `tar` and `git`
# see the same numbers as in the backing directory. From here on they are our own.
OWN_NUMBERS = 1 << 62
# What is never an inode of ours.
NO_INODE = OWN_NUMBERS - 1
# Numbers for the inodes that have to have one of ours come after those of the control files.
_FIRST_FOREIGN = OWN_NUMBERS + (1 << 32)
_FOREIGN = 1 << 61


class InodeNumbers:
    """The inodes that the kernel knows by number. How often it has looked it up, an inode knows."""

    def __init__(self, inodes: InodeTable) -> None:
        self._inodes = inodes
        self._count = 1
        # Files of other filesystems mounted below the source, whose numbers may be taken.
        self._foreign: dict[int, Inode] = {}
        self._foreign_numbers: dict[tuple[int, int, int], int] = {}
        self._taken: set[int] = set()

    def __len__(self) -> int:
        return self._count

    def inode(self, number: int) -> Inode:
        """Return the inode that the kernel calls *number*. Raises ESTALE."""
        if number == pyfuse3.ROOT_INODE:
            return self._inodes.root
        inode = self._find(number)
        if inode is None or not inode.lookups:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return inode

    def numbers(self) -> list[int]:
        """Return every number that the kernel may use."""
        known = [self.number(inode) for inode in self._inodes if inode.lookups]
        return [int(pyfuse3.ROOT_INODE), *known]

    def number(self, inode: Inode) -> int:
        """Return the number of *inode*, which is the same whenever it is asked for."""
        if inode is self._inodes.root:
            return int(pyfuse3.ROOT_INODE)
        number = inode.ino
        if inode.device == self._inodes.device and pyfuse3.ROOT_INODE < number < NO_INODE:
            return number
        key = _key(inode)
        if key not in self._foreign_numbers:
            # The same whenever the kernel asks anew, as long as what it is on is mounted.
            digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
            number = _FIRST_FOREIGN + int.from_bytes(digest, "little") % _FOREIGN
            while number in self._taken:
                number += 1
            self._foreign_numbers[key] = number
            self._taken.add(number)
        return self._foreign_numbers[key]

    def remember(self, inode: Inode) -> None:
        """Count one lookup of *inode* by the kernel."""
        if inode is self._inodes.root:
            return
        if not inode.lookups:
            self._count += 1
            if (number := self.number(inode)) >= OWN_NUMBERS:
                self._foreign[number] = inode
        inode.lookups += 1

    def forget(self, number: int, lookups: int) -> None:
        """Take *lookups* back; at zero the kernel will not use the number again."""
        inode = self._find(number)
        if inode is None or not inode.lookups:
            return
        inode.lookups = max(inode.lookups - lookups, 0)
        if inode.lookups:
            return
        self._count -= 1
        if number >= OWN_NUMBERS:
            del self._foreign[number]
            self._give_back(inode)
        self._inodes.forget(inode)

    def abandon(self, inode: Inode) -> None:
        """Forget *inode* if the kernel was never told of it."""
        if not inode.lookups:
            self._give_back(inode)
            if inode in self._inodes:
                self._inodes.forget(inode)

    def _give_back(self, inode: Inode) -> None:
        """Let the number of *inode* be another one's, if it is one of our own."""
        number = self._foreign_numbers.pop(_key(inode), None)
        if number is not None:
            self._taken.discard(number)

    def _find(self, number: int) -> Inode | None:
        if number >= OWN_NUMBERS:
            return self._foreign.get(number)
        return self._inodes.numbered(number)


def _key(inode: Inode) -> tuple[int, int, int]:
    return inode.device, inode.ino, inode.generation
