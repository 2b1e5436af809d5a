"""Transcendent memory: put, get and flush of whole pages by handle, under one budget.

Usable by itself::

    core = Core(64 << 20)
    pool = core.new_client("me").new_pool("mine", kind="ephemeral")
    pool.put(7, 0, page)
    pool.get(7, 0)          # the page, or None once it was reclaimed
"""

from tmemfs.tmem.core import MAX_PAGE_SIZE, MIN_BUDGET, MIN_PAGE_SIZE, Client, Core
from tmemfs.tmem.persistent import PersistentPool
from tmemfs.tmem.pool import INDEX_LIMIT, INVALID_OBJECT_ID, Pool
from tmemfs.tmem.writeback import Batch, Writeback

__all__ = [
    "INDEX_LIMIT",
    "INVALID_OBJECT_ID",
    "MAX_PAGE_SIZE",
    "MIN_BUDGET",
    "MIN_PAGE_SIZE",
    "Batch",
    "Client",
    "Core",
    "PersistentPool",
    "Pool",
    "Writeback",
]
