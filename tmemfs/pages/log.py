"""A segment log: payloads are appended at its head, and segments are freed whole.

A page is found by its *location*, one integer that says where its payload starts in the arena
and how long it is. The log never looks for a page: whoever stores the location (the index in
`tmemfs.tmem.objects`) gives it back to read or to free. For the way back, from a segment to the
pages in it, each segment keeps a row per append: owner, index and offset, in a flat array that
goes away with the segment. Freeing a page only counts its bytes dead; its row stays and is
recognised as dead because the index no longer points at it.

What *lives* in a segment is what the index points at, so that the two have to change together, also
when memory runs out half way. Here it is only worked out what will live where (`append`, `freed`);
the index makes it true, in the same step in which it changes.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from tmemfs.pages import codec, reader
from tmemfs.pages.arena import Arena
from tmemfs.pages.locations import SIZE_BITS, SIZE_MASK

# A row is three numbers of four bytes, and the sixteenth that a growing array keeps to spare.
_FIELDS, _FIELD_BYTES = 3, 4
ROW_BYTES = 13
# A Segment with an empty array and its places in the log and the arena; measured, as the
# figures of the index are (tests/pages/test_log.py keeps it honest).
SEGMENT_OVERHEAD = 700
# Pages that take no bytes would never fill a segment; so many rows fill it as well.
BYTES_PER_ROW = 32


Live = tuple[int, int, int, int]
"""what lives in a segment: pages, their bytes, how many are of one word, or not compressed"""

Lives = list[tuple["Segment", Live]]
"""what is to live in some segments, each of them once"""


class Segment:
    """One segment of a log: what lives in it, and a row for every append it has seen."""

    __slots__ = ("end", "live", "log", "number", "pins", "position", "rows", "rows_left", "start")

    def __init__(self, log: SegmentLog, number: int, size: int) -> None:
        self.log = log
        self.number = number
        self.start = self.position = number * size
        self.end = self.start + size
        self.rows_left = size // BYTES_PER_ROW
        self.live: Live = (0, 0, 0, 0)
        self.pins = 0
        """while it is not 0 the segment stays, even when nothing lives in it any more"""
        self.rows = array("I")
        """owner, index and offset of each append: in one array, a row is there or it is not"""

    @property
    def live_pages(self) -> int:
        """How many pages live in it."""
        return self.live[0]

    @property
    def row_count(self) -> int:
        """How many rows it has."""
        return len(self.rows) // _FIELDS

    @property
    def dead_bytes(self) -> int:
        """Bytes and rows of pages that were removed: what moving the others elsewhere would gain.

        What no page fitted into any more is not among them: it may be the same elsewhere. Where
        nothing lives, it is all of the segment.
        """
        pages, size, _, _ = self.live
        if not pages:
            return self.end - self.start
        return self.position - self.start - size + (self.row_count - pages) * BYTES_PER_ROW

    @property
    def heap_bytes(self) -> int:
        """What its rows take on the heap."""
        return ROW_BYTES * self.row_count

    def fits(self, size: int) -> bool:
        """Say whether `append` has room for a payload of *size* bytes."""
        return self.position + size <= self.end and self.rows_left > 0

    def append(
        self, payloads: Sequence[bytes | memoryview], owner: int, index: int
    ) -> tuple[list[int], Lives]:
        """See `SegmentLog.append`."""
        sizes = list(map(len, payloads))
        room = self.end - self.position
        if len(sizes) > self.rows_left or sum(sizes) > room:
            fit = min(bisect_right(list(accumulate(sizes)), room), self.rows_left)
            if not fit:
                return [], []
            payloads, sizes = payloads[:fit], sizes[:fit]
        # Where each begins, in the segment. One that takes nothing is at the start: where a full
        # segment ends, another begins.
        start, position, count = self.start, self.position, len(sizes)
        places = accumulate(sizes[:-1], initial=position - start)
        offsets = [place if size else 0 for place, size in zip(places, sizes, strict=True)]
        locations = [
            start + offset << SIZE_BITS | size for offset, size in zip(offsets, sizes, strict=True)
        ]
        if count == 1:
            rows, data = array("I", (owner, index, offsets[0])), payloads[0]
        else:
            rows, data = array("I", bytes(_FIELDS * _FIELD_BYTES * count)), b"".join(payloads)
            rows[0::_FIELDS] = array("I", (owner,)) * count
            rows[1::_FIELDS] = array("I", range(index, index + count))
            rows[2::_FIELDS] = array("I", offsets)
        end, rows_left, arena = position + len(data), self.rows_left - count, self.log.arena
        metadata = arena.heap_bytes + ROW_BYTES * count
        lives: Lives = [(self, _sum(self.live, sizes, self.log.page_size, 1))]
        arena.view[position:end] = data
        # The last that can fail; nothing has changed until here.
        self.rows.extend(rows)
        self.position, self.rows_left, arena.heap_bytes = end, rows_left, metadata
        return locations, lives

    def drop(self) -> None:
        """Let go of the rows, which it does with the segment itself."""

    def appends(self) -> Iterator[tuple[int, int, int]]:
        """Yield (owner, index, start in the arena) of every append, oldest first, live or dead."""
        start, fields = self.start, (self.rows[field::_FIELDS] for field in range(_FIELDS))
        for owner, index, offset in zip(*fields, strict=True):
            yield owner, index, start + offset


class SegmentLog:
    """Segments in the order in which they were opened; pages of *page_size* bytes in them.

    The log takes a segment only when told to (`open_segment`): whether there is one to be had is
    for the budget to say.
    """

    def __init__(self, arena: Arena[Segment], page_size: int) -> None:
        self.page_size = page_size
        self.segments: OrderedDict[int, Segment] = OrderedDict()
        self.head: Segment | None = None
        self.arena = arena
        self.view = arena.view

    def fits(self, size: int) -> bool:
        """Say whether `append` has room for a payload of *size* bytes."""
        return self.head is not None and self.head.fits(size)

    def append(
        self, payloads: Sequence[bytes | memoryview], owner: int, index: int
    ) -> tuple[list[int], Lives]:
        """Store *payloads* for the pages of *owner* from *index* on, as many as the head holds.

        Owner and index have 32 bits. Returns the locations of those that were stored, none of
        them 0 (the others are for the next segment), and what lives in the head with them: they
        are dead until the index points at them.
        """
        return self.head.append(payloads, owner, index) if self.head is not None else ([], [])

    def read(self, locations: list[int]) -> tuple[bytearray, list[int]]:
        """Return the pages at *locations* joined, and the places of those that are 0, no pages.

        Raises `tmemfs.errors.CorruptPage` where a stored page cannot be decoded.
        """
        return reader.read(self.view, locations, self.page_size)

    def payload(self, location: int) -> memoryview:
        """Return the stored payload itself, valid until its segment is given back."""
        start = location >> SIZE_BITS
        return self.view[start : start + (location & SIZE_MASK)]

    def open_segment(self) -> None:
        """Take a segment from the arena and make it the head; the old head is full from now on."""
        arena = self.arena
        number = arena.ready()
        segment = self._new_segment(number)
        metadata = arena.heap_bytes + SEGMENT_OVERHEAD
        self.segments[number] = segment
        try:
            arena.take(number, segment)
        except BaseException:
            del self.segments[number]
            raise
        self.head, arena.heap_bytes = segment, metadata

    def oldest(self) -> Segment:
        """Return the segment that was opened first. Raises StopIteration when there is none."""
        return next(iter(self.segments.values()))

    def emptiest(self) -> Segment | None:
        """Return the segment with the most dead bytes that may go, None without one.

        The head may not as long as something lives in it, nor may one that is pinned.
        """
        full = (
            segment
            for segment in self.segments.values()
            if not segment.pins and (segment is not self.head or not segment.live_pages)
        )
        return max(full, key=lambda segment: segment.dead_bytes, default=None)

    def adopt(self, segment: Segment) -> None:
        """Take over *segment*, full, from another log of this arena; it is the youngest here."""
        self.segments[segment.number] = segment
        del segment.log.segments[segment.number]
        segment.log = self

    def release(self, segment: Segment) -> None:
        """Give *segment* back to the arena with all that is still in it."""
        arena = self.arena
        metadata = arena.heap_bytes - SEGMENT_OVERHEAD - segment.heap_bytes
        arena.give(segment.number)
        del self.segments[segment.number]
        if segment is self.head:
            self.head = None
        arena.heap_bytes = metadata
        segment.drop()
        arena.cool()

    def _new_segment(self, number: int) -> Segment:
        return Segment(self, number, self.arena.segment_size)

    def statistics(self) -> dict[str, int]:
        """Return the log's pages and sizes by the names of `tmemfs.tmem.stats`."""
        segments = self.segments.values()
        rows = sum(segment.row_count for segment in segments)
        pages, size, same, huge = map(sum, zip((0,) * 4, *(s.live for s in segments), strict=True))
        return {
            "pages": pages,
            "compr_data_size": size,
            "same_pages": same,
            "huge_pages": huge,
            "mem_used_total": len(segments) * self.arena.segment_size,
            "metadata_bytes": len(segments) * SEGMENT_OVERHEAD + rows * ROW_BYTES,
        }


