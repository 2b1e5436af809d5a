"""The ephemeral pool: pages that may go at any time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from tmemfs.pages import SegmentLog
from tmemfs.tmem.ghosts import Ghosts
from tmemfs.tmem.pool import Memory, Pool
from tmemfs.tmem.storage import Storage


class EphemeralPool(Pool):
    """Pages that may go at any time, in two logs in the manner of S3-FIFO.

    *new* is where pages start, *main* is for those that were used again there or came back soon
    after they had been evicted.
    """

    kind = "ephemeral"

    def __init__(
        self,
        number: int,
        name: str,
        page_size: int,
        storage: Storage,
        memory: Memory,
    ) -> None:
        super().__init__(number, name, page_size, storage, memory)
        self.new = self._reader
        self.main = storage.new_log(page_size)
        self.ghosts = Ghosts(self.arena)

    def logs(self) -> tuple[SegmentLog, ...]:
        return (self.new, self.main)

    @property
    def tables_bytes(self) -> int:
        return self.objects.metadata_bytes + self.ghosts.metadata_bytes

    def divide(self, share: int) -> None:
        """Let main have all segments of new but the youngest, one in *share* of them."""
        # One more than its share: that one is the first to go, not one of main.
        keep = len(self.new.segments) // share + 1
        while len(self.new.segments) > keep:
            self.main.adopt(self.new.oldest())

    def close(self) -> None:
        super().close()
        self.ghosts.forget()

    def _logs_for(
        self, object_id: int, index: int, payloads: Sequence[bytes]
    ) -> Iterable[tuple[SegmentLog, int, int]]:
        known = [self.ghosts.take(object_id, i) for i in range(index, index + len(payloads))]
        first = 0
        for known_ghost, group in groupby(known):
            last = first + len(list(group))
            yield self.main if known_ghost else self.new, first, last
            first = last

    def _corrupt(self, object_id: int, index: int, count: int) -> None:
        self.flush_many(object_id, index, count)
