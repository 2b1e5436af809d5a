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

# What gives memory back also where it is locked, as it is in a daemon that serves swap; Python
# does not name it. Kernels before 5.18 do not have it.
_MADV_DONTNEED_LOCKED = 24

# Segments given back that keep their memory for the next taker: touching new memory costs as
# much as an eighth of filling it with compressed pages. The budget holds as many segments in
# reserve (see tmemfs.tmem.reclaim), so that these are never beyond it.
WARM_SEGMENTS = 2


Holder = TypeVar("Holder")


class Arena(Generic[Holder]):
    """Memory for *segments* segments of *segment_size* bytes (a power of two), and the account.

    Segment numbers start at 1, so that offset 0 of the arena is never a page and a location of
    0 can mean "no page" everywhere.

    Free segments may be *warm*: they have their memory, and whoever takes one does not wait for it.
    There are up to `warm_wanted` of them: some of those that were given back, and what `warm_up`
    touches ahead of need.

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
        self.warm_wanted = WARM_SEGMENTS
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

    @property
    def warm_bytes(self) -> int:
        """Bytes of free segments that have their memory."""
        return len(self._warm) * self.segment_size

    def take(self) -> int:
        """Return the number of a segment that is now the caller's; its bytes are undefined.

        Raises MemoryError when the arena has no more: a budget above its size was allowed.
        """
        number = self._warm.pop() if self._warm else self._touched()
        self.used_segments += 1
        self.peak_segments = max(self.peak_segments, self.used_segments)
        return number

    def give(self, number: int) -> None:
        """Take segment *number* back; its memory goes to the system, apart from a warm few."""
        del self.holders[number]
        self.used_segments -= 1
        if len(self._warm) < self.warm_wanted:
            self._warm.append(number)
        else:
            self._cool(number)

    def warm_up(self, limit: int) -> bool:
        """Touch one more free segment, or let one go; say whether there is more of that to do.

        To be called until there is not. Warm segments do not bring the arena above *limit* bytes,
        apart from the few that the budget has in reserve.
        """
        wanted = self._warm_within(limit)
        if len(self._warm) > wanted:
            return self.trim(limit) and len(self._warm) > wanted
        if len(self._warm) < wanted and (self._cold or self._next < self._end):
            self._warm.append(self._touched())
            return len(self._warm) < wanted
        return False

    def trim(self, limit: int) -> bool:
        """Let one warm segment go if there are too many for *limit*; say whether one went."""
        return len(self._warm) > self._warm_within(limit) and self._cool(self._warm.pop())

    def _warm_within(self, limit: int) -> int:
        room = (limit - self.charged_bytes) // self.segment_size
        return min(self.warm_wanted, max(room, WARM_SEGMENTS))

    def _touched(self) -> int:
        """Return a free segment that was cold, with its memory."""
        if self._cold:
            number = self._cold.pop()
        elif self._next < self._end:
            number = self._next
            self._next += 1
        else:
            raise MemoryError("every segment of the arena is taken")
        with contextlib.suppress(OSError):
            start = number * self.segment_size
            self._map.madvise(_MADV_POPULATE_WRITE, start, self.segment_size)
        return number

    def _cool(self, number: int) -> bool:
        """Let the system have the memory of a free segment; say whether it took it."""
        start = number * self.segment_size
        for advice in (_MADV_DONTNEED_LOCKED, mmap.MADV_DONTNEED):
            with contextlib.suppress(OSError):
                self._map.madvise(advice, start, self.segment_size)
                self._cold.append(number)
                return True
        # Locked, and an old kernel: it keeps its memory, and so is what the next one takes.
        self._warm.insert(0, number)
        return False

    def close(self) -> None:
        """Unmap the memory. Pages that were read are copies and stay valid."""
        # The traceback of an error may still hold a view of a page; the memory goes with it then.
        with contextlib.suppress(BufferError):
            self.view.release()
            self._map.close()
