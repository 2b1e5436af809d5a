"""Reading a run of pages out of the arena into one buffer: what a hit of many pages is.

``_reader.c`` does it where it could be built, in two thirds of the time that lz4's Python module
and a copy of each page take. Without it the same is done here.
"""

from __future__ import annotations

from collections.abc import Callable

from tmemfs.pages import codec
from tmemfs.pages.locations import SIZE_BITS, SIZE_MASK

Run = tuple[bytearray, list[int]]


def _load() -> Callable[[memoryview, list[int], int, int], Run | None] | None:
    try:
        from tmemfs.pages._reader import read
    except ImportError:
        return None
    return read


native = _load()
"""the extension's part of `read`; None where it could not be built"""


def read(arena: memoryview, locations: list[int], page_size: int) -> Run:
    """Return the pages at *locations* one after the other, and which of them are not there.

    Where a location is 0 there is no page: zeros are in its place, and its place is in the list.
    Raises `tmemfs.errors.CorruptPage` where a stored page cannot be decoded.
    """
    if native is not None:
        found = native(arena, locations, page_size, SIZE_BITS)
        if found is not None:
            return found
        # One of them is damaged. What is wrong with it, the codec can say.
    run = bytearray(len(locations) * page_size)
    missing: list[int] = []
    for place, location in enumerate(locations):
        if location:
            page = page_at(arena, location, page_size)
            run[place * page_size : (place + 1) * page_size] = page
        else:
            missing.append(place)
    return run, missing


def page_at(arena: memoryview, location: int, page_size: int) -> bytes:
    """Return the page at *location*, which is not 0. Raises as `read` does."""
    size = location & SIZE_MASK
    start = location >> SIZE_BITS
    return codec.decode(arena[start : start + size], size, page_size)
