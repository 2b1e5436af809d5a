"""The storage of a core with its tables and its log in C.

What it does is what `tmemfs.tmem.objects` and `tmemfs.pages.log` say. Which segment is the head of
a log, and in which order they are looked at, is decided there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tmemfs.native import load
from tmemfs.native.memory import SharedMemory
from tmemfs.pages import Arena, Segment, SegmentLog
from tmemfs.pages.log import Lives, release_empty
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
        tables = load.extension.tables_size(pages, segment_size)
        self._memory = SharedMemory(pages + tables)
        try:
            self.store: _native.Store = load.extension.Store(
                self._memory.map, tables, segment_size, self._memory.fd
            )
        except BaseException:
            self._memory.close()
            raise
        self.arena: Arena[Segment] = _Arena(segments, segment_size, self._memory, self.store)

    def new_table(self) -> NativeTable:
        """See `tmemfs.tmem.storage.Storage`."""
        return NativeTable(self.arena, self.store)

    def encode(self, data: bytes, page_size: int) -> list[bytes]:
        """See `tmemfs.tmem.storage.Storage`."""
        assert load.extension is not None
        payloads: list[bytes] = load.extension.encode(data, page_size)
        return payloads

    def new_log(self, page_size: int) -> SegmentLog:
        """See `tmemfs.tmem.storage.Storage`."""
        return NativeLog(self.arena, page_size, self.store)

    def keep_tables(self, size: int) -> bool:
        """See `tmemfs.tmem.storage.Storage`."""
        # Numbers are given out one after the other, the first to those that are warm.
        warm = self.arena.used_bytes + self.arena.warm_bytes
        self.store.keep(size, warm // self.arena.segment_size + 1)
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

    @property
    def lent(self) -> int:
        return self._store.lent

    def lend(self, size: int) -> None:
        self._store.lend(size)

    def recall(self) -> bool:
        lent = self.lent
        self.lend(0)
        return lent > 0

    def release_empty(self) -> None:
        if self._store.has_empty:
            numbers = self._store.take_empty()
            release_empty([self.holders[number] for number in numbers if number in self.holders])


class NativeLog(SegmentLog):
    """A log whose segments are the store's."""

    def __init__(self, arena: Arena[Segment], page_size: int, store: _native.Store) -> None:
        # Where the lane may put pages is told to it: see `NativeTable.show_heads`.
        self._shown: list[tuple[_native.Table, int]] = []
        super().__init__(arena, page_size)
        self._store = store

    @property
    def head(self) -> Segment | None:
        return self._head

    @head.setter
    def head(self, segment: Segment | None) -> None:
        shown: Any = segment
        self._head = segment
        for table, kind in self._shown:
            table.show_head(kind, shown)

    def show_to(self, table: _native.Table, kind: int) -> None:
        """Let the lane put pages of *table* at the head, those of that kind."""
        self._shown.append((table, kind))
        self.head = self.head

    def append(
        self, payloads: Sequence[bytes | memoryview], owner: int, index: int
    ) -> tuple[list[int], Lives]:
        head: Any = self.head
        return (head.append(payloads, owner, index) if head is not None else []), NO_LIVES

    def _new_segment(self, number: int) -> Any:
        assert load.extension is not None
        return load.extension.Segment(self._store, self, number, self.page_size)


class NativeTable:
    """The objects of one pool: as `tmemfs.tmem.objects.ObjectTable`."""

    def __init__(self, arena: Arena[Segment], store: _native.Store) -> None:
        assert load.extension is not None
        self._arena = arena
        self._store = store
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
        self.take_puts = table.take_puts

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return self._table.pages

    @property
    def overflowed(self) -> int:
        """How many of them are in an overflow file."""
        return self._table.overflowed

    @property
    def staged(self) -> int:
        """How many of them wait to be compressed."""
        return self._table.staged

    @property
    def is_next_in_stage(self) -> bool:
        """Whether the one that waits longest is one of these."""
        return self._table.is_next_in_stage

    @property
    def metadata_bytes(self) -> int:
        """What the objects are charged with."""
        return self._table.charged

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[_native.Object]:
        return iter(self._table.objects())

    def store(self, owner: Any, index: int, locations: list[int], lives: Lives = NO_LIVES) -> None:
        """See `ObjectTable.store`; what lives where is known to the store."""
        self._table.put(owner, index, locations)
        self._arena.release_empty()

    def remove(self, owner: Any, first: int, last: int) -> int:
        """See `ObjectTable.remove`."""
        gone = self._table.remove(owner, first, last)
        self._arena.release_empty()
        return gone

    def show_heads(self, log: SegmentLog, raw: SegmentLog) -> None:
        """See `tmemfs.tmem.storage.Table`."""
        for kind, shown in enumerate((log, raw)):
            assert isinstance(shown, NativeLog)
            shown.show_to(self._table, kind)
