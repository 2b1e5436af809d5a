"""An error at any step of anything that the core does: it stays whole, and no other page is lost.

After each error the account is recounted and every byte is compared; then the same is asked for
again, and must be done.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import pytest
from account import check_account
from page_data import KINDS, page
from stepping import (
    FailAt,
    Operation,
    fail_at_allocation,
    fail_at_allocations,
    fail_at_line,
    has_allocations,
)

from tmemfs.tmem import MIN_BUDGET, Batch, Core, PersistentPool, Pool

# Four of them fill a segment if they do not compress, so that little work goes through all that the
# core can do.
SIZE = 32 << 10
SEGMENT = 4

# Nothing below has so many steps in a row of which none lets an error out.
QUIET = 12
# Where each step takes long or there are very many, one in so many of them is tried.
FEW = 7
# What a put does before it has begun: until then the older pages are as they were.
BEFORE = 4

Handle = tuple[Pool, int, int]


class Rig:
    """A small core with a pool of each kind, and what must be in them."""

    def __init__(self) -> None:
        self.core = Core(MIN_BUDGET, capacity=2 * MIN_BUDGET)
        self.client = self.core.new_client("client")
        self.swap = self.client.new_pool("swap", kind="persistent", page_size=SIZE)
        self.disk = self.client.new_pool("disk", kind="persistent", page_size=SIZE, overflows=True)
        self.cache = self.client.new_pool("cache", kind="ephemeral", page_size=SIZE)
        self.pages: dict[Handle, bytes] = {}
        self.file: dict[int, bytes] = {}
        # Of every kind and in every pool, and never in the way of anything.
        for pool in self.swap, self.disk, self.cache:
            self.put(pool, 9, 62, [page(i, SIZE, kind) for i, kind in enumerate(KINDS)])

    def put(self, pool: Pool, object_id: int, index: int, pages: list[bytes]) -> None:
        assert pool.put_many(object_id, index, b"".join(pages)) == len(pages)
        self.pages.update(run(pool, object_id, index, pages))

    def flush(self, pool: Pool, object_id: int, index: int) -> None:
        assert pool.flush_page(object_id, index) == 1
        del self.pages[pool, object_id, index]

    def found(self, pool: Pool, object_id: int, index: int) -> bytes | None:
        """The page that is there, or in the file."""
        if isinstance(pool, PersistentPool):
            for checksum in pool.checksums(object_id, index, 1).values():
                assert zlib.crc32(self.file[index]) == checksum
                return self.file[index]
        return pool.get(object_id, index)

    def check(self, changing: Mapping[Handle, set[bytes | None]], *, failed: bool = True) -> None:
        """All is well, and each page is as it was, or as it may be while it is *changing*."""
        check_account(self.core, settled=not failed, failed=failed)
        for handle in {**self.pages, **changing}:
            pool = handle[0]
            may = changing.get(handle, {self.pages.get(handle)})
            assert self.found(*handle) in (may | {None} if pool is self.cache else may)


def run(pool: Pool, object_id: int, index: int, pages: list[bytes]) -> dict[Handle, bytes]:
    return {(pool, object_id, index + i): one for i, one in enumerate(pages)}


def raw(seed: int, count: int) -> list[bytes]:
    return [page(seed + i, SIZE) for i in range(count)]


@dataclass
class Case:
    """What is to be done, and what is there afterwards of the pages that it is about."""

    operation: Operation
    after: Mapping[Handle, bytes | None] = field(default_factory=dict)
    between: tuple[bool, bool] = (False, False)
    """whether an error may leave what was there, and nothing"""
    mend: Operation = int
    """what the client does about an error before it tries again"""


def put(rig: Rig, pool: Pool, index: int, pages: list[bytes]) -> Case:
    data = b"".join(pages)

    def operation() -> None:
        assert pool.put_many(1, index, data) == len(pages)

    return Case(operation, run(pool, 1, index, pages), between=(False, True))


def put_in_two_nodes_and_segments(rig: Rig) -> Case:
    rig.put(rig.swap, 1, 58, raw(100, 2))
    kinds = itertools.cycle(("raw", "zero", "text", "raw", "word", "raw"))
    return put(rig, rig.swap, 60, [page(200 + i, SIZE, next(kinds)) for i in range(12)])


def put_of_both_logs(rig: Rig) -> Case:
    return put(rig, rig.disk, 0, [page(i, SIZE, KINDS[i % 4]) for i in range(8)])


def put_over_others(rig: Rig) -> Case:
    rig.put(rig.disk, 1, 60, raw(100, 3))
    rig.put(rig.disk, 1, 64, raw(110, 3))
    leave(rig)
    rig.put(rig.disk, 1, 65, raw(120, 1))
    return put(rig, rig.disk, 61, raw(200, 6))


def put_of_one(rig: Rig) -> Case:
    rig.put(rig.swap, 1, 3, raw(100, 1))
    return put(rig, rig.swap, 3, [page(1, SIZE, "text")])


def put_that_evicts(rig: Rig) -> Case:
    """The first that does, so that main begins; pages that were used move there, others go."""
    fill(rig, rig.cache)
    for index in range(0, 200, SEGMENT - 1):
        rig.cache.get(1, index)
        rig.cache.get(1, index)
    return put(rig, rig.cache, 1000, raw(200, SEGMENT + 1))


def put_that_takes_from_the_cache(rig: Rig) -> Case:
    fill(rig, rig.cache)
    return put(rig, rig.swap, 0, raw(200, SEGMENT + 1))


def put_that_cleans(rig: Rig) -> Case:
    rig.cache.flush_object(9)
    fill(rig, rig.swap)
    for _, _, index in [handle for handle in rig.pages if handle[:2] == (rig.swap, 1)][::3]:
        rig.flush(rig.swap, 1, index)
    return put(rig, rig.swap, 1000, raw(200, SEGMENT))


def fill(rig: Rig, pool: Pool) -> None:
    """Put pages until there is no room for more but what is taken back."""
    arena, index = rig.core._arena, len(rig.pages)
    while arena.charged_bytes + 3 * arena.segment_size <= rig.core.budget:
        rig.put(pool, 1, index, raw(index, SEGMENT))
        index += SEGMENT


def get_of_a_run(rig: Rig) -> Case:
    rig.put(rig.swap, 1, 60, [page(i, SIZE, KINDS[i % 4]) for i in range(8)])
    return Case(lambda: (rig.swap.get_many(1, 58, 12), rig.swap.get(1, 61), rig.swap.get(1, 0)))


def get_and_flush(rig: Rig) -> Case:
    rig.put(rig.swap, 1, 5, raw(100, 2))
    return Case(lambda: rig.swap.get_and_flush(1, 5), {(rig.swap, 1, 5): None}, (True, True))


def flush_of_a_run(rig: Rig) -> Case:
    rig.put(rig.disk, 1, 58, raw(100, 4))
    leave(rig)
    rig.put(rig.disk, 1, 62, raw(110, 8))
    gone = {(rig.disk, 1, index): None for index in range(60, 66)}
    return Case(lambda: rig.disk.flush_many(1, 60, 6), gone, (True, True))


def flush_of_an_object(rig: Rig) -> Case:
    rig.put(rig.swap, 1, 60, raw(100, 7))
    rig.put(rig.swap, 1, 1000, raw(110, 2))
    gone = {handle: None for handle in rig.pages if handle[:2] == (rig.swap, 1)}
    return Case(lambda: rig.swap.flush_object(1), gone, (True, True))


def leave(rig: Rig) -> Case:
    """A client that takes a batch to its file, as a volume does."""
    told: list[tuple[Batch, list[int | None]]] = []

    def operation() -> None:
        batch = rig.core.writeback.begin(heads=True)
        if batch is None:
            return
        checksums: list[int | None] = []
        told[:] = [(batch, checksums)]
        try:
            pages = batch.pages()
            rig.file.update(pages)
            checksums += [zlib.crc32(data) for _, data in pages]
            checksums[:1] = [None]
        finally:
            rig.core.writeback.finish(batch, checksums)

    def mend() -> None:
        # To end a batch may have failed as well.
        for batch, checksums in told:
            rig.core.writeback.finish(batch, checksums)

    operation()
    return Case(operation, mend=mend)


def pages_that_leave(rig: Rig) -> Case:
    rig.put(rig.disk, 1, 100, [page(i, SIZE, KINDS[i % 4]) for i in range(2, 14)])
    rig.disk.get_many(1, 104, 3)
    return leave(rig)


def smaller_budget(rig: Rig) -> Case:
    rig.core.set_budget(2 * MIN_BUDGET)
    rig.core.keep_warm(MIN_BUDGET)
    warm_up(rig)
    for index in range(0, 40, SEGMENT):
        rig.put(rig.cache, 1, index, raw(index, SEGMENT))
        rig.put(rig.swap, 1, index // 2, raw(index, 2))
        rig.flush(rig.swap, 1, index // 2)
    return Case(lambda: rig.core.set_budget(MIN_BUDGET))


def larger_budget(rig: Rig) -> Case:
    return Case(lambda: rig.core.set_budget(2 * MIN_BUDGET))


def warm_up(rig: Rig) -> None:
    while rig.core.warm_up():
        pass


def more_and_less_that_is_warm(rig: Rig) -> Case:
    def operation() -> None:
        for size in (MIN_BUDGET // 2, 0, MIN_BUDGET):
            rig.core.keep_warm(size)
            warm_up(rig)

    return Case(operation)


def new_pools(rig: Rig) -> Case:
    def operation() -> None:
        private = rig.client.new_pool("private", kind="ephemeral", page_size=SIZE)
        assert private.put(1, 1, bytes(SIZE))
        assert rig.client.new_pool("shared", kind="persistent", uuid=7)

    return Case(operation)


def pools_that_go(rig: Rig) -> Case:
    for pool in rig.swap, rig.cache:
        for index in range(0, 20, SEGMENT):
            rig.put(pool, 1, index, raw(index, SEGMENT))
    gone = [rig.swap, rig.cache]
    rig.pages = {handle: data for handle, data in rig.pages.items() if handle[0] not in gone}

    def operation() -> None:
        for pool in gone:
            if pool in rig.client.pools:
                rig.client.destroy_pool(pool)
        while rig.core.sweep(1):
            pass

    return Case(operation)


CASES = [
    put_in_two_nodes_and_segments,
    put_of_both_logs,
    put_over_others,
    put_of_one,
    put_that_evicts,
    put_that_takes_from_the_cache,
    put_that_cleans,
    get_of_a_run,
    get_and_flush,
    flush_of_a_run,
    flush_of_an_object,
    pages_that_leave,
    smaller_budget,
    larger_budget,
    more_and_less_that_is_warm,
    new_pools,
    pools_that_go,
]


needs_allocations = pytest.mark.skipif(not has_allocations, reason="a Python without _testcapi")


# A generator that is closed without memory says so, to nobody.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("prepare", CASES)
@pytest.mark.parametrize(
    "fail_at",
    [
        pytest.param(fail_at_line, id="line"),
        pytest.param(fail_at_allocation, id="allocation", marks=needs_allocations),
        pytest.param(fail_at_allocations, id="allocations", marks=needs_allocations),
    ],
)
def test_an_error_at_every_step(fail_at: FailAt, prepare: Callable[[Rig], Case]) -> None:
    errors = 0
    for rig, case in failed(fail_at, prepare):
        errors += 1
        case.mend()
        rig.check(possible(rig, case, lasting=fail_at is fail_at_allocations))
        case.operation()
        rig.check({handle: {data} for handle, data in case.after.items()})
        rig.core.close()
    assert errors


def failed(fail_at: FailAt, prepare: Callable[[Rig], Case]) -> Iterator[tuple[Rig, Case]]:
    """The rig after an error at one step of the case, and at the next, as far as there are any."""
    quiet = 0
    for step in itertools.count(0, 1 if fail_at is fail_at_line else FEW):
        rig = Rig()
        case = prepare(rig)
        if fail_at(step, case.operation) is not None:
            quiet = 0
            if step < BEFORE:
                case.between = (True, True)
            yield rig, case
        else:
            rig.core.close()
            quiet += 1
        if quiet == QUIET:
            break


def possible(rig: Rig, case: Case, *, lasting: bool) -> dict[Handle, set[bytes | None]]:
    """What the pages that the case is about may be after an error.

    When there is no memory at all any more, there may be none to remove what is to go.
    """
    old, nothing = case.between
    found = {}
    for handle, new in case.after.items():
        found[handle] = {None} if nothing else set()
        if old or lasting:
            found[handle].add(rig.pages.get(handle))
        if lasting:
            found[handle].add(new)
    return found
