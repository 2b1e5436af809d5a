"""The storage of a core with its tables in C; what it does is what `tmemfs.tmem.objects` says.

Only the tables are there. Which segment a page goes to, and what lives in it, is the business of
`tmemfs.pages.log` as ever, so that a change is made in two steps: the tables first, of which the
store takes care, and then what the segments say. No step of the second kind can fail.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tmemfs.native import load
from tmemfs.native.memory import SharedMemory
from tmemfs.pages import Arena, Segment
from tmemfs.pages.locations import is_overflowed
from tmemfs.pages.log import Lives, freed, release_empty
from tmemfs.tmem.objects import NO_LIVES
from tmemfs.tmem.storage import MakeStorage

if TYPE_CHECKING:
    from tmemfs.native import _native


def make_storage() -> MakeStorage | None:
    """What makes the storage of a core with its tables in C; None without the extension."""
    return NativeStorage if load.extension is not None else None


class NativeStorage:
    """An arena of *segments* segments of *segment_size* bytes, and tables behind it in C.

    Only where there is the extension. Raises OSError where the system does not let it be mapped.
    """

    kind = "native"

    def __init__(self, segments: int, segment_size: int) -> None:
        assert load.extension is not None
        pages = Arena.memory_size(segments, segment_size)
        tables = load.extension.tables_size(pages)
        self._memory = SharedMemory(pages + tables)
        try:
            self.store: _native.Store = load.extension.Store(
                self._memory.map, tables, self._memory.fd
            )
        except BaseException:
            self._memory.close()
            raise
        self.arena: Arena[Segment] = _Arena(segments, segment_size, self._memory, self.store)

    def new_table(self) -> NativeTable:
        """See `tmemfs.tmem.storage.Storage`."""
        return NativeTable(self.arena, self.store)

    def keep_tables(self, size: int) -> bool:
        """See `tmemfs.tmem.storage.Storage`."""
        self.store.keep(size)
        return True

    def close(self) -> None:
        """Give all memory back."""
        self.store.close()
        self.arena.close()


class _Arena(Arena[Segment]):
    """An arena whose account has what the tables of *store* take."""

    def __init__(
        self, segments: int, segment_size: int, memory: SharedMemory, store: _native.Store
    ) -> None:
        self._store = store
        super().__init__(segments, segment_size, memory)

    @property
    def metadata_bytes(self) -> int:
        return self.heap_bytes + self._store.charged


class NativeTable:
    """The objects of one pool: as `tmemfs.tmem.objects.ObjectTable`."""

    def __init__(self, arena: Arena[Segment], store: _native.Store) -> None:
        assert load.extension is not None
        self._arena = arena
        table: _native.Table = load.extension.Table(store)
        self._table = self.native = table
        self.find = table.find
        self.obtain = table.obtain
        self.owner = table.owner
        self.clear = table.clear
        self.watch = table.watch
        self.hide = table.hide
        self.show = table.show
        self.take_hits = table.take_hits

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return self._table.pages

    @property
    def overflowed(self) -> int:
        """How many of them are in an overflow file."""
        return self._table.overflowed

    @property
    def metadata_bytes(self) -> int:
        """What the objects are charged with."""
        return self._table.charged

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[_native.Object]:
        return iter(self._table.objects())

    def store(self, owner: Any, index: int, locations: list[int], lives: Lives = NO_LIVES) -> None:
        """See `ObjectTable.store`."""
        if self._table.put_new(owner, index, locations):
            # Most puts: nothing was there, and the segment that they went to is not empty.
            for segment, live in lives:
                segment.live = live
            return
        before = self._inside(owner, index, len(locations))
        lives = [*freed(self._arena, before), *lives] if before else lives
        empty = [segment for segment, live in lives if not live[0]]
        self._table.put(owner, index, locations)
        _settle(lives, empty)

    def remove(self, owner: Any, first: int, last: int) -> int:
        """See `ObjectTable.remove`."""
        lives = freed(self._arena, self._inside(owner, first, last - first))
        empty = [segment for segment, live in lives if not live[0]]
        gone = self._table.remove(owner, first, last)
        _settle(lives, empty)
        return gone

    def _inside(self, owner: Any, index: int, count: int) -> list[int]:
        """Where pages of a run are that are in the arena."""
        found = filter(None, owner.run(index, count, mark=False))
        if not self._table.overflowed:
            return list(found)
        return [location for location in found if not is_overflowed(location)]


def _settle(lives: Lives, empty: Iterable[Segment]) -> None:
    """Let what lives in segments be what the tables say by now."""
    for segment, live in lives:
        segment.live = live
    release_empty(empty)
