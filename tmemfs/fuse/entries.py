"""What the kernel is told of an inode, of a control file, and of what could not be looked at."""

from __future__ import annotations

import os
import stat

import pyfuse3

from tmemfs.cachefs.inode import Inode
from tmemfs.cachefs.inodes import NO_INODE, InodeTable
from tmemfs.cachefs.names import Found
from tmemfs.fuse.attributes import Timeouts, attributes, forbid
from tmemfs.fuse.control import Control, Entry

FOR_EVER = 1e9
"""a timeout in seconds"""


class Entries:
    """Makes the answers about *inodes* and what is in *control*, to be believed for *timeouts*."""

    def __init__(self, inodes: InodeTable, control: Control, timeouts: Timeouts) -> None:
        self._inodes = inodes
        self._control = control
        self._timeouts = timeouts
        self._unseen = 0

    def remember(
        self, inode: Inode, info: os.stat_result, age: float = 0.0
    ) -> pyfuse3.EntryAttributes:
        """As `found`, and count one lookup by the kernel."""
        self._inodes.remember(inode)
        return self.found(inode, info, age)

    def found(
        self, inode: Inode, info: os.stat_result, age: float = 0.0
    ) -> pyfuse3.EntryAttributes:
        """What there is to tell of *inode*, which has been known for *age* seconds."""
        number = info.st_ino if inode is self._inodes.root else inode.number
        timeouts = self._timeouts.after(age) if age else self._timeouts
        entry = attributes(info, number, inode.generation, timeouts)
        on = inode.filesystem
        if on.forbids and not on.is_root:
            forbid(entry, on.forbids)
        return entry

    def own(self, entry: Entry) -> pyfuse3.EntryAttributes:
        """What there is to tell of what is below ``.tmemfs``."""
        timeouts = self._timeouts
        if entry.size:
            # Those of a swap volume never change, and with them a loop device can say which file
            # it is on also when nobody is left to answer.
            timeouts = timeouts._replace(attr=FOR_EVER)
        return attributes(self._control.stat(entry), entry.number, 0, timeouts)

    def made(self, found: Found | None, mode: int) -> pyfuse3.EntryAttributes:
        """What the kernel is told of what was made, also where it could not be looked at since."""
        if found is not None:
            return self.remember(*found)
        entry = only_a_name()
        # Under a number that leads nowhere, and is not to be used: it looks the name up again.
        self._unseen += 1
        entry.generation = self._unseen
        entry.st_mode = pyfuse3.ModeT(mode)
        return entry

    def dot(self, parent: Inode, name: bytes) -> pyfuse3.EntryAttributes:
        """``.`` or ``..`` in *parent*, of which the kernel wants to know the number alone."""
        inode = parent if name == b"." else parent.parent or parent
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(inode.ino if inode is self._inodes.root else inode.number)
        entry.st_mode = pyfuse3.ModeT(stat.S_IFDIR)
        return entry


def only_a_name() -> pyfuse3.EntryAttributes:
    """A name that could not be looked at: the kernel lists it, and will ask who asks for more."""
    entry = pyfuse3.EntryAttributes()
    # No inode of ours, and without a kind the kernel does not take it for one; it forgets it at
    # once. But 0, which stands for "no inode" in FUSE, would make the C library skip the name.
    entry.st_ino = pyfuse3.InodeT(NO_INODE)
    entry.st_mode = pyfuse3.ModeT(0)
    entry.entry_timeout = entry.attr_timeout = 0
    return entry
