"""Decides how far ahead of a sequential reader to read: a window that grows.

The window starts small and doubles each time it moves on; one read elsewhere closes it. It moves
on when half of it has been read, so that what comes next is there before it is asked for.
"""

from __future__ import annotations

_SMALLEST = 8  # pages


class Window:
    """What one open of a file has read of late, in pages."""

    __slots__ = ("_edge", "_next", "_size")

    def __init__(self) -> None:
        self._next = 0
        """the page behind the last one that was read"""
        self._edge = 0
        """as far as it has been read ahead"""
        self._size = 0

    @property
    def size(self) -> int:
        """How many pages it reaches ahead; 0 while reads are not in order."""
        return self._size

    def advance(self, first: int, last: int, most: int) -> tuple[int, int] | None:
        """Note a read of the pages *first* to *last* (excluded); return what to read ahead, if any.

        That are the pages from one to another (excluded), at most *most* of them at once.
        """
        count = last - first
        # Requests of one reader may pass each other by one; a page may be read in parts.
        if not self._next - count - 1 <= first <= max(self._edge, self._next):
            self._next = self._edge = last
            self._size = 0
            return None
        self._next = max(self._next, last)
        if self._size and self._edge - self._next >= self._size // 2:
            return None
        self._size = min(max(2 * self._size, 2 * count, _SMALLEST), most)
        start = max(self._edge, self._next)
        self._edge = max(self._next + self._size, start)
        return (start, self._edge) if self._edge > start else None
