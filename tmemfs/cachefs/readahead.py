"""Decides how far ahead of a sequential reader to read: a window that grows.

The window starts small and doubles each time it moves on; one read elsewhere closes it. It moves
on when half of it has been read, so that what comes next is there before it is asked for.
"""

from __future__ import annotations

_SMALLEST = 8  # pages


class Window:
    """What one open of a file has read of late, in pages."""

    __slots__ = ("_edge", "_size", "next")

    def __init__(self) -> None:
        self.next = 0
        """the page behind the last one that was read"""
        self._edge = 0
        """as far as it has been read ahead"""
        self._size = 0

    @property
    def size(self) -> int:
        """How many pages it reaches ahead; 0 while reads are not in order."""
        return self._size

    @property
    def turn(self) -> int:
        """The page behind which a read in order would move it on."""
        return self._edge - self._size // 2 if self._size else 0

    def follow(self, position: int, in_order: bool) -> None:
        """Take note of reads up to a page (excluded), all of them in order or not."""
        if not in_order:
            self._edge, self._size = position, 0
        self.next, self._edge = position, max(self._edge, position)

    def advance(self, first: int, last: int, most: int) -> tuple[int, int] | None:
        """Note a read of the pages *first* to *last* (excluded); return what to read ahead, if any.

        That are the pages from one to another (excluded), at most *most* of them at once.
        """
        count = last - first
        # Requests of one reader may pass each other by one; a page may be read in parts.
        if not self.next - count - 1 <= first <= max(self._edge, self.next):
            self.next = self._edge = last
            self._size = 0
            return None
        self.next = max(self.next, last)
        if self._size and self._edge - self.next >= self._size // 2:
            return None
        self._size = min(max(2 * self._size, 2 * count, _SMALLEST), most)
        start = max(self._edge, self.next)
        self._edge = max(self.next + self._size, start)
        return (start, self._edge) if self._edge > start else None
