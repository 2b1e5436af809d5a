"""Clients that overflow, with dicts for their files: what leaves memory, and is found again."""

import zlib
from collections.abc import Callable

from tmemfs.tmem import Core, PersistentPool, Pool
from tmemfs.tmem.writeback import Batch

Handle = tuple[int, int]


class OverflowFiles:
    """The files of all overflowing pools of a core, and the one batch that is on its way."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.batch: Batch | None = None
        self._files: dict[Pool, dict[Handle, bytes]] = {}
        self._leaving: list[tuple[Handle, bytes]] = []

    def begin(self, *, heads: bool = False) -> bool:
        """Let pages be on their way; False when there are none."""
        assert self.batch is None
        self.batch = self.core.writeback.begin(heads=heads)
        if self.batch is None:
            return False
        pages = self.batch.pages()
        handles = [(owner.id, index) for owner, index, _ in self.batch._victims]
        assert [index for index, _ in pages] == [index for _, index in handles]
        self._leaving = [(h, data) for h, (_, data) in zip(handles, pages, strict=True)]
        return True

    def finish(self, written: Callable[[int], bool] = lambda _: True) -> int:
        """They have left, apart from those that could not be written; return how many did."""
        batch, self.batch = self.batch, None
        assert batch is not None
        file = self._files.setdefault(batch.pool, {})
        checksums: list[int | None] = []
        for number, (handle, data) in enumerate(self._leaving):
            # What could not be written is not what was there before either.
            is_written = written(number)
            file[handle] = data if is_written else b"garbage"
            checksums.append(zlib.crc32(data) if is_written else None)
        return self.core.writeback.finish(batch, checksums)

    def leave(self, *, heads: bool = False) -> bool:
        """Let one batch leave; False when there is none."""
        return self.begin(heads=heads) and self.finish() >= 0

    def overflowed(self, pool: Pool, object_id: int, index: int, count: int) -> dict[int, bytes]:
        """The pages of a run that are in the file; each must be what had left."""
        if not isinstance(pool, PersistentPool):
            return {}
        found = {}
        for at, checksum in pool.checksums(object_id, index, count).items():
            found[at] = self._files[pool][object_id, at]
            assert zlib.crc32(found[at]) == checksum
        return found
