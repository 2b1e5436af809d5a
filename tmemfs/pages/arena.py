"""One anonymous mapping, cut into segments that are taken and given back whole.

The mapping is as large as a budget may ever become; the system lends memory only for the parts
that are in use, and takes it back when a segment is given back. That makes the budget exact,
which objects on a heap are not: a heap keeps what a scattered half of its objects leaves behind.
"""

import contextlib
import mmap
from typing import Generic, TypeVar

# Python 3.11 and 3.12 do not name it. Without it a large mapping is refused where the system
# does not overcommit, although most of it will never be touched.
_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)

# Touches a whole segment at once, for two thirds of what touching it page by page costs; Python
# does not name it. Kernels before 5.14 do not have it.
_MADV_POPULATE_WRITE = 23

# Segments given back that keep their memory for the next taker: touching new memory costs as
# much as an eighth of filling it with compressed pages. The budget holds as many segments in
# reserve (see tmemfs.tmem.reclaim), so that these are never beyond it.
WARM_SEGMENTS = 2


Holder = TypeVar("Holder")


class Arena(Generic[Holder]):
    """Memory for *segments* segments of *segment_size* bytes (a power of two), and the account.

    Segment numbers start at 1, so that offset 0 of the arena is never a page and a location of
    0 can mean "no page" everywhere.

    The account has two parts: `used_bytes`, the segments that are taken, and `metadata_bytes`,
    which whoever keeps tables about pages adds to and takes from. `holders` tells who holds a
    taken segment; the taker writes it.
    """

    def __init__(self, segments: int, segment_size: int) -> None:
        if segment_size & (segment_size - 1) or segment_size < mmap.PAGESIZE:
            raise ValueError(f"segment size {segment_size} is not a power of two of pages")
        self.segment_size = segment_size
        self.segment_bits = segment_size.bit_length() - 1
        self.holders: dict[int, Holder] = {}
        self.used_segments = 0
        self.peak_segments = 0
        self.metadata_bytes = 0
        self._next = 1
        self._end = segments + 1
        self._cold: list[int] = []
        self._warm: list[int] = []
        self._map = mmap.mmap(
            -1,
            self._end * segment_size,
            flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE,
        )
        # A huge page would make two megabytes resident for the first byte of a segment.
        self._map.madvise(mmap.MADV_NOHUGEPAGE)
        self.view = memoryview(self._map)

    @property
    def used_bytes(self) -> int:
        """Bytes of all segments that are taken."""
        return self.used_segments * self.segment_size

    @property
    def charged_bytes(self) -> int:
        """What counts against a budget: segments and the tables about what is in them."""
        return self.used_segments * self.segment_size + self.metadata_bytes

    def take(self) -> int:
        """Return the number of a segment that is now the caller's; its bytes are undefined.

        Raises MemoryError when the arena has no more: a budget above its size was allowed.
        """
        if self._warm:
            number = self._warm.pop()
        elif self._cold:
            number = self._cold.pop()
            self._touch(number)
        elif self._next < self._end:
            number = self._next
            self._next += 1
            self._touch(number)
        else:
            raise MemoryError("every segment of the arena is taken")
        self.used_segments += 1
        self.peak_segments = max(self.peak_segments, self.used_segments)
        return number

    def give(self, number: int) -> None:
        """Take segment *number* back; its memory goes to the system, apart from a warm few."""
        del self.holders[number]
        self.used_segments -= 1
        if len(self._warm) < WARM_SEGMENTS:
            self._warm.append(number)
        else:
            self._map.madvise(mmap.MADV_DONTNEED, number * self.segment_size, self.segment_size)
            self._cold.append(number)

    def _touch(self, number: int) -> None:
        with contextlib.suppress(OSError):
            start = number * self.segment_size
            self._map.madvise(_MADV_POPULATE_WRITE, start, self.segment_size)

    def close(self) -> None:
        """Unmap the memory. Pages that were read are copies and stay valid."""
        # The traceback of an error may still hold a view of a page; the memory goes with it then.
        with contextlib.suppress(BufferError):
            self.view.release()
            self._map.close()
