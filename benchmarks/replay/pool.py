"""A trace through a pool of the real core: get, and put what missed."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.replay.trace import INDEX_BITS, INDEX_MASK, Trace
from tmemfs.tmem import Core

Contents = Callable[[int], bytes]
"""The page of a key."""


@dataclass(frozen=True)
class Replayed:
    """How many requests of a trace were hits, and how many pages the pool held to do it."""

    hits: int
    held: int
    """the mean over the requests since it first evicted; the most, if it never did"""


def replay(trace: Trace, budget: int, contents: Contents) -> Replayed:
    """Ask a new pool, all alone in a core of *budget* bytes, for each page of *trace*."""
    core = Core(budget)
    pool = core.new_client("replay").new_pool(
        trace.name, kind="ephemeral", page_size=trace.page_size
    )
    hits = full = summed = 0
    counters, objects = pool.counters, pool.objects
    for key in trace.keys:
        object_id, index = key >> INDEX_BITS, key & INDEX_MASK
        if pool.get(object_id, index) is not None:
            hits += 1
        elif not pool.put(object_id, index, contents(key)):
            raise AssertionError("an ephemeral put was refused")
        if counters.good_puts > objects.pages:  # some are gone
            full += 1
            summed += objects.pages
    held = round(summed / full) if full else objects.pages
    core.close()
    return Replayed(hits, held)


def incompressible(page_size: int) -> Contents:
    """Pages that take their own size, so that the pool holds as many pages all the time."""
    page = random.Random(page_size).randbytes(page_size)
    return lambda key: page


def from_corpus(corpus: bytes, page_size: int) -> Contents:
    """Pages of real data: neighbours are neighbours there, each object begins elsewhere."""
    pages = len(corpus) // page_size

    def contents(key: int) -> bytes:
        # A prime number of pages apart, so that no two objects of the usual sizes coincide.
        start = (key + (key >> INDEX_BITS) * 7919) % pages * page_size
        return corpus[start : start + page_size]

    return contents
