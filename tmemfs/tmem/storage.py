"""What a core keeps its pages in: an arena, and tables that say which page is where in it.

There are two kinds, which answer alike: `PythonStorage`, and one in C that others may read without
the interpreter (`tmemfs.native`). What is above here does not know which of them it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from tmemfs.pages import Arena, Segment, SegmentLog, codec
from tmemfs.pages.log import Lives
from tmemfs.tmem.objects import NO_LIVES, ObjectTable


class Pages(Protocol):
    """The pages of one object, by index: see `tmemfs.tmem.objects.Object`."""

    stamp: int

    @property
    def id(self) -> int: ...

    @property
    def number(self) -> int: ...

    def location(self, index: int, /) -> int: ...

    def use(self, index: int, /) -> int: ...

    def used(self, index: int, /) -> bool: ...

    def uses(self, index: int, /) -> int: ...

    def unmark(self, index: int, /) -> None: ...

    def run(self, index: int, count: int, *, mark: bool) -> list[int]: ...

    def parts(self, index: int, count: int, /) -> list[tuple[int, int]]: ...


class Table(Protocol):
    """The objects of one pool: see `tmemfs.tmem.objects.ObjectTable`."""

    @property
    def pages(self) -> int: ...

    @property
    def overflowed(self) -> int: ...

    @property
    def staged(self) -> int: ...

    @property
    def is_next_in_stage(self) -> bool: ...

    @property
    def metadata_bytes(self) -> int: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Pages]: ...

    def find(self, object_id: int, /) -> Pages | None: ...

    def obtain(self, object_id: int, /) -> Pages: ...

    def owner(self, number: int, /) -> Pages | None: ...

    def store(
        self, owner: Any, index: int, locations: list[int], lives: Lives = NO_LIVES
    ) -> None: ...

    def remove(self, owner: Any, first: int, last: int) -> int: ...

    def clear(self) -> None: ...

    native: Any
    """by what others read it without us; None where nobody can"""

    def take_hits(self) -> int:
        """How many pages were read by others since this was asked last."""

    def take_puts(self) -> tuple[int, int, int, int]:
        """What others have put since then: (pages, replaced ones, flushs, pages flushed)."""

    def show_heads(self, log: SegmentLog, raw: SegmentLog, /) -> None:
        """Let others put pages at the heads of these logs, those that do not compress in *raw*."""

    def watch(self, pages: int, /) -> None:
        """Have what it takes to hide pages with indices below *pages*."""

    def hide(self, first: int, last: int, /) -> None:
        """Let others ask us for the pages *first* to *last* (excluded), whatever is there."""

    def show(self, first: int, last: int, /) -> None:
        """Undo `hide`."""


class Storage(Protocol):
    """An arena, and who makes the tables of pools about it."""

    kind: str
    """``python`` or ``native``"""
    arena: Arena[Segment]

    def new_table(self) -> Table:
        """Return an empty table, for a pool."""

    def new_log(self, page_size: int) -> SegmentLog:
        """Return an empty log, for pages of *page_size* bytes."""

    def encode(self, data: bytes, page_size: int) -> list[bytes]:
        """Return the payloads of the pages that *data* is: see `tmemfs.pages.codec`."""

    def keep_tables(self, size: int) -> bool:
        """Have *size* bytes of memory for tables from now on; False where they are on the heap."""

    def close(self) -> None:
        """Give all memory back."""


MakeStorage = Callable[[int, int], Storage]
"""called with the number of segments and the size of one; what may be raised is an OSError"""


class PythonStorage:
    """An arena of *segments* segments of *segment_size* bytes, and tables of Python's objects."""

    kind = "python"

    def __init__(self, segments: int, segment_size: int) -> None:
        self.arena: Arena[Segment] = Arena(segments, segment_size)

    def new_table(self) -> ObjectTable:
        return ObjectTable(self.arena)

    def encode(self, data: bytes, page_size: int) -> list[bytes]:
        return codec.encode_run(data, page_size)

    def new_log(self, page_size: int) -> SegmentLog:
        return SegmentLog(self.arena, page_size)

    def keep_tables(self, size: int) -> bool:
        return False

    def close(self) -> None:
        self.arena.close()
