"""Inode numbers: by which number the kernel calls a node, and how often it has looked it up."""

from __future__ import annotations

import errno
import os

import pyfuse3

from tmemfs.volumes.nodes import Node, NodeTable

# Below this are the numbers of the backing filesystem itself, so that `ls -i`, `tar` and `git`
# see the same numbers as in the backing directory. From here on they are our own.
OWN_NUMBERS = 1 << 62
# Numbers for the nodes that have to have one of ours come after those of the control files.
_FIRST_FOREIGN = OWN_NUMBERS + (1 << 32)


class InodeTable:
    """The nodes that the kernel knows by number, each with its lookup count."""

    def __init__(self, nodes: NodeTable) -> None:
        self._nodes = nodes
        self._known: dict[int, Node] = {pyfuse3.ROOT_INODE: nodes.root}
        self._lookups: dict[int, int] = {}
        # Files of other filesystems mounted below the source, whose numbers may be taken.
        self._foreign: dict[tuple[int, int, int], int] = {}
        self._next_foreign = _FIRST_FOREIGN

    def __len__(self) -> int:
        return len(self._known)

    def node(self, number: int) -> Node:
        """Return the node that the kernel calls *number*. Raises ESTALE."""
        node = self._known.get(number)
        if node is None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return node

    def numbers(self) -> list[int]:
        """Return every number that the kernel may use."""
        return list(self._known)

    def number(self, node: Node) -> int:
        """Return the number of *node*, which is the same whenever it is asked for."""
        if node is self._nodes.root:
            return int(pyfuse3.ROOT_INODE)
        device, inode = node.key
        if device == self._nodes.device and pyfuse3.ROOT_INODE < inode < OWN_NUMBERS:
            return inode
        key = (device, inode, node.generation)
        if key not in self._foreign:
            self._foreign[key] = self._next_foreign
            self._next_foreign += 1
        return self._foreign[key]

    def remember(self, node: Node) -> None:
        """Count one lookup of *node* by the kernel."""
        if node is self._nodes.root:
            return
        number = self.number(node)
        # A number that was used again means the new node; the kernel tells them apart by the
        # generation, and counts lookups of both under the number.
        self._known[number] = node
        self._lookups[number] = self._lookups.get(number, 0) + 1

    def forget(self, number: int, lookups: int) -> None:
        """Take *lookups* back; at zero the kernel will not use the number again."""
        left = self._lookups.get(number, 0) - lookups
        if left > 0:
            self._lookups[number] = left
            return
        self._lookups.pop(number, None)
        node = self._known.pop(number, None) if number != pyfuse3.ROOT_INODE else None
        if node is not None:
            self._foreign.pop((*node.key, node.generation), None)
            self._nodes.forget(node)
