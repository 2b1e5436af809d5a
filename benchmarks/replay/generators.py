"""Traces that are made up, each to show one thing; the same ones at every call.

Sizes are in multiples of the pages that the cache would hold uncompressed.
"""

import random
from array import array
from collections.abc import Callable, Iterator
from itertools import accumulate, count, cycle, islice

from benchmarks.replay.trace import INDEX_BITS, Trace

ALPHA = 1.0
"""The page that is asked for k-th most often is asked for k to the power of -ALPHA as often."""
POPULATION = 10
"""Pages of the Zipf traces, in caches."""

_SCANNED_OBJECT = 1 << INDEX_BITS


def zipf(pages: int, requests: int, seed: int = 1) -> Trace:
    """Few pages are asked for often, and many hardly ever: most of what people do."""
    about = f"Zipf, alpha {ALPHA}, {POPULATION * pages} pages, seed {seed}"
    return Trace("zipf", array("Q", islice(_zipf(pages, seed), requests)), about=about)


def loop(pages: int, requests: int, caches: float = 1.2) -> Trace:
    """The same pages round and round, a few more than LRU holds: it never hits."""
    length = int(caches * pages)
    keys = array("Q", islice(cycle(range(length)), requests))
    return Trace(f"loop of {caches:g}", keys, about=f"{length} pages round and round")


def scan_mixed(pages: int, requests: int, seed: int = 2) -> Trace:
    """Zipf, and now and then somebody reads a file twice the cache's size once, start to end."""
    often = _zipf(pages, seed)
    scanned = count(_SCANNED_OBJECT)
    turns = (
        key
        for source, length in cycle(((often, 4 * pages), (scanned, 2 * pages)))
        for key in islice(source, length)
    )
    about = f"Zipf as above, seed {seed}; after each {4 * pages} requests a scan of {2 * pages}"
    return Trace("scan-mixed", array("Q", islice(turns, requests)), about=about)


def long_loop(pages: int, requests: int) -> Trace:
    """More pages round and round than compression makes room for."""
    return loop(pages, requests, caches=4)


GENERATORS: tuple[Callable[[int, int], Trace], ...] = (zipf, loop, long_loop, scan_mixed)


def _zipf(pages: int, seed: int) -> Iterator[int]:
    source = random.Random(seed)
    population = list(range(POPULATION * pages))
    weights = list(accumulate(rank**-ALPHA for rank in range(1, len(population) + 1)))
    # Not the first pages of the object, or neighbours would be as popular as each other.
    source.shuffle(population)
    while True:
        yield from source.choices(population, cum_weights=weights, k=1 << 12)
