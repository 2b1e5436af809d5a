"""The filesystems that a volume reaches: its source's, and whatever is mounted below that.

One that is *local* answers from memory what the kernel has there: to ask for that in line holds
nobody up. Any other may have to ask a server, or a process that does not answer, and is only ever
asked in a thread. Local is what is known to be, whenever it was mounted. Each filesystem has its
own threads, so that one that does not answer takes none from the others.
"""

from __future__ import annotations

from typing import NamedTuple

import trio

from tmemfs.cachefs.source.closing import Closer
from tmemfs.linux import system
from tmemfs.linux.syscalls import mount_id

# What keeps all that an inode's attributes need in memory while the inode is. Not overlay, whose
# layers may be anything, and not zfs, which stops everybody while a snapshot is rolled back.
_LOCAL = frozenset(
    ("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "bcachefs", "jfs", "tmpfs", "ramfs", "rootfs")
)
FORBIDDING = frozenset(("nosuid", "nodev", "noexec"))
"""options of a mount by which the kernel refuses what the file itself would permit"""
# Calls about names and attributes that are under way at once.
_THREADS = 128


class Filesystem:
    """What one filesystem is, and the threads that may ask it.

    It goes *by path* in user space, where an inode keeps its number as long as it is held open;
    what is in it is mounted *on demand* if it is autofs. Where the same one is mounted twice, as by
    ``mount --bind``, that makes two of them: one may forbid what the other does not.
    """

    __slots__ = (
        "by_path",
        "closer",
        "device",
        "forbids",
        "is_root",
        "kind",
        "local",
        "mount",
        "number",
        "on_demand",
        "slow_until",
        "threads",
    )

    def __init__(
        self,
        kind: str,
        device: int,
        mount: int,
        forbids: frozenset[str] = frozenset(),
        *,
        number: int = 0,
        is_root: bool = False,
    ) -> None:
        """*kind* is its name in mountinfo, empty where nothing is known.

        *device* is its number, *mount* that of its mount (`mount_number`), *number* the one that
        stands for both; *forbids* are options of the mount. The source itself *is_root*.
        """
        self.device = device
        self.mount = mount
        self.number = number
        self.is_root = is_root
        self.threads = trio.CapacityLimiter(_THREADS)
        self.slow_until = 0.0
        """until when (time.monotonic) writes to it are made in threads"""
        self.closer = Closer()
        self.is_now(OnMount(mount, kind, forbids))

    def is_now(self, mount: OnMount) -> None:
        """Take note of what the mount is by now: it may have been remounted."""
        self.kind = mount.kind
        self.forbids = mount.forbids
        self.local = mount.kind in _LOCAL
        self.by_path = mount.kind.startswith("fuse")
        self.on_demand = mount.kind == "autofs"


class OnMount(NamedTuple):
    """What is known of a mount: its `mount_number`, its filesystem's kind, what it forbids."""

    number: int
    kind: str
    forbids: frozenset[str]


def mount_number(fd: int) -> int:
    """Return a number for the mount that *fd* is open on; -1 where none can be told.

    From Linux 6.8 on no other mount gets it, also when this one has gone.
    """
    unique = mount_id(fd, unique=True)
    return unique if unique >= 0 else mount_id(fd)


def mount_of(fd: int) -> OnMount | None:
    """Return the mount that *fd* is open on, None where that cannot be told.

    The filesystem itself is not asked: it may not answer.
    """
    number = mount_id(fd)
    for mount in system.read_mounts():
        if mount.mount_id == number:
            return OnMount(mount_number(fd), mount.fstype, mount.options & FORBIDDING)
    return None


def kind_of(fd: int) -> str:
    """Return the kind of filesystem that *fd* is open on, empty where that cannot be told."""
    mount = mount_of(fd)
    return mount.kind if mount else ""
