"""The inodes of a backing directory that are known, and the descriptors by which they are reached.

A `Node` stands for one inode for as long as the kernel, or an open file, knows it. It is reached
through an ``O_PATH`` descriptor, so that renames and links do not matter and nothing leads out of
the source directory. Descriptors are only a cache: at most `NodeTable.limit` are open, and a node
that lost its own gets another by file handle where that is permitted (CAP_DAC_READ_SEARCH), else
by its parent and name, checked against what it was.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import OrderedDict
from types import TracebackType
from typing import Any

from tmemfs.syscalls import file_handle, open_file_handle

_OPEN_FLAGS = os.O_PATH | os.O_NOFOLLOW

Key = tuple[int, int]


class Node:
    """One inode: `key` is (device, inode number), `generation` tells reuses of a number apart.

    Use it as a context manager to get a descriptor that stays open inside the block::

        with node as fd:
            ...
    """

    __slots__ = (
        "_fd",
        "_handle",
        "_pins",
        "_table",
        "data",
        "generation",
        "is_directory",
        "key",
        "name",
        "parent",
        "told",
    )

    def __init__(
        self,
        table: NodeTable,
        info: os.stat_result,
        handle: bytes | None,
        parent: Node | None,
        name: bytes,
    ) -> None:
        self.key = (info.st_dev, info.st_ino)
        self.generation = _generation(handle)
        self.is_directory = stat.S_ISDIR(info.st_mode)
        self.parent = parent
        self.name = name
        self.data: Any = None
        """What the volume knows of the file's bytes while it is open."""
        self.told = -1
        """The size that the kernel takes the file to have."""
        self._table = table
        self._handle = handle
        self._fd = -1
        self._pins = 0

    @property
    def object_id(self) -> int:
        """The tmem object id: device, inode number and generation, 64 bits each."""
        device, inode = self.key
        return device << 128 | inode << 64 | self.generation

    def __enter__(self) -> int:
        # Pinned first, or making room among the descriptors could close this very one.
        self._pins += 1
        try:
            if self._fd < 0:
                self._table.reopen(self)
        except BaseException:
            self._pins -= 1
            raise
        self._table.used(self)
        return self._fd

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pins -= 1

    def keep_open(self) -> None:
        """Never close the descriptor again before the node goes: its last name is going."""
        if self._fd < 0:
            self._table.reopen(self)
        self._pins += 1


class NodeTable:
    """The nodes below the directory *root_fd*, with at most *limit* descriptors open.

    The table owns *root_fd* and closes it with the others.
    """

    def __init__(self, root_fd: int, limit: int) -> None:
        self.limit = max(limit, 16)
        self._root_fd = root_fd
        self._nodes: dict[Key, Node] = {}
        self._open: OrderedDict[Node, None] = OrderedDict()
        self._by_handle = True
        info = os.fstat(root_fd)
        self.device = info.st_dev
        self.root = Node(self, info, _handle(root_fd), None, b"")
        self.root._fd = root_fd
        self.root._pins = 1
        self._nodes[self.root.key] = self.root

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def open_descriptors(self) -> int:
        """How many nodes have a descriptor now."""
        return len(self._open)

    def learn(self, parent: Node, name: bytes, info: os.stat_result, handle: bytes | None) -> Node:
        """Return the node of what `look` found as *name* in *parent*, known or new."""
        key = (info.st_dev, info.st_ino)
        node = self._nodes.get(key)
        # An open descriptor keeps the inode, and with it the number, from being used again.
        if node is None or (node._fd < 0 and node.generation != _generation(handle)):
            node = self._nodes[key] = Node(self, info, handle, parent, name)
        elif node is not self.root:
            node.parent, node.name = parent, name
        return node

    def known(self, info: os.stat_result) -> Node | None:
        """Return the node that has these attributes' device and inode number, if there is one."""
        return self._nodes.get((info.st_dev, info.st_ino))

    def forget(self, node: Node) -> None:
        """Close what *node* holds: neither the kernel nor an open file knows it any more."""
        if self._nodes.get(node.key) is node and node is not self.root:
            del self._nodes[node.key]
        if node is not self.root:
            self._close(node)

    def close(self) -> None:
        """Close every descriptor, the root's too."""
        for node in list(self._open):
            self._close(node)
        self._nodes.clear()
        os.close(self._root_fd)

    # -- for Node ----------------------------------------------------------------------------

    def used(self, node: Node) -> None:
        """Count *node*'s descriptor as the last to be closed."""
        if node is not self.root:
            self._open.move_to_end(node)

    def reopen(self, node: Node) -> None:
        """Give *node* a descriptor again. Raises ESTALE when its inode cannot be found."""
        node._fd = self._open_again(node)
        self._open[node] = None
        self._shrink()

    # -- inside ------------------------------------------------------------------------------

    def _open_again(self, node: Node) -> int:
        fd = self._open_by_handle(node)
        if fd < 0:
            if node.parent is None:
                raise OSError(errno.ESTALE, "inode cannot be reached any more")
            with node.parent as directory:
                try:
                    fd = os.open(node.name, _OPEN_FLAGS, dir_fd=directory)
                except (FileNotFoundError, NotADirectoryError) as error:
                    # Not ENOENT, which the kernel would take for the last word: the inode may
                    # have another name, under which it is found after ESTALE.
                    raise OSError(errno.ESTALE, "the name is gone", node.name) from error
        info = os.fstat(fd)
        if (info.st_dev, info.st_ino) != node.key or _generation(_handle(fd)) != node.generation:
            os.close(fd)
            raise OSError(errno.ESTALE, "another file has taken the name", node.name)
        return fd

    def _open_by_handle(self, node: Node) -> int:
        # A handle is good on its own filesystem only, and the root's is the one at hand.
        if self._by_handle and node._handle is not None and node.key[0] == self.device:
            try:
                return open_file_handle(self._root_fd, node._handle, _OPEN_FLAGS)
            except PermissionError:
                self._by_handle = False
        return -1

    def _shrink(self) -> None:
        while len(self._open) > self.limit:
            idle = next((node for node in self._open if not node._pins), None)
            if idle is None:
                break
            self._close(idle)

    def _close(self, node: Node) -> None:
        if node._fd >= 0:
            os.close(node._fd)
            node._fd = -1
            self._open.pop(node, None)


def look(directory: int, name: bytes) -> tuple[os.stat_result, bytes | None]:
    """Return the attributes and the file handle of *name* in *directory*. Blocks."""
    return os.stat(name, dir_fd=directory, follow_symlinks=False), _handle(directory, name)


def look_open(fd: int) -> tuple[os.stat_result, bytes | None]:
    """Return the attributes and the file handle of what *fd* is open on. Blocks."""
    return os.fstat(fd), _handle(fd)


def _handle(directory: int, name: bytes = b"") -> bytes | None:
    try:
        return file_handle(directory, name)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EOVERFLOW, errno.ENOSYS):
            return None
        raise


def _generation(handle: bytes | None) -> int:
    if handle is None:
        return 0
    return int.from_bytes(hashlib.blake2b(handle, digest_size=8).digest(), "little")
