"""One anonymous mapping, cut into segments that are taken and given back whole.

The mapping is as large as a budget may ever become; the system lends memory only for the parts
that are in use, and takes it back when a segment is given back. That makes the budget exact,
which objects on a heap are not: a heap keeps what a scattered half of its objects leaves behind.
"""

import mmap
from array import array
from typing import Generic, TypeVar

from tmemfs.pages.memory import Memory, PrivateMemory

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

    The account has two parts: `used_bytes`, the segments that are taken, and `metadata_bytes`, the
    tables about pages: whoever keeps some on the heap adds to `heap_bytes` and takes from it.
    `holders` tells who holds a taken segment.

    An error that passes through, in any method, leaves each segment either taken or free.
    """

    def __init__(self, segments: int, segment_size: int, memory: Memory | None = None) -> None:
        """In *memory* (`memory_size` bytes), or in some that is the arena's alone."""
        if segment_size & (segment_size - 1) or segment_size < mmap.PAGESIZE:
            raise ValueError(f"segment size {segment_size} is not a power of two of pages")
        self.segment_size = segment_size
        self.segment_bits = segment_size.bit_length() - 1
        self.holders: dict[int, Holder] = {}
        self.used_segments = 0
        self.peak_segments = 0
        self.heap_bytes = 0
        self.warm_wanted = WARM_SEGMENTS
        # Numbers of free segments, first those that are cold, then those that are warm. It has
        # places for all that were ever free, so that to give one back takes no memory.
        self._free = array("I")
        self._cold = self._warm = 0
        self._segments = segments
        self._memory = memory or PrivateMemory(self.memory_size(segments, segment_size))
        self.view = self._memory.view

    @staticmethod
    def memory_size(segments: int, segment_size: int) -> int:
        """How many bytes of addresses so many segments need."""
        return (segments + 1) * segment_size

    @property
    def used_bytes(self) -> int:
        """Bytes of all segments that are taken."""
        return self.used_segments * self.segment_size

    @property
    def metadata_bytes(self) -> int:
        """Bytes of all tables about pages."""
        return self.heap_bytes

    @property
    def charged_bytes(self) -> int:
        """What counts against a budget: segments and the tables about what is in them."""
        return self.used_segments * self.segment_size + self.metadata_bytes

    @property
    def warm_bytes(self) -> int:
        """Bytes of free segments that have their memory."""
        return self._warm * self.segment_size

    def ready(self) -> int:
        """Return the number of the segment that is to be taken next, which is warm now.

        Raises MemoryError when the arena has no more: a budget above its size was allowed.
        """
        if not self._warm and not self._warm_one():
            raise MemoryError("every segment of the arena is taken")
        return self._free[self._cold + self._warm - 1]

    def take(self, number: int, holder: Holder) -> None:
        """Let *holder* have segment *number*, the one that is `ready`; its bytes are undefined."""
        warm, used = self._warm - 1, self.used_segments + 1
        peak = max(self.peak_segments, used)
        self.holders[number] = holder
        self._warm, self.used_segments, self.peak_segments = warm, used, peak

    def give(self, number: int) -> None:
        """Take segment *number* back. It keeps its memory until the next `cool`."""
        place, warm, used = self._cold + self._warm, self._warm + 1, self.used_segments - 1
        del self.holders[number]
        self._free[place] = number
        self._warm, self.used_segments = warm, used

    # -- for arenas that others than us put pages in ------------------------------------------

    @property
    def lent(self) -> int:
        """Bytes that are charged for the tables of pages that they put, and not taken yet."""
        return 0

    def lend(self, size: int) -> None:
        """Let so many bytes be `lent`."""

    def recall(self) -> bool:
        """Charge nothing for that any more; say whether that was more."""
        return False

    def release_empty(self) -> None:
        """Give back segments in which nothing lives any more since they have removed pages."""

    # -- warm segments -----------------------------------------------------------------------

    def cool(self) -> None:
        """Let the system have the memory of free segments, apart from those wanted warm."""
        while self._warm > self.warm_wanted and self._cool_one():
            pass

    def warm_up(self, limit: int) -> bool:
        """Touch one more free segment, or let one go; say whether there is more of that to do.

        To be called until there is not. Warm segments do not bring the arena above *limit* bytes,
        tables not counted, apart from the few that the budget has in reserve.
        """
        if self.trim(limit):
            return True
        return self._warm < self._warm_within(limit) and self._warm_one()

    def trim(self, limit: int) -> bool:
        """Let one warm segment go if there are too many for *limit*; say whether one went."""
        return self._warm > self._warm_within(limit) and self._cool_one()

    def _warm_within(self, limit: int) -> int:
        # Tables are not counted, or each that grows would push out a segment, which has to be
        # waited for when it shrinks: who wants more than a few has memory for them as well.
        room = limit // self.segment_size - self.used_segments
        return min(self.warm_wanted, max(room, WARM_SEGMENTS))

    def _warm_one(self) -> bool:
        """Let one more free segment have its memory; False when all have."""
        if not self._cold:
            number, warm = len(self._free) + 1, self._warm
            if number > self._segments:
                return False
            # One that was never free yet comes in before those that are warm. Once there is a
            # place for it nothing can fail.
            first = self._free[0] if warm else number
            self._free.append(number)
            self._free[warm], self._free[0], self._cold = first, number, 1
        self._memory.touch(self._free[self._cold - 1] * self.segment_size, self.segment_size)
        self._cold, self._warm = self._cold - 1, self._warm + 1
        return True

    def _cool_one(self) -> bool:
        """Let the system have the memory of the coolest warm segment; say whether it took it."""
        if not self._memory.drop(self._free[self._cold] * self.segment_size, self.segment_size):
            # It keeps its memory, and so is what the next one takes.
            return False
        self._cold, self._warm = self._cold + 1, self._warm - 1
        return True

    def close(self) -> None:
        """Unmap the memory. Pages that were read are copies and stay valid."""
        self._memory.close()
