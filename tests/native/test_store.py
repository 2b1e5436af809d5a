"""The tables in C: what they answer is what Python's answer, and their memory goes with them."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from account import check_account
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from page_data import page

from tmemfs.errors import CorruptPage
from tmemfs.native._native import Table
from tmemfs.native.storage import NativeStorage, NativeTable, make_storage
from tmemfs.pages.locations import SIZE_BITS, SIZE_MASK, overflowed
from tmemfs.tmem import INDEX_LIMIT, INVALID_OBJECT_ID, MIN_BUDGET, Core, PersistentPool, Pool
from tmemfs.tmem.objects import MAPS, NODE_PAGES
from tmemfs.tmem.storage import PythonStorage

SEGMENT = 128 << 10
PAGE = 4096

pools = st.integers(0, 2)
objects = st.sampled_from([0, 1, 7, INVALID_OBJECT_ID - 1])
indices = st.one_of(
    st.integers(-3, 200), st.sampled_from([62, 64, 1 << 20, INDEX_LIMIT - 5, INDEX_LIMIT, 1 << 70])
)
counts = st.sampled_from([1, 1, 2, 5, 65, 130])


class SideBySide(RuleBasedStateMachine):
    """Two cores, of both kinds, asked the same: every answer and every figure is the same."""

    @initialize(budget=st.integers(MIN_BUDGET, 2 * MIN_BUDGET))
    def start(self, budget: int) -> None:
        self.cores = [Core(budget, 2 * MIN_BUDGET, make) for make in (PythonStorage, NativeStorage)]
        self.pools = [self._pools(core) for core in self.cores]

    def _pools(self, core: Core) -> list[Pool]:
        new = core.new_client("client").new_pool
        return [
            new("ephemeral", kind="ephemeral", page_size=PAGE),
            new("persistent", kind="persistent", page_size=2 * PAGE),
            new("overflowing", kind="persistent", page_size=PAGE, overflows=True),
        ]

    def both(self, number: int, method: str, *args: Any) -> Any:
        """Ask the same pool of both cores the same."""
        python, native = (answer(of_core[number], method, *args) for of_core in self.pools)
        assert python == native
        return native

    @rule(number=pools, object_id=objects, index=indices, count=counts, seed=st.integers(0, 999))
    def put(self, number: int, object_id: int, index: int, count: int, seed: int) -> None:
        size, kinds = self.pools[0][number].page_size, ("raw", "text", "zero", "word")
        data = b"".join(page(seed + i, size, kinds[(seed + i) % 4]) for i in range(count))
        self.both(number, "put_many", object_id, index, data)

    @rule(number=pools, object_id=objects, index=indices, count=counts)
    def get(self, number: int, object_id: int, index: int, count: int) -> None:
        if 0 <= index < INDEX_LIMIT:
            self.both(number, "get", object_id, index)
        self.both(number, "get_run", object_id, index, count)

    @rule(number=pools, object_id=objects, index=indices, count=st.sampled_from([1, 70, 1 << 40]))
    def flush(self, number: int, object_id: int, index: int, count: int) -> None:
        self.both(number, "flush_many", object_id, index, count)

    @rule(number=pools, object_id=objects)
    def flush_object(self, number: int, object_id: int) -> None:
        self.both(number, "flush_object", object_id)

    @rule(number=pools, object_id=objects, stamp=st.integers(0, (1 << 192) - 1))
    def stamp(self, number: int, object_id: int, stamp: int) -> None:
        self.both(number, "set_stamp", object_id, stamp)
        self.both(number, "stamp", object_id)

    @rule(budget=st.integers(MIN_BUDGET, 2 * MIN_BUDGET))
    def shrink(self, budget: int) -> None:
        if all(core._reclaim.must_keep() <= budget for core in self.cores):
            for core in self.cores:
                core.set_budget(budget)

    @rule()
    def overflow(self) -> None:
        batches = [core.writeback.begin(heads=True) for core in self.cores]
        python, native = (batch.pages() if batch else [] for batch in batches)
        assert python == native
        checksums = [index if index % 3 else None for index, _ in native]
        for core, batch in zip(self.cores, batches, strict=True):
            if batch is not None:
                core.writeback.finish(batch, checksums)

    @invariant()
    def the_figures_are_the_same(self) -> None:
        if hasattr(self, "cores"):
            python, native = (core.statistics() for core in self.cores)
            assert python == native
            check_account(self.cores[1])
            for of_python, of_native in zip(*self.pools, strict=True):
                assert nodes(of_python) == nodes(of_native)


def answer(pool: Pool, method: str, *args: Any) -> Any:
    """What it returns, or says of a page that is outside."""
    try:
        return getattr(pool, method)(*args)
    except CorruptPage as error:
        return str(error)


def nodes(pool: Pool) -> dict[int, dict[int, list[int]]]:
    """All slots of all nodes of all objects: marks, and how long the pages are that are there.

    In which segment they are depends on the order in which objects forget their nodes.
    """
    return {
        owner.id: {
            number: [*node[:MAPS], *(location & SIZE_MASK for location in node[MAPS:])]
            for number, node in owner.nodes.items()
        }
        for owner in pool.objects  # type: ignore[attr-defined]
    }


TestSideBySide = SideBySide.TestCase
TestSideBySide.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, derandomize=True
)


@pytest.fixture
def storage() -> Iterator[NativeStorage]:
    made = NativeStorage(256, SEGMENT)
    yield made
    made.close()


@pytest.fixture
def table(storage: NativeStorage) -> NativeTable:
    return storage.new_table()


def outside(*numbers: int) -> list[int]:
    """Different locations, in no segment."""
    return [overflowed(number) for number in numbers]


def resident(storage: NativeStorage) -> int:
    """Bytes of memory that the mapping has."""
    return os.fstat(storage._memory.fd).st_blocks * 512


def test_objects_are_found_among_very_many(table: NativeTable) -> None:
    """The hash tables grow and shrink by steps: no object is lost on the way."""
    choose = random.Random(3)
    ids = [choose.randrange(INVALID_OBJECT_ID) for _ in range(20_000)]
    for place, object_id in enumerate(ids, 1):
        table.store(table.obtain(object_id), place % 500, outside(place))
    assert len(table) == len(ids)
    for place, object_id in enumerate(ids, 1):
        found = table.find(object_id)
        assert found is not None
        assert found.location(place % 500) == outside(place)[0]
        assert table.owner(found.number) == found
    for place, object_id in enumerate(ids, 1):
        found = table.find(object_id)
        assert table.remove(found, place % 500, place % 500 + 1) == 1
        assert table.find(object_id) is None
    assert len(table) == table.pages == table.metadata_bytes == 0


def test_tables_take_no_more_than_they_are_charged_with(
    storage: NativeStorage, table: NativeTable
) -> None:
    before = resident(storage)
    for object_id in range(3000):
        table.store(table.obtain(object_id), 0, outside(object_id + 1))
    assert resident(storage) - before <= table.metadata_bytes
    for object_id in range(3000):
        owner = table.find(object_id)
        table.store(owner, 64, outside(*range(1, 65)))
    assert resident(storage) - before <= table.metadata_bytes


def test_memory_of_nodes_goes_with_them(storage: NativeStorage, table: NativeTable) -> None:
    owner = table.obtain(1)
    table.store(owner, 0, outside(1))
    before = resident(storage)
    for number in range(1, 2000):
        table.store(owner, number * NODE_PAGES, outside(*range(1, 65)))
    assert resident(storage) > before + 2000 * 64 * 8
    for number in range(1, 2000):
        assert table.remove(owner, number * NODE_PAGES, (number + 1) * NODE_PAGES) == 64
    # But for the buckets, of eight bytes each, and a slab that is not empty.
    assert resident(storage) <= before + (64 << 10)


def test_tables_that_are_kept_are_there_and_stay(
    storage: NativeStorage, table: NativeTable
) -> None:
    before = resident(storage)
    assert storage.keep_tables(1 << 20)
    kept = resident(storage)
    assert before + (1 << 20) <= kept <= before + (1 << 20) + (32 << 10)
    owner = table.obtain(1)
    for number in range(500):
        table.store(owner, number * NODE_PAGES, outside(*range(1, 65)))
    # Only what finds objects, and buckets.
    assert resident(storage) <= kept + (32 << 10)
    for number in range(500):
        table.remove(owner, number * NODE_PAGES, (number + 1) * NODE_PAGES)
    assert resident(storage) >= kept


def test_who_has_gone_leads_nowhere(table: NativeTable) -> None:
    """Not to the object that has its number now."""
    table.store(table.obtain(1), 0, outside(5))
    one = table.find(1)
    assert one is not None
    table.remove(one, 0, 1)
    table.store(table.obtain(2), 0, outside(6))
    two = table.find(2)
    assert two is not None
    assert two.number == one.number
    assert two != one
    one.stamp = 9
    assert (one.location(0), one.use(0), one.pages, one.stamp, one.id) == (0, 0, 0, 0, 0)
    assert (one.run(0, 3, mark=True), one.parts(0, 99)) == ([0, 0, 0], [])
    assert table.remove(one, 0, 1) == 0
    assert two.uses(0) == two.stamp == 0
    with pytest.raises(ValueError, match="the object has gone"):
        table.store(one, 0, outside(7))


def test_objects_of_two_pools_do_not_meet(storage: NativeStorage) -> None:
    one, other = storage.new_table(), storage.new_table()
    one.store(one.obtain(4), 0, outside(5))
    assert other.find(4) is None
    other.store(other.obtain(4), 0, outside(6))
    found, others = one.find(4), other.find(4)
    assert found is not None
    assert others is not None
    assert one.owner(others.number) is None
    assert found.location(0) != others.location(0)
    one.clear()
    assert (len(one), len(other)) == (0, 1)
    assert storage.store.charged == other.metadata_bytes > 0


def test_numbers_of_tables_are_used_again(storage: NativeStorage) -> None:
    for _ in range(3000):
        storage.new_table()
    kept = [storage.new_table() for _ in range(1023)]
    with pytest.raises(MemoryError, match="1023 pools"):
        storage.new_table()
    kept.pop()
    assert storage.new_table().pages == 0


@pytest.mark.parametrize(
    ("index", "locations"), [(63, [1, 2]), (0, []), (0, list(range(1, 66))), (1 << 32, [1])]
)
def test_a_run_of_more_than_a_node(table: NativeTable, index: int, locations: list[int]) -> None:
    native: Table = table.native
    with pytest.raises(ValueError, match="not a run of one node"):
        native.put(native.obtain(1), index, locations)
    assert len(table) == table.pages == 0


def test_nothing_is_asked_of_a_store_that_is_closed() -> None:
    storage = NativeStorage(4, SEGMENT)
    table = storage.new_table()
    table.store(table.obtain(1), 0, outside(1))
    owner = table.find(1)
    assert owner is not None
    storage.close()
    for ask in (
        lambda: table.find(1),
        lambda: table.obtain(1),
        lambda: list(table),
        lambda: owner.use(0),
        lambda: owner.run(0, 1, mark=False),
        lambda: owner.parts(0, 1),
        lambda: owner.nodes,
        lambda: owner.stamp,
        lambda: table.remove(owner, 0, 1),
    ):
        with pytest.raises(ValueError, match="the store is closed"):
            ask()
    table.clear()
    assert len(table) == table.pages == table.metadata_bytes == table.take_hits() == 0


def test_without_the_extension() -> None:
    """The core has Python's tables then, and a mount says so."""
    assert make_storage() is NativeStorage
    code = (
        "import sys; sys.modules['tmemfs.native._native'] = None\n"
        "from tmemfs.native.storage import make_storage; print(make_storage())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "None\n"


def test_a_segment_that_was_given_back_is_nobodys(storage: NativeStorage) -> None:
    """Its number is another's by then, and whoever still looks at it must not take that for it."""
    log = storage.new_log(PAGE)
    log.open_segment()
    old = log.head
    assert old is not None
    log.append([b"payload", b""], 7, 3)
    rows = old.appends()
    start = old.start
    log.release(old)
    log.open_segment()
    new = log.head
    assert new is not None
    assert new.number == old.number
    table = storage.new_table()
    owner = table.obtain(1)
    locations, lives = log.append([b"another"], owner.number, 0)
    table.store(owner, 0, locations, lives)
    assert (new.live_pages, new.row_count) == (1, 1)
    assert (old.live_pages, old.row_count, old.live) == (0, 0, (0, 0, 0, 0))
    assert list(rows) == [(7, 3, start), (7, 4, start)]
    assert list(old.appends()) == []
    with pytest.raises(ValueError, match="given back"):
        old.append([b"payload"], 7, 5)
    old.drop()
    assert list(new.appends()) == [(owner.number, 0, start)]
    assert new.live_pages == 1
    table.remove(owner, 0, 1)


def test_no_page_is_where_the_tables_are(storage: NativeStorage, table: NativeTable) -> None:
    behind = storage.arena.memory_size(storage.arena.view.nbytes // SEGMENT, SEGMENT)
    with pytest.raises(ValueError, match="no place"):
        table.store(table.obtain(1), 0, [behind << SIZE_BITS | 5])
    assert len(table) == 0


# --- what others may put --------------------------------------------------------------------------


@pytest.fixture
def swap() -> Iterator[tuple[Core, PersistentPool, Pool]]:
    """A core of the smallest budget, a pool that others may put in, and one that gives way."""
    core = Core(MIN_BUDGET, MIN_BUDGET, NativeStorage)
    new = core.new_client("client").new_pool
    pool = new("swap", kind="persistent", page_size=PAGE)
    pool.let_others_put()
    yield core, pool, new("cache", kind="ephemeral", page_size=PAGE)
    core.close()


def fill(pool: Pool, object_id: int, kind: str = "raw") -> int:
    """Put pages until one is refused, or as many as the budget could ever hold; how many are in."""
    most = 2 * MIN_BUDGET // PAGE
    return sum(pool.put(object_id, index, page(index, PAGE, kind)) for index in range(most))


def test_what_is_lent_is_charged_and_not_told_as_taken(
    swap: tuple[Core, PersistentPool, Pool],
) -> None:
    core, pool, _ = swap
    before, charged = core.statistics()["memory"], core.storage.arena.charged_bytes
    assert pool.lend()
    assert core.storage.arena.charged_bytes == charged + core.storage.arena.lent > charged
    assert core.statistics()["memory"] == before
    check_account(core)


def test_there_is_room_for_what_is_lent_or_nothing_is(
    swap: tuple[Core, PersistentPool, Pool],
) -> None:
    core, pool, cache = swap
    fill(cache, 1)
    assert pool.lend()  # the cache gives way
    assert core.storage.arena.charged_bytes <= core.budget
    fill(pool, 0)  # and so does the loan, when pages that are put here need its room
    assert core.storage.arena.lent == 0
    assert not pool.lend()
    assert core.storage.arena.lent == 0
    assert core.storage.arena.charged_bytes <= core.budget


@pytest.mark.parametrize("raw", [False, True])
def test_who_is_made_ready_has_a_head_with_room(
    swap: tuple[Core, PersistentPool, Pool], raw: bool
) -> None:
    """Also where memory is so short that to make room for the loan would take the head again."""
    core, pool, _ = swap
    stored = fill(pool, 0)
    assert not pool.make_ready(raw=raw)
    for index in range(0, stored, 2):
        pool.flush_page(0, index)
    assert pool.make_ready(raw=raw)
    assert pool.log.fits(PAGE)
    assert core.storage.arena.lent > 0
    assert core.storage.arena.charged_bytes <= core.budget


def test_a_smaller_budget_takes_back_what_was_lent() -> None:
    core = Core(2 * MIN_BUDGET, 2 * MIN_BUDGET, NativeStorage)
    pool = core.new_client("client").new_pool("swap", kind="persistent", page_size=PAGE)
    pool.let_others_put()
    for index in range(MIN_BUDGET // PAGE // 2):
        assert pool.put(0, index, page(index, PAGE))
    assert pool.lend()
    core.set_budget(MIN_BUDGET)
    assert core.storage.arena.charged_bytes <= MIN_BUDGET
    assert all(pool.get(0, index) == page(index, PAGE) for index in range(MIN_BUDGET // PAGE // 2))
    core.close()
