"""Memory that other processes can map as well: what is in it may outlive this one."""

from __future__ import annotations

import contextlib
import mmap
import os

from tmemfs.linux.syscalls import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, fallocate
from tmemfs.pages.memory import keep_small, populate, unmap


class SharedMemory:
    """A file of *size* bytes that is in memory alone, and mapped."""

    def __init__(self, size: int) -> None:
        self.fd = os.memfd_create("tmemfs", os.MFD_CLOEXEC)
        try:
            os.truncate(self.fd, size)
            self.map = mmap.mmap(self.fd, size)
        except BaseException:
            os.close(self.fd)
            raise
        keep_small(self.map)
        self.view = memoryview(self.map)

    def touch(self, start: int, size: int) -> None:
        populate(self.map, start, size)

    def drop(self, start: int, size: int) -> bool:
        # Also where it is locked.
        with contextlib.suppress(OSError):
            fallocate(self.fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, start, size)
            return True
        return False

    def close(self) -> None:
        unmap(self.map, self.view)
        os.close(self.fd)
