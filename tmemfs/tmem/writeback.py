"""Chooses which persistent pages are evicted to an overflow file, and when.

Here it is only decided, and noted when it has been done: whoever has the file (a volume) asks for
a batch, reads its pages, writes them to the file in its own time, and hands back their checksums.
Meanwhile the pages are still in memory, and may be read, replaced or flushed like any others.

The order is that of a clock: the segment that was opened first is looked at first, its pages that
were used since lose their mark and stay, the others leave, and the segment goes to the end of the
queue. Pages that do not compress come before all others: they gain most.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import islice

from tmemfs.errors import CorruptPage
from tmemfs.pages import Arena, Segment, reader
from tmemfs.pages.log import release_empty
from tmemfs.tmem.persistent import PersistentPool
from tmemfs.tmem.reclaim import RESERVE_SEGMENTS, Reclaim, live_pages
from tmemfs.tmem.storage import Pages

# Pages begin to leave when persistent segments take more than HIGH of what the budget has for
# segments, and leave until they take LOW: what is above HIGH is for puts while they are leaving.
HIGH = 7 / 8
LOW = 3 / 4
# A batch is so many bytes of pages, where so many are to be had ...
BATCH = 2 << 20
# ... in so many segments. If all their pages were used, those of the next ones leave all the same.
TRIES_LIMIT = 8


class Batch:
    """Pages of *pool* that are leaving; until `finish` their segments stay where they are."""

    def __init__(self, pool: PersistentPool) -> None:
        self.pool = pool
        self._victims: list[tuple[Pages, int, int]] = []
        self._segments: list[Segment] = []

    def __len__(self) -> int:
        return len(self._victims)

    def add(self, segment: Segment, *, spare_used: bool) -> bool:
        """Let the pages of *segment* leave, with *spare_used* those that were not used since.

        Returns False when there were too many of them; the others are for another batch.
        """
        self._segments.append(segment)
        for owner, index, location in live_pages(self.pool, segment):
            if spare_used and owner.used(index):
                owner.unmark(index)
            elif self.full:
                return False
            else:
                self._victims.append((owner, index, location))
        return True

    def pin(self) -> None:
        """Let the segments stay where they are; to be called when all were added."""
        for segment in self._segments:
            segment.pins += 1

    @property
    def full(self) -> bool:
        """Whether it has all the pages that it may have."""
        return len(self._victims) * self.pool.page_size >= BATCH

    def pages(self) -> list[tuple[int, bytes]]:
        """Return index and bytes of each page, in the order of object and index.

        To be called once, before anything else is asked of the pool. A page that does not decode
        stays where it is.
        """
        # When an error passes through, there is nothing in it that the caller was not told of.
        victims, self._victims = self._victims, []
        kept, pages = [], []
        # Pages of zeros that were put again in the same segment were met twice there.
        victims = sorted(set(victims), key=lambda v: (v[0].id, v[1]))
        for owner, index, location in victims:
            try:
                page = reader.page_at(self.pool.log.view, location, self.pool.page_size)
                pages.append((index, page))
            except CorruptPage:
                self.pool.counters.corrupt_pages += 1
                owner.use(index)
            else:
                kept.append((owner, index, location))
        self._victims = kept
        return pages

    def finish(self, checksums: Sequence[int | None]) -> int:
        """Note what has left; return how many pages that were.

        *checksums* has that of each page, of up to 47 bits, in the order of `pages`; None for
        those that could not be written. These stay, as if they had been used, and so do those
        for which there is none, and pages that were replaced or flushed meanwhile. The batch has
        ended then, also when an error passes through: pages that were not noted yet have not left.
        """
        moved = 0
        try:
            for (owner, index, location), checksum in zip(self._victims, checksums, strict=False):
                if checksum is None:
                    owner.use(index)
                elif self.pool.move_to_overflow(owner, index, location, checksum):
                    moved += 1
        finally:
            self._unpin()
        return moved

    def _unpin(self) -> None:
        # One by one, so that an error on the way leaves those that are still pinned in the list.
        while self._segments:
            segment = self._segments.pop()
            segment.pins -= 1
            # Those of a pool that was destroyed meanwhile are swept.
            if not self.pool.destroyed:
                release_empty((segment,))
        self._victims = []


class Writeback:
    """Says when pages have to leave, and which; one batch at a time."""

    def __init__(self, arena: Arena[Segment], reclaim: Reclaim) -> None:
        self._arena = arena
        self._reclaim = reclaim

    @property
    def needed(self) -> bool:
        """Whether persistent pages take so much that some should begin to leave."""
        return self._taken() > HIGH * self._available()

    @property
    def enough(self) -> bool:
        """Whether, having begun, no more of them have to leave."""
        return self._taken() <= LOW * self._available()

    def begin(self, *, heads: bool = False, avoid: Container[PersistentPool] = ()) -> Batch | None:
        """Return the pages that should leave next, None when there are none that may.

        With *heads*, those of segments that are being filled may too, when there are no others.
        Pages of the pools to *avoid* come last.
        """
        pools = [p for p in self._persistent() if p.overflows]
        pools.sort(key=lambda pool: pool.segments, reverse=True)
        for avoided in (False, True):
            for from_heads in (False, True) if heads else (False,):
                for pool in pools:
                    if (pool in avoid) == avoided and (batch := _batch(pool, heads=from_heads)):
                        # The last, so that no error leaves pins that nobody takes away.
                        batch.pin()
                        return batch
        return None

    def finish(self, batch: Batch, checksums: Sequence[int | None]) -> int:
        """End *batch* (see `Batch.finish`), and count it."""
        moved = batch.finish(checksums)
        self._reclaim.counters.written_back_pages += moved
        return moved

    def _persistent(self) -> list[PersistentPool]:
        return [pool for pool in self._reclaim.pools if isinstance(pool, PersistentPool)]

    def _taken(self) -> int:
        return sum(pool.segments for pool in self._persistent())

    def _available(self) -> float:
        """How many segments the budget has beside tables and reserve."""
        left = self._reclaim.limit - self._arena.metadata_bytes
        return left / self._arena.segment_size - RESERVE_SEGMENTS


def _batch(pool: PersistentPool, *, heads: bool) -> Batch | None:
    batch = Batch(pool)
    for spare_used in (True, False):
        for segment in islice(_queue(pool, heads=heads), TRIES_LIMIT):
            if batch.full or not batch.add(segment, spare_used=spare_used):
                break
            segment.log.segments.move_to_end(segment.number)
        if batch:
            return batch
    return None


def _queue(pool: PersistentPool, *, heads: bool) -> list[Segment]:
    """The segments that are full, or the *heads*, in the order in which they are looked at."""
    return [
        segment
        for log in (pool.raw, pool.log)
        for segment in log.segments.values()
        if (segment is log.head) == heads
    ]
