"""Clients: who owns pools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

from tmemfs.errors import BadPool
from tmemfs.tmem.persistent import PersistentPool
from tmemfs.tmem.pool import Kind, Pool

if TYPE_CHECKING:
    from tmemfs.tmem.core import Core


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
