"""Divides long work on the main thread into slices, so that requests are served in between.

A listing may be of any length, and so may a list of inodes to forget. A request for swap that comes
meanwhile waits for a slice at most: of all who are at such work, one goes on each time around.
"""

from __future__ import annotations

from time import perf_counter

import trio


class Turns:
    """Who is at long work, in the order in which they go on, *slice_s* seconds at a time.

    To start anew after a slice takes some 20 us.
    """

    def __init__(self, slice_s: float) -> None:
        self.slice_s = slice_s
        self._lock = trio.Lock()

    def begin(self) -> Slices:
        """Return what tells somebody who begins now when to let others go on."""
        return Slices(self)

    async def wait(self) -> None:
        """Let everybody else go on, and before the others at long work those who came first."""
        # Whoever gets the lock runs, and the next one the next time around.
        async with self._lock:
            pass


class Slices:
    """Work that has begun, in slices."""

    __slots__ = ("_end", "_turns")

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._end = perf_counter() + turns.slice_s

    async def rest(self) -> None:
        """Let others go on if a slice has been used up. To be called after each small step."""
        if perf_counter() >= self._end:
            await self._turns.wait()
            self._end = perf_counter() + self._turns.slice_s
