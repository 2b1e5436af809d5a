"""From what `os.stat` says to what pyfuse3 wants to hear."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

import pyfuse3


class Timeouts(NamedTuple):
    """How long, in seconds, the kernel may believe what it has heard."""

    attr: float
    entry: float

    def after(self, age: float) -> Timeouts:
        """What is left of them for something that has been known for *age* seconds."""
        return Timeouts(max(self.attr - age, 0.0), max(self.entry - age, 0.0))


def attributes(
    info: os.stat_result, number: int, generation: int, timeouts: Timeouts
) -> pyfuse3.EntryAttributes:
    """Return the attributes *info* of inode *number*."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(number)
    entry.generation = generation
    entry.attr_timeout = timeouts.attr
    entry.entry_timeout = timeouts.entry
    entry.st_mode = pyfuse3.ModeT(info.st_mode)
    entry.st_nlink = info.st_nlink
    entry.st_uid = info.st_uid
    entry.st_gid = info.st_gid
    entry.st_rdev = info.st_rdev
    entry.st_size = info.st_size
    entry.st_blksize = info.st_blksize
    entry.st_blocks = info.st_blocks
    entry.st_atime_ns = info.st_atime_ns
    entry.st_mtime_ns = info.st_mtime_ns
    entry.st_ctime_ns = info.st_ctime_ns
    return entry


def forbid(entry: pyfuse3.EntryAttributes, options: frozenset[str]) -> None:
    """Take from *entry* what the mount that it is on forbids by these *options*.

    To the kernel it is on our mount, which may permit it.
    """
    mode = entry.st_mode
    regular = stat.S_ISREG(mode)
    if "nosuid" in options and regular:
        mode &= ~(stat.S_ISUID | stat.S_ISGID)
    if "noexec" in options and regular:
        mode &= ~0o111
    if "nodev" in options and (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
        entry.st_rdev = 0  # there is no such device: an open fails with ENXIO
    entry.st_mode = pyfuse3.ModeT(mode)


def statvfs(info: os.statvfs_result) -> pyfuse3.StatvfsData:
    """Return the figures of a filesystem."""
    data = pyfuse3.StatvfsData()
    data.f_bsize = info.f_bsize
    data.f_frsize = info.f_frsize
    data.f_blocks = info.f_blocks
    data.f_bfree = info.f_bfree
    data.f_bavail = info.f_bavail
    data.f_files = info.f_files
    data.f_ffree = info.f_ffree
    data.f_favail = info.f_favail
    data.f_namemax = info.f_namemax
    return data
