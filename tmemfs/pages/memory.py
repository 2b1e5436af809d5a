"""What an arena is in: addresses, of which the system lends memory for those in use."""

from __future__ import annotations

import contextlib
import mmap
from typing import Protocol

# Python 3.11 and 3.12 do not name it. Without it a large mapping is refused where the system
# does not overcommit, although most of it will never be touched.
_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)

# Touches a whole segment at once, for two thirds of what touching it page by page costs; Python
# does not name it. Kernels before 5.14 do not have it.
_MADV_POPULATE_WRITE = 23

# What gives memory back also where it is locked, as it is in a daemon that serves swap; Python
# does not name it. Kernels before 5.18 do not have it.
_MADV_DONTNEED_LOCKED = 24


class Memory(Protocol):
    """Bytes that are zeros until they are written, and take memory from then on."""

    view: memoryview

    def touch(self, start: int, size: int) -> None:
        """Have the memory of a range, as far as the system can do that at once."""

    def drop(self, start: int, size: int) -> bool:
        """Let the system have the memory of a range; say whether it took it."""

    def close(self) -> None:
        """Unmap it all."""


class PrivateMemory:
    """Memory of *size* bytes that nobody else can map."""

    def __init__(self, size: int) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        self._map = mmap.mmap(-1, size, flags=flags)
        keep_small(self._map)
        self.view = memoryview(self._map)

    def touch(self, start: int, size: int) -> None:
        populate(self._map, start, size)

    def drop(self, start: int, size: int) -> bool:
        for advice in (_MADV_DONTNEED_LOCKED, mmap.MADV_DONTNEED):
            with contextlib.suppress(OSError):
                self._map.madvise(advice, start, size)
                return True
        # Locked, and an old kernel.
        return False

    def close(self) -> None:
        unmap(self._map, self.view)


def keep_small(mapping: mmap.mmap) -> None:
    """Let a mapping take no more memory than what is touched, nor be in a core dump."""
    # A huge page would make two megabytes resident for the first byte of a segment.
    mapping.madvise(mmap.MADV_NOHUGEPAGE)
    # Other people's memory is in here: a core dump of the process leaves it out.
    mapping.madvise(mmap.MADV_DONTDUMP)


def populate(mapping: mmap.mmap, start: int, size: int) -> None:
    """Have the memory of a range of a mapping, as far as the system can do that at once."""
    with contextlib.suppress(OSError):
        mapping.madvise(_MADV_POPULATE_WRITE, start, size)


def unmap(mapping: mmap.mmap, view: memoryview) -> None:
    """Unmap the memory. Pages that were read are copies and stay valid."""
    # The traceback of an error may still hold a view of a page; the memory goes with it then.
    with contextlib.suppress(BufferError):
        view.release()
        mapping.close()
