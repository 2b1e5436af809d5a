"""A swap volume with an overflow file: what the budget does not hold waits on disk.

Also one without, beside others that have one: what these hold in memory can make room for it.

A request that finds its pages, and room for them, in memory is served in one go, as in a volume
without. The others wait: for pages that are outside, or for room.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any

from tmemfs.supervise import failsafe
from tmemfs.swap.evictor import Evictor
from tmemfs.swap.overflowfile import OverflowFile, checksum
from tmemfs.swap.runs import runs
from tmemfs.swap.volume import OBJECT, SwapVolume
from tmemfs.tmem import PersistentPool

# A large write that has to wait goes in pieces, for which a small budget finds room as well.
_PIECE = 128 << 10


class WaitingSwapVolume(SwapVolume):
    """A swap volume beside others that overflow: a write waits for their pages to leave.

    ENOSPC only when *spiller* has none that can; the first part of a large write may be there then.
    """

    def __init__(self, name: str, size: int, pool: PersistentPool, evictor: Evictor) -> None:
        super().__init__(name, size, pool)
        self._evictor = evictor

    def write(self, offset: int, buf: bytes) -> int | Coroutine[Any, Any, int]:
        self._check_end(offset + len(buf))
        return len(buf) if self.write_now(offset, buf) else self._write_slowly(offset, buf)

    def write_now(self, offset: int, buf: bytes) -> bool:
        if not super().write_now(offset, buf):
            return False
        self._evictor.poke()
        return True

    async def refill(self, missing: int) -> bool:
        while not self.make_ready(missing):
            if not self._pool.is_next_in_stage or not await self._evictor.make_room():
                return False
        self._evictor.poke()
        return True

    async def _write_slowly(self, offset: int, buf: bytes) -> int:
        at, end = offset, offset + len(buf)
        while at < end:
            stop = min(at - at % _PIECE + _PIECE, end)
            await self._write_piece(at, buf[at - offset : stop - offset])
            at = stop
        self._evictor.poke()
        return len(buf)

    async def _write_piece(self, offset: int, buf: bytes) -> None:
        while not self._put_run(offset, buf, {}):
            await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        if not await self._evictor.make_room():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class OverflowingSwapVolume(WaitingSwapVolume):
    """A swap volume whose *pool* overflows into *file*, slot i for page i, through *spiller*.

    A page that is wrong or cannot be read there is EIO for those who want that page. A write is
    slowed while the budget is full; ENOSPC only when nothing can be written to the file.
    """

    def __init__(
        self, name: str, size: int, pool: PersistentPool, file: OverflowFile, evictor: Evictor
    ) -> None:
        super().__init__(name, size, pool, evictor)
        self._file = file

    def read(
        self, offset: int, size: int
    ) -> bytes | memoryview | Coroutine[Any, Any, bytes | memoryview]:
        first, count = self._span(offset, min(offset + size, self.size))
        if self._pool.checksums(OBJECT, first, count):
            return self._read_slowly(offset, size)
        return super().read(offset, size)

    def write_now(self, offset: int, buf: bytes) -> bool:
        return not self._overflowed(self._edges(offset, buf)) and super().write_now(offset, buf)

    def statistics(self) -> dict[str, Any]:
        figures = {"overflow_pages": self._pool.overflow_pages, **self._file.statistics()}
        return {**super().statistics(), **figures}

    def close(self) -> None:
        self._file.close()

    # -- waiting -----------------------------------------------------------------------------

    async def _read_slowly(self, offset: int, size: int) -> memoryview:
        first, count = self._span(offset, min(offset + size, self.size))
        overflowed, count = await self._fetch(first, count)
        run = self._joined(first, count, overflowed)
        for index, page in overflowed.items():
            # Once is how a page is needed and freed; who comes twice may come again.
            try:
                again = self._pool.use_overflowed(OBJECT, index)
                if again and self._evictor.has_spare and self._pool.has_room(1):
                    self._put(index, page)
            except Exception as error:
                failsafe.note("swap read back", error)  # who reads has the page
        return self._cut(run, offset, size)

    async def _write_piece(self, offset: int, buf: bytes) -> None:
        edges = self._edges(offset, buf)
        while True:
            # All of it anew after each wait: others have written meanwhile.
            overflowed: dict[int, bytes] = {}
            for index in edges:
                found, _ = await self._fetch(index, 1)
                overflowed.update(found)
            told = {index: checksum(index, page) for index, page in overflowed.items()}
            if told != self._overflowed(edges):
                continue
            if self._put_run(offset, buf, overflowed):
                return
            await self._wait_for_room()

    async def _fetch(self, first: int, count: int) -> tuple[dict[int, bytes], int]:
        """Return the pages of a run that are outside, and the length of the run.

        Both are true at the moment of the return. The run ends before a page that cannot be read
        or is wrong; EIO when it is the first.
        """
        found: dict[int, tuple[int, bytes]] = {}
        while True:
            wanted = self._pool.checksums(OBJECT, first, count)
            missing = [i for i in wanted if i not in found or found[i][0] != wanted[i]]
            if not missing:
                return {i: found[i][1] for i in wanted}, count
            loaded, unreadable = await self._load(missing)
            found.update({i: (checksum(i, page), page) for i, page in loaded.items()})
            now = self._pool.checksums(OBJECT, first, count)
            for index in missing:
                # What was written or flushed meanwhile may well be something else in its slot.
                if now.get(index) != wanted[index]:
                    continue
                if index in loaded and found[index][0] != wanted[index]:
                    self._file.failed(f"slot {index} has a wrong checksum")
                elif index != unreadable:
                    continue
                count = index - first
                break
            if not count:
                raise OSError(errno.EIO, f"page {first} cannot be read from the overflow file")

    async def _load(self, slots: list[int]) -> tuple[dict[int, bytes], int | None]:
        """Return what is in *slots* up to the first that cannot be read, and which that is."""
        loaded: dict[int, bytes] = {}
        for place, count in runs(slots):
            first = slots[place]
            try:
                loaded.update(enumerate(await self._file.read(first, count), first))
            except OSError as error:
                if count == 1:
                    self._file.failed(f"slot {first} not read: {error.strerror}")
                    return loaded, first
                # It is one of them, most likely.
                for slot in range(first, first + count):
                    one, unreadable = await self._load([slot])
                    loaded.update(one)
                    if unreadable is not None:
                        return loaded, unreadable
        return loaded, None

    # -- inside ------------------------------------------------------------------------------

    def _edges(self, offset: int, buf: bytes) -> set[int]:
        """The pages that a write covers in part."""
        page_size, end = self._pool.page_size, offset + len(buf)
        return {at // page_size for at in (offset, end) if at % page_size and buf}

    def _overflowed(self, pages: Iterable[int]) -> dict[int, int]:
        """The checksums of those of *pages* that are outside."""
        return {i: found for n in pages for i, found in self._pool.checksums(OBJECT, n, 1).items()}

    def _joined(self, first: int, count: int, overflowed: Mapping[int, bytes]) -> bytes:
        """The pages of a run, *outside* or in memory, up to the first that is corrupt there."""
        pages: list[bytes] = []
        for index in range(first, first + count):
            try:
                pages.append(overflowed.get(index) or self._page(index))
            except OSError:
                if not pages:
                    raise
                break
        return b"".join(pages)
