"""The tmem core: clients, their pools, and one budget for the pages of all of them.

Plain synchronous code: it does no I/O, takes no locks and is for one thread at a time.
"""

from __future__ import annotations

import os
from typing import Any, Literal, overload

from tmemfs.errors import BadPool, BudgetError, BudgetInUse
from tmemfs.pages.arena import WARM_SEGMENTS
from tmemfs.tmem.ephemeral import EphemeralPool
from tmemfs.tmem.persistent import PersistentPool
from tmemfs.tmem.pool import Kind, Pool
from tmemfs.tmem.reclaim import Reclaim
from tmemfs.tmem.stats import as_dict
from tmemfs.tmem.storage import MakeStorage, PythonStorage
from tmemfs.tmem.writeback import Writeback

MIN_PAGE_SIZE = 4 << 10
MAX_PAGE_SIZE = 64 << 10

_MIN_SEGMENTS = 16
_SEGMENTS_WANTED = 128
_MIN_SEGMENT_SIZE = 128 << 10
_MAX_SEGMENT_SIZE = 1 << 20

MIN_BUDGET = _MIN_SEGMENTS * _MIN_SEGMENT_SIZE
"""The smallest budget in bytes. A core made with a large one cannot shrink quite as far."""

# Segments of a destroyed pool that are freed at once; the rest follows in slices.
_SWEEP_AT_ONCE = 64


