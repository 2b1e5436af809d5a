"""A pool: the pages of one use of tmem, all of one size, and what may be done with them.

Persistent and ephemeral pools (modules of those names) answer alike; they differ in the logs their
pages are in, and so in what `tmemfs.tmem.reclaim` may do with them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Literal, Protocol

from tmemfs.errors import CorruptPage
from tmemfs.pages import SegmentLog, reader
from tmemfs.tmem.objects import NODE_PAGES
from tmemfs.tmem.stats import PoolCounters, ReclaimCounters, as_dict
from tmemfs.tmem.storage import Storage

Kind = Literal["ephemeral", "persistent"]

INVALID_OBJECT_ID = (1 << 192) - 1
"""Object ids have 192 bits; the one with all bits set is never an object."""
INDEX_LIMIT = 1 << 32


class Memory(Protocol):
    """Who a pool asks for memory (`tmemfs.tmem.reclaim.Reclaim`)."""

    counters: ReclaimCounters

    def make_room(self, segments: int, pool: Pool) -> bool:
        """Make sure that *pool* may take *segments* more, taking memory back where needed."""


class Pool(ABC):
    """Pages by (object id, index). Made by `Client.new_pool`; never made directly.

    A page is ``bytes`` of exactly `page_size`. Object ids are ints from 0 to 2^192 - 2, indices
    ints below 2^32; anything else is refused and counted, never an exception.
    """

    kind: ClassVar[Kind]

    def __init__(
        self, number: int, name: str, page_size: int, storage: Storage, memory: Memory
    ) -> None:
        self.number = number
        self.name = name
        self.page_size = page_size
        self.uuid: int | None = None
        self.destroyed = False
        self._counters = PoolCounters()
        self.objects = storage.new_table()
        self.arena = storage.arena
        self._storage = storage
        self._memory = memory
        self._reader = storage.new_log(page_size)

    @property
    def counters(self) -> PoolCounters:
        """What was asked of the pool since it was made."""
        counters = self._counters
        hits = self.objects.take_hits()
        counters.gets += hits
        counters.found_gets += hits
        puts, replaced, flushs, flushed = self.objects.take_puts()
        counters.count_puts(puts, puts, 0, replaced, 0)
        counters.flushs += flushs
        counters.flushs_found += flushed
        return counters

    # -- what a client may ask ---------------------------------------------------------------

    def put(self, object_id: int, index: int, page: bytes) -> bool:
        """Store one page; return whether it was stored. See `put_many`."""
        if len(page) != self.page_size:
            raise ValueError(f"{len(page)} bytes are not a page of {self.page_size}")
        return self.put_many(object_id, index, page) == 1

    def put_many(self, object_id: int, index: int, data: bytes) -> int:
        """Store a run of pages from *index* on; return how many were stored.

        *data* is a whole number of pages. Each page is stored or refused by itself, but a run
        that reaches out of range is refused whole. Where a page is refused, one that was there
        before is gone: a get misses, and never finds old data. When an error passes through, that
        is so for all of the run. Raises ValueError when *data* is no whole number of pages; then
        nothing has changed.
        """
        size = self.page_size
        count, rest = divmod(len(data), size)
        if rest:
            raise ValueError(f"{len(data)} bytes are no whole number of pages of {size}")
        older: list[int] = []
        stored = replaced = no_mem = 0
        try:
            older = self._run(object_id, index, count)
            # The older pages go first, so that no refusal from here on leaves them to be found.
            self._remove(object_id, index, count)
            if self._valid(object_id, index, count):
                payloads = self._storage.encode(data, size)
                for log, first, last in self._logs_for(object_id, index, payloads):
                    at = first
                    for done in self._append(log, object_id, index + first, payloads[first:last]):
                        stored += done
                        replaced += done - older[at : at + done].count(0)
                        at += done
                    no_mem += last - at
            flushed = count - older.count(0) - replaced
            self._count_puts(count, stored, no_mem, replaced, flushed)
        except BaseException:
            # Whatever failed, also if it was to remove them: no page is found, old or new.
            self._remove(object_id, index, count)
            self._count_puts(count, 0, 0, 0, len(older) - older.count(0))
            raise
        return stored

    def get(self, object_id: int, index: int) -> bytes | None:
        """Return one page, None when it is not there. See `get_run`.

        Most reads of a volume are of one page, so that this does without lists.
        """
        counters = self._counters
        counters.gets += 1
        owner = self.objects.find(object_id)
        location = owner.use(index) if owner is not None else 0
        if not location:
            return None
        try:
            page = reader.page_at(self._reader.view, location, self.page_size)
        except CorruptPage:
            counters.corrupt_pages += 1
            self._corrupt(object_id, index, 1)
            raise
        counters.found_gets += 1
        return page

    def get_run(self, object_id: int, index: int, count: int) -> tuple[bytearray, list[int]]:
        """Return *count* pages from *index* on joined, and the places of those not there.

        The first page's place is 0; where a page is not there, there are zeros. The pages stay,
        and each that was found counts as used. Raises `CorruptPage` when a stored page does not
        decode; what was stored of the whole run is then flushed in an ephemeral pool (its pages
        are elsewhere as well), and stays in a persistent one.
        """
        counters = self._counters
        counters.gets += count
        owner = self.objects.find(object_id)
        if owner is None:
            return bytearray(count * self.page_size), list(range(count))
        try:
            run, missing = self._reader.read(owner.run(index, count, mark=True))
        except CorruptPage:
            counters.corrupt_pages += 1
            self._corrupt(object_id, index, count)
            raise
        counters.found_gets += count - len(missing)
        return run, missing

    def get_many(self, object_id: int, index: int, count: int) -> list[bytes | None]:
        """Return *count* pages from *index* on, None for each that is not there. See `get_run`."""
        run, missing = self.get_run(object_id, index, count)
        size, view = self.page_size, memoryview(run)
        pages: list[bytes | None] = [
            bytes(view[start : start + size]) for start in range(0, len(run), size)
        ]
        for place in missing:
            pages[place] = None
        return pages

    def holds(self, object_id: int, index: int, count: int) -> list[bool]:
        """Say of *count* pages from *index* on whether they are there, without using them."""
        return [location != 0 for location in self._run(object_id, index, count)]

    def get_and_flush(self, object_id: int, index: int) -> bytes | None:
        """Return one page and remove it, None when it is not there: the exclusive get.

        The page is copied out before it is removed, so that an error leaves it where it was.
        """
        page = self.get(object_id, index)
        if page is not None:
            self.flush_page(object_id, index)
        return page

    def flush_page(self, object_id: int, index: int) -> int:
        """Remove one page; return how many were removed, 0 or 1. See `flush_many`."""
        return self.flush_many(object_id, index, 1)

    def flush_many(self, object_id: int, index: int, count: int) -> int:
        """Remove *count* pages from *index* on; return how many had been there.

        *count* may reach far beyond the last page: only what is there costs time.
        """
        self._counters.flushs += 1
        removed = self._remove(object_id, index, count) if count > 0 else 0
        self._counters.flushs_found += removed
        return removed

    def flush_object(self, object_id: int) -> int:
        """Remove every page of an object; return how many there were."""
        self._counters.flush_objs += 1
        removed = self._remove(object_id, 0, INDEX_LIMIT)
        self._counters.flush_objs_found += removed > 0
        return removed

    def stamp(self, object_id: int) -> int:
        """Return what `set_stamp` set last, 0 when nothing or when no page of the object is left.

        A stamp is a note of the client's about an object's pages, such as which version of a
        file they were read from. It lives exactly as long as the object has pages.
        """
        owner = self.objects.find(object_id)
        return owner.stamp if owner is not None else 0

    def set_stamp(self, object_id: int, stamp: int) -> None:
        """Note *stamp* (an int of up to 192 bits) with an object, if it has pages."""
        owner = self.objects.find(object_id)
        if owner is not None:
            owner.stamp = stamp

    def has_room(self, pages: int) -> bool:
        """Say whether *pages* pages can be put now and none of them be refused for memory.

        Makes room for them, even if none of them should shrink. For a client that must not lose
        the older page to a refused put: it asks first.
        """
        # A segment takes at least as many pages as do not compress, and each log may have to open
        # one that it does not fill; their tables take some thirty bytes a page.
        segments = -(-pages * self.page_size // self.arena.segment_size)
        segments += len(self.logs()) + segments // 64
        return not self.destroyed and self._memory.make_room(segments, self)

    def statistics(self) -> dict[str, Any]:
        """Return name, kind, page_size, sizes in bytes, and the counters, all plain numbers."""
        parts = [log.statistics() for log in self.logs()]
        sizes = {key: sum(part[key] for part in parts) for key in parts[0]}
        sizes["metadata_bytes"] += self.tables_bytes
        return {
            "name": self.name,
            "kind": self.kind,
            "page_size": self.page_size,
            "objects": len(self.objects),
            **sizes,
            "pages": self.objects.pages,
            "orig_data_size": self.objects.pages * self.page_size,
            **as_dict(self.counters),
        }

    # -- what reclaim may ask ----------------------------------------------------------------

    @abstractmethod
    def logs(self) -> tuple[SegmentLog, ...]:
        """Return the logs that the pool's pages are in."""

    @property
    def segments(self) -> int:
        """How many segments of the arena the pool has."""
        return sum(len(log.segments) for log in self.logs())

    @property
    def tables_bytes(self) -> int:
        """What the pool's tables take beside the rows of its segments."""
        return self.objects.metadata_bytes

    def close(self) -> None:
        """Let no page be reached any more, whether an error ended it before or not.

        The segments still take memory.
        """
        self.destroyed = True
        self.objects.clear()

    # -- inside ------------------------------------------------------------------------------

    def _count_puts(self, puts: int, good: int, no_mem: int, replaced: int, flushed: int) -> None:
        self._memory.counters.put_to_flush += flushed
        self._counters.count_puts(puts, good, no_mem, replaced, flushed)

    @abstractmethod
    def _logs_for(
        self, object_id: int, index: int, payloads: Sequence[bytes]
    ) -> Iterable[tuple[SegmentLog, int, int]]:
        """Split a run of new pages into parts (log, first, last) by the log they go to."""

    def _valid(self, object_id: int, index: int, count: int) -> bool:
        return (
            0 <= object_id < INVALID_OBJECT_ID
            and 0 <= index <= index + count <= INDEX_LIMIT
            and not self.destroyed
        )

    def _append(
        self, log: SegmentLog, object_id: int, index: int, payloads: list[bytes]
    ) -> Iterator[int]:
        """Store payloads from *index* on until one is refused.

        As many at a time as a segment and a node hold; yields how many that were.
        """
        # What the tables grew by since the last segment was opened is settled once a run.
        if not self._memory.make_room(0, self):
            return
        done = 0
        while done < len(payloads):
            if not log.fits(len(payloads[done])):
                if not self._memory.make_room(1, self):
                    return
                # Pages that were moved to make room may have opened one, and left space in it.
                if not log.fits(len(payloads[done])):
                    log.open_segment()
            # Each time anew: making room may have taken the last other page of the object, and
            # the object with it.
            owner, first = self.objects.obtain(object_id), index + done
            part = payloads[done : done + NODE_PAGES - first % NODE_PAGES]
            locations, lives = log.append(part, owner.number, first)
            self.objects.store(owner, first, locations, lives)
            yield len(locations)
            done += len(locations)

    def _run(self, object_id: int, index: int, count: int) -> list[int]:
        """Return where the pages of a run are, 0 for those that are not there."""
        owner = self.objects.find(object_id)
        return owner.run(index, count, mark=False) if owner is not None else [0] * count

    def _remove(self, object_id: int, index: int, count: int) -> int:
        """Remove the pages of a run; return how many there were."""
        owner = self.objects.find(object_id)
        if owner is None:
            return 0
        parts = owner.parts(index, count)
        return sum([self.objects.remove(owner, first, last) for first, last in parts])

    @abstractmethod
    def _corrupt(self, object_id: int, index: int, count: int) -> None:
        """Deal with a run in which a page did not decode."""
