"""Inode numbers: by which number the kernel calls a node, and how often it has looked it up."""

from __future__ import annotations

import errno
import hashlib
import os

import pyfuse3

from tmemfs.cachefs.inodes import Node, NodeTable

# Below this are the numbers of the backing filesystem itself, so that `ls -i`, `tar` and `git`
# see the same numbers as in the backing directory. From here on they are our own.
OWN_NUMBERS = 1 << 62
# What is never an inode of ours.
NO_INODE = OWN_NUMBERS - 1
# Numbers for the nodes that have to have one of ours come after those of the control files.
_FIRST_FOREIGN = OWN_NUMBERS + (1 << 32)
_FOREIGN = 1 << 61


class InodeTable:
    """The nodes that the kernel knows by number. How often it has looked it up, a node knows."""

    def __init__(self, nodes: NodeTable) -> None:
        self._nodes = nodes
        self._count = 1
        # Files of other filesystems mounted below the source, whose numbers may be taken.
        self._foreign: dict[int, Node] = {}
        self._foreign_numbers: dict[tuple[int, int, int], int] = {}
        self._taken: set[int] = set()

    def __len__(self) -> int:
        return self._count

    def node(self, number: int) -> Node:
        """Return the node that the kernel calls *number*. Raises ESTALE."""
        if number == pyfuse3.ROOT_INODE:
            return self._nodes.root
        node = self._find(number)
        if node is None or not node.lookups:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return node

    def numbers(self) -> list[int]:
        """Return every number that the kernel may use."""
        known = [self.number(node) for node in self._nodes if node.lookups]
        return [int(pyfuse3.ROOT_INODE), *known]

    def number(self, node: Node) -> int:
        """Return the number of *node*, which is the same whenever it is asked for."""
        if node is self._nodes.root:
            return int(pyfuse3.ROOT_INODE)
        inode = node.inode
        if node.device == self._nodes.device and pyfuse3.ROOT_INODE < inode < NO_INODE:
            return inode
        key = _key(node)
        if key not in self._foreign_numbers:
            # The same whenever the kernel asks anew, as long as what it is on is mounted.
            digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
            number = _FIRST_FOREIGN + int.from_bytes(digest, "little") % _FOREIGN
            while number in self._taken:
                number += 1
            self._foreign_numbers[key] = number
            self._taken.add(number)
        return self._foreign_numbers[key]

    def remember(self, node: Node) -> None:
        """Count one lookup of *node* by the kernel."""
        if node is self._nodes.root:
            return
        if not node.lookups:
            self._count += 1
            if (number := self.number(node)) >= OWN_NUMBERS:
                self._foreign[number] = node
        node.lookups += 1

    def forget(self, number: int, lookups: int) -> None:
        """Take *lookups* back; at zero the kernel will not use the number again."""
        node = self._find(number)
        if node is None or not node.lookups:
            return
        node.lookups = max(node.lookups - lookups, 0)
        if node.lookups:
            return
        self._count -= 1
        if number >= OWN_NUMBERS:
            del self._foreign[number]
            self._give_back(node)
        self._nodes.forget(node)

    def abandon(self, node: Node) -> None:
        """Forget *node* if the kernel was never told of it."""
        if not node.lookups:
            self._give_back(node)
            if node in self._nodes:
                self._nodes.forget(node)

    def _give_back(self, node: Node) -> None:
        """Let the number of *node* be another one's, if it is one of our own."""
        number = self._foreign_numbers.pop(_key(node), None)
        if number is not None:
            self._taken.discard(number)

    def _find(self, number: int) -> Node | None:
        if number >= OWN_NUMBERS:
            return self._foreign.get(number)
        return self._nodes.numbered(number)


def _key(node: Node) -> tuple[int, int, int]:
    return node.device, node.inode, node.generation