def freed(arena: Arena[Segment], locations: Iterable[int]) -> Lives:
    """Return what lives in their segments when the pages at *locations* no longer do.

    All of them are in the arena, whichever logs they are in.
    """
    bits = SIZE_BITS + arena.segment_bits
    sizes: dict[int, list[int]] = {}
    for location in locations:
        sizes.setdefault(location >> bits, []).append(location & SIZE_MASK)
    lives = []
    for number, gone in sizes.items():
        segment = arena.holders[number]
        lives.append((segment, _sum(segment.live, gone, segment.log.page_size, -1)))
    return lives


def release_empty(segments: Iterable[Segment]) -> None:
    """Give back those of *segments* in which nothing lives, the head of a log too.

    One that an error keeps here goes when memory is needed (`tmemfs.tmem.reclaim`).
    """
    for segment in segments:
        if not (segment.live[0] or segment.pins):
            segment.log.release(segment)


def _sum(live: Live, sizes: list[int], page_size: int, sign: int) -> Live:
    """What lives with (or, with *sign* -1, without) pages of these *sizes* as they are stored."""
    pages, size, same, huge = live
    if min(sizes) <= codec.WORD:
        same += sign * sum(size <= codec.WORD for size in sizes)
    return (
        pages + sign * len(sizes),
        size + sign * sum(sizes),
        same,
        huge + sign * sizes.count(page_size),
    )
