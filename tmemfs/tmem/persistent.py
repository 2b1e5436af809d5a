"""The persistent pool: pages that stay until they are flushed, in memory or in an overflow file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from tmemfs.pages import SegmentLog
from tmemfs.pages.locations import SIZE_BITS, is_overflowed, overflowed
from tmemfs.tmem.pool import Memory, Pool
from tmemfs.tmem.storage import Pages, Storage

# Bytes of tables that are lent at a time: those of as many new pages as a segment has. It is less
# than the smallest segment, for which there has to be room.
_LOAN = 64 << 10


class PersistentPool(Pool):
    """Pages that stay until they are flushed, in one log, or in two.

    Where the client *overflows*, it takes pages to a file when memory runs short (`Writeback` says
    which), and the pool only knows their checksums from then on. The client must look for them
    (`checksums`) before it gets pages: a get of one is a CorruptPage. In such a pool, pages that
    do not compress are in a log of their own, because they are the first to go.
    """

    kind = "persistent"

    def __init__(
        self,
        number: int,
        name: str,
        page_size: int,
        storage: Storage,
        memory: Memory,
        *,
        overflows: bool = False,
    ) -> None:
        super().__init__(number, name, page_size, storage, memory)
        self.overflows = overflows
        self.log = self._reader
        self.raw = storage.new_log(page_size) if overflows else self.log

    @property
    def overflow_pages(self) -> int:
        """How many of the pages are outside."""
        return self.objects.overflowed

    def logs(self) -> tuple[SegmentLog, ...]:
        return (self.log, self.raw) if self.overflows else (self.log,)

    def checksums(self, object_id: int, index: int, count: int) -> dict[int, int]:
        """Return the checksum of each page of a run that is outside, by its index."""
        owner = self.objects.find(object_id) if self.overflow_pages else None
        if owner is None:
            return {}
        return {
            index + place: location >> SIZE_BITS
            for place, location in enumerate(owner.run(index, count, mark=False))
            if is_overflowed(location)
        }

    def use_overflowed(self, object_id: int, index: int) -> bool:
        """Count a use of a page, which is outside; say whether it had been used there before."""
        owner = self.objects.find(object_id)
        if owner is None or not is_overflowed(owner.location(index)):
            return False
        before = owner.used(index)
        owner.use(index)
        return before

    def move_to_overflow(self, owner: Pages, index: int, location: int, checksum: int) -> bool:
        """Note that a page is outside from now on; False where it is not at *location* any more."""
        if self.objects.find(owner.id) != owner or owner.location(index) != location:
            return False
        self.objects.store(owner, index, [overflowed(checksum)])
        return True

    def let_others_put(self) -> None:
        """Let pages be put and flushed by others than us, where that takes no decision.

        They have room in the segments that are heads, and `lend` says what else of the budget.
        """
        self.objects.show_heads(self.log, self.raw)

    @property
    def staged_pages(self) -> int:
        """How many pages they have put that are not in a segment yet: see `make_ready`."""
        return self.objects.staged

    @property
    def is_next_in_stage(self) -> bool:
        """Whether the page that waits for that longest is one of ours."""
        return self.objects.is_next_in_stage

    def make_ready(self, *, raw: bool) -> bool:
        """Let one of their pages have room, one that does not compress if it is *raw*.

        Returns False where the budget has none.
        """
        log = self.raw if raw else self.log
        if log.fits(self.page_size):
            return self.lend()
        # At once, for to make room again would take a head in which nothing lives yet.
        if self.destroyed or not self._memory.make_room(2, self):
            return False
        if not log.fits(self.page_size):  # as in `_append`, there may be some already
            log.open_segment()
        self.arena.lend(_LOAN)
        return True

    def lend(self) -> bool:
        """Let others have what their pages add to the tables; False where the budget has not."""
        if self.arena.lent < _LOAN // 2:
            if self.destroyed or not self._memory.make_room(1, self):
                return False
            self.arena.lend(_LOAN)
        return True

    def statistics(self) -> dict[str, Any]:
        return {**super().statistics(), "overflow_pages": self.overflow_pages}

    def _logs_for(
        self, object_id: int, index: int, payloads: Sequence[bytes]
    ) -> Iterable[tuple[SegmentLog, int, int]]:
        if not self.overflows:
            return ((self.log, 0, len(payloads)),)
        return self._by_kind(payloads)

    def _by_kind(self, payloads: Sequence[bytes]) -> Iterator[tuple[SegmentLog, int, int]]:
        first = 0
        for raw, group in groupby(payloads, lambda payload: len(payload) == self.page_size):
            last = first + len(list(group))
            yield self.raw if raw else self.log, first, last
            first = last

    def _corrupt(self, object_id: int, index: int, count: int) -> None:
        """Leave it: there may be no other copy, and its neighbours are good."""