def segment_size(budget: int) -> int:
    """The size in bytes of the segments of a core that begins with this budget."""
    size = 1 << (max(budget // _SEGMENTS_WANTED, 1).bit_length() - 1)
    return min(max(size, _MIN_SEGMENT_SIZE), _MAX_SEGMENT_SIZE)


class Core:
    """Compressed memory of up to *budget* bytes, tables included, for any number of pools.

    The budget may be changed later, up to *capacity* bytes (the machine's memory by default).
    Pages are kept in what *make_storage* makes, objects of Python by default. Raises
    `BudgetError` when it is too small or above the capacity.
    """

    def __init__(
        self,
        budget: int,
        capacity: int | None = None,
        make_storage: MakeStorage = PythonStorage,
    ) -> None:
        if capacity is None:
            capacity = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        size = segment_size(budget)
        self.smallest_budget = _MIN_SEGMENTS * size
        self.capacity = capacity
        self._check_budget(budget)
        self.storage = make_storage(capacity // size, size)
        """for who reads the pages without the core (`tmemfs.native`)"""
        self._arena = self.storage.arena
        self._reclaim = Reclaim(self._arena, budget)
        self.writeback = Writeback(self._arena, self._reclaim)
        """for the clients of pools that overflow"""
        self._next_pool = 1
        self.clients: list[Client] = []

    # -- clients and pools -------------------------------------------------------------------

    def new_client(self, name: str) -> Client:
        """Return a new client, which can make pools."""
        client = Client(name, self)
        self.clients.append(client)
        return client

    @property
    def pools(self) -> tuple[Pool, ...]:
        """Every pool, in the order in which they were made."""
        return tuple(self._reclaim.pools)

    def attach_pool(
        self, name: str, kind: Kind, page_size: int, uuid: int | None, overflows: bool
    ) -> Pool:
        """Return a new pool, or the shared one of that *uuid*. For `Client.new_pool`."""
        if page_size & (page_size - 1) or not MIN_PAGE_SIZE <= page_size <= MAX_PAGE_SIZE:
            raise BadPool(f"page size {page_size} is not a power of two from 4096 to 65536")
        if kind not in ("ephemeral", "persistent"):
            raise BadPool(f"a pool is ephemeral or persistent, not {kind!r}")
        if uuid is not None and not 0 <= uuid < 1 << 128:
            raise BadPool("the uuid of a shared pool is an int of 128 bits")
        if overflows and (kind != "persistent" or uuid is not None):
            raise BadPool("only a private persistent pool can overflow")
        for pool in self.pools if uuid is not None else ():
            if pool.uuid != uuid:
                continue
            if (pool.kind, pool.page_size) != (kind, page_size):
                raise BadPool(
                    f"shared pool {pool.name!r} is {pool.kind} with pages of "
                    f"{pool.page_size} bytes, not {kind} with {page_size}"
                )
            return pool
        number = self._next_pool
        self._next_pool += 1
        where = (number, name, page_size, self.storage, self._reclaim)
        if kind == "persistent":
            pool = PersistentPool(*where, overflows=overflows)
        else:
            pool = EphemeralPool(*where)
        pool.uuid = uuid
        self._reclaim.add(pool)
        return pool

    def detach_pool(self, pool: Pool, client: Client) -> None:
        """Destroy *pool* unless others than *client* have it. For `Client.destroy_pool`."""
        if not any(pool in other.pools for other in self.clients if other is not client):
            pool.close()
            self._reclaim.sweep(_SWEEP_AT_ONCE)

    def sweep(self, segments: int) -> bool:
        """Free up to *segments* segments of destroyed pools; say whether there are more.

        Nobody has to call this: a put that needs memory does. It brings the memory back sooner.
        """
        return self._reclaim.sweep(segments)

    # -- the budget --------------------------------------------------------------------------

    @property
    def budget(self) -> int:
        """How many bytes pages and tables may take; see `begin_budget`."""
        return self._reclaim.limit

    def begin_budget(self, budget: int) -> None:
        """Change the budget. When it shrinks, call `shrink` until it has been done.

        Raises `BudgetError`, with nothing changed, when it is out of range, and `BudgetInUse`
        when it does not hold the persistent pages that are there.
        """
        self._check_budget(budget)
        if budget < self.budget and budget < self._reclaim.must_keep():
            raise BudgetInUse(
                f"budget of {budget} bytes does not hold the persistent pages, which need "
                f"{self._reclaim.must_keep()}"
            )
        self._reclaim.limit = budget

    def keep_warm(self, size: int) -> None:
        """Let up to *size* bytes that no page takes have their memory already; see `warm_up`."""
        self._arena.warm_wanted = max(size // self._arena.segment_size, WARM_SEGMENTS)

    @property
    def warm_bytes(self) -> int:
        """How much memory is there that no page takes."""
        return self._arena.warm_bytes

    def warm_up(self) -> bool:
        """Do a part of what `keep_warm` asks for, a segment; say whether there is more.

        To be called until there is not, after `keep_warm` and after each change of the budget,
        which bounds it. What is warm need not be waited for when the system has no memory left.
        """
        return self._arena.warm_up(self.budget)

    def shrink(self, segments: int = 16) -> bool:
        """Take back up to *segments* segments above the budget; say whether there are more."""
        return self._reclaim.shrink(segments)

    def set_budget(self, budget: int) -> None:
        """Change the budget and shrink in one go: `begin_budget`, then all of `shrink`."""
        self.begin_budget(budget)
        while self.shrink():
            pass

    # -- figures -----------------------------------------------------------------------------

    def statistics(self) -> dict[str, Any]:
        """Return ``memory``, ``pools`` and ``reclaim``, all sizes in bytes and all plain ints."""
        arena = self._arena
        arena.release_empty()
        pools = [pool.statistics() for pool in self._reclaim.pools]
        totals = ("orig_data_size", "compr_data_size", "same_pages", "huge_pages")
        return {
            "memory": {
                "mem_limit": self.budget,
                "mem_used_total": arena.used_bytes,
                "mem_used_max": arena.peak_segments * arena.segment_size,
                **{key: sum(pool[key] for pool in pools) for key in totals},
                "metadata_bytes": arena.metadata_bytes - arena.lent,
                "segment_size": arena.segment_size,
            },
            "pools": pools,
            "reclaim": as_dict(self._reclaim.counters),
        }

    def close(self) -> None:
        """Give all memory back. Nothing may be asked of the core or its pools afterwards."""
        self.storage.close()

    def _check_budget(self, budget: int) -> None:
        if not self.smallest_budget <= budget <= self.capacity:
            raise BudgetError(
                f"budget of {budget} bytes is not between {self.smallest_budget} and "
                f"{self.capacity} bytes"
            )


class Client:
    """A user of the core, with any number of pools. Made by `Core.new_client`."""

    def __init__(self, name: str, core: Core) -> None:
        self.name = name
        self.pools: list[Pool] = []
        self._core = core

    @overload
    def new_pool(
        self,
        name: str,
        *,
        kind: Literal["persistent"],
        page_size: int = ...,
        uuid: int | None = ...,
        overflows: bool = ...,
    ) -> PersistentPool: ...

    @overload
    def new_pool(
        self, name: str, *, kind: Kind, page_size: int = ..., uuid: int | None = ...
    ) -> Pool: ...

    def new_pool(
        self,
        name: str,
        *,
        kind: Kind,
        page_size: int = 4096,
        uuid: int | None = None,
        overflows: bool = False,
    ) -> Pool:
        """Return a new pool of this client.

        *kind* is ``"ephemeral"`` (pages may go at any time) or ``"persistent"`` (they stay until
        flushed), *page_size* a power of two from 4096 to 65536. With *uuid* (128 bits) the pool
        is shared: every client that asks for that uuid gets the same pool, and it lives until
        the last of them destroys it. A persistent pool *overflows* if the client is able to take
        its pages elsewhere (see `tmemfs.tmem.writeback`). Raises `BadPool`, with nothing made,
        for anything else.
        """
        pool = self._core.attach_pool(name, kind, page_size, uuid, overflows)
        try:
            if pool not in self.pools:
                self.pools.append(pool)
        except BaseException:
            self._core.detach_pool(pool, self)
            raise
        return pool

    def destroy_pool(self, pool: Pool) -> None:
        """Give up *pool*: its pages cannot be reached from now on, unless others share it.

        The memory comes back in slices (`Core.sweep`), a small pool's at once. Raises `BadPool`
        when the pool is not one of this client's; after any other error it still is.
        """
        if pool not in self.pools:
            raise BadPool(f"pool {pool.name!r} does not belong to client {self.name!r}")
        self._core.detach_pool(pool, self)
        self.pools.remove(pool)
