"""A segment log: payloads are appended at its head, and segments are freed whole.

A page is found by its *location*, one integer that says where its payload starts in the arena
and how long it is. The log never looks for a page: whoever stores the location (the index in
`tmemfs.tmem.objects`) gives it back to read or to free. For the way back, from a segment to the
pages in it, each segment keeps a row per append: owner, index and offset, in flat arrays that go
away with the segment. Freeing a page only counts its bytes dead; its row stays and is recognised
as dead because the index no longer points at it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby

from tmemfs.pages import codec, reader
from tmemfs.pages.arena import Arena
from tmemfs.pages.locations import SIZE_BITS, SIZE_MASK

# Three fields of four bytes, and the sixteenth that a growing array keeps to spare.
ROW_BYTES = 13
# A Segment with three empty arrays and its places in the log and the arena; measured, as the
# figures of the index are (tests/pages/test_log.py keeps it honest).
SEGMENT_OVERHEAD = 700
# Pages that take no bytes would never fill a segment; so many rows fill it as well.
BYTES_PER_ROW = 32


class Segment:
    """One segment of a log: what lives in it, and a row for every append it has seen."""

    __slots__ = (
        "end",
        "huge_pages",
        "indexes",
        "live_bytes",
        "live_pages",
        "log",
        "number",
        "offsets",
        "owners",
        "pins",
        "position",
        "rows_left",
        "same_pages",
        "start",
    )

    def __init__(self, log: SegmentLog, number: int, size: int) -> None:
        self.log = log
        self.number = number
        self.start = self.position = number * size
        self.end = self.start + size
        self.rows_left = size // BYTES_PER_ROW
        self.live_pages = self.live_bytes = self.same_pages = self.huge_pages = 0
        self.pins = 0
        """while it is not 0 the segment stays, even when nothing lives in it any more"""
        self.owners = array("I")
        self.indexes = array("I")
        self.offsets = array("I")

    @property
    def dead_bytes(self) -> int:
        """Bytes and rows of pages that were removed: what moving the others elsewhere would gain.

        What no page fitted into any more is not among them: it may be the same elsewhere.
        """
        rows = len(self.offsets) - self.live_pages
        return self.position - self.start - self.live_bytes + rows * BYTES_PER_ROW

    def rows(self) -> Iterator[tuple[int, int, int]]:
        """Yield (owner, index, start in the arena) of every append, oldest first, live or dead."""
        start = self.start
        for owner, index, offset in zip(self.owners, self.indexes, self.offsets, strict=True):
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
        self._arena = arena
        self._view = arena.view

    def fits(self, size: int) -> bool:
        """Say whether `append` has room for a payload of *size* bytes."""
        head = self.head
        return head is not None and head.position + size <= head.end and head.rows_left > 0

    def append(self, payloads: Sequence[bytes | memoryview], owner: int, index: int) -> list[int]:
        """Store *payloads* for the pages of *owner* from *index* on, as many as the head holds.

        Owner and index have 32 bits. Returns the locations of those that were stored, none of
        them 0; the others are for the next segment.
        """
        head = self.head
        if head is None:
            return []
        sizes = list(map(len, payloads))
        room = head.end - head.position
        if len(sizes) > head.rows_left or sum(sizes) > room:
            fit = min(bisect_right(list(accumulate(sizes)), room), head.rows_left)
            if not fit:
                return []
            payloads, sizes = payloads[:fit], sizes[:fit]
        # Where each begins, in the segment. One that takes nothing is at the start: where a full
        # segment ends, another begins.
        start, position, count = head.start, head.position, len(sizes)
        places = accumulate(sizes[:-1], initial=position - start)
        offsets = [place if size else 0 for place, size in zip(places, sizes, strict=True)]
        data = b"".join(payloads) if count > 1 else payloads[0]
        head.position = position + len(data)
        self._view[position : head.position] = data
        head.owners.extend([owner] * count)
        head.indexes.extend(range(index, index + count))
        head.offsets.extend(offsets)
        head.rows_left -= count
        head.live_pages += count
        head.live_bytes += len(data)
        head.huge_pages += sizes.count(self.page_size)
        if min(sizes) <= codec.WORD:
            head.same_pages += _same(sizes)
        self._arena.metadata_bytes += ROW_BYTES * count
        return [
            start + offset << SIZE_BITS | size for offset, size in zip(offsets, sizes, strict=True)
        ]

    def read(self, locations: list[int]) -> tuple[bytearray, list[int]]:
        """Return the pages at *locations* joined, and the places of those that are 0, no pages.

        Raises `tmemfs.errors.CorruptPage` where a stored page cannot be decoded.
        """
        return reader.read(self._view, locations, self.page_size)

    def page(self, location: int) -> bytes:
        """Return the page at *location*, which is not 0. See `read`."""
        return reader.page_at(self._view, location, self.page_size)

    def payload(self, location: int) -> memoryview:
        """Return the stored payload itself, valid until its segment is given back."""
        start = location >> SIZE_BITS
        return self._view[start : start + (location & SIZE_MASK)]

    def open_segment(self) -> None:
        """Take a segment from the arena and make it the head; the old head is full from now on."""
        number = self._arena.take()
        self.head = segment = Segment(self, number, self._arena.segment_size)
        self.segments[number] = self._arena.holders[number] = segment
        self._arena.metadata_bytes += SEGMENT_OVERHEAD

    def oldest(self) -> Segment:
        """Return the segment that was opened first. Raises StopIteration when there is none."""
        return next(iter(self.segments.values()))

    def emptiest(self) -> Segment | None:
        """Return the segment with the most dead bytes that may go, None without one.

        The head may not, nor may one that is pinned.
        """
        full = (s for s in self.segments.values() if s is not self.head and not s.pins)
        return max(full, key=lambda segment: segment.dead_bytes, default=None)

    def adopt(self, segment: Segment) -> None:
        """Take over *segment*, full, from another log of this arena; it is the youngest here."""
        del segment.log.segments[segment.number]
        self.segments[segment.number] = segment
        segment.log = self

    def release(self, segment: Segment) -> None:
        """Give *segment* back to the arena with all that is still in it."""
        if segment is self.head:
            self.head = None
        del self.segments[segment.number]
        self._arena.metadata_bytes -= SEGMENT_OVERHEAD + ROW_BYTES * len(segment.offsets)
        self._arena.give(segment.number)

    def statistics(self) -> dict[str, int]:
        """Return the log's pages and sizes by the names of `tmemfs.tmem.stats`."""
        segments = self.segments.values()
        rows = sum(len(segment.offsets) for segment in segments)
        return {
            "pages": sum(segment.live_pages for segment in segments),
            "compr_data_size": sum(segment.live_bytes for segment in segments),
            "same_pages": sum(segment.same_pages for segment in segments),
            "huge_pages": sum(segment.huge_pages for segment in segments),
            "mem_used_total": len(segments) * self._arena.segment_size,
            "metadata_bytes": len(segments) * SEGMENT_OVERHEAD + rows * ROW_BYTES,
        }


def free(arena: Arena[Segment], locations: Iterable[int]) -> None:
    """Count the pages at *locations*, all of them in the arena, dead, whichever logs they are in.

    A segment in which nothing lives any more is given back, the head of a log too.
    """
    bits = SIZE_BITS + arena.segment_bits
    # The pages of a run are next to each other, as a rule.
    for number, neighbours in groupby(locations, lambda location: location >> bits):
        segment = arena.holders[number]
        sizes = [location & SIZE_MASK for location in neighbours]
        segment.live_pages -= len(sizes)
        segment.live_bytes -= sum(sizes)
        segment.huge_pages -= sizes.count(segment.log.page_size)
        if min(sizes) <= codec.WORD:
            segment.same_pages -= _same(sizes)
        if not (segment.live_pages or segment.pins):
            segment.log.release(segment)


def _same(sizes: Iterable[int]) -> int:
    """How many of so many bytes are of one word repeated."""
    return sum(size <= codec.WORD for size in sizes)
