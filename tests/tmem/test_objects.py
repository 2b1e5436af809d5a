"""The index: pages of objects by number, marks, and tables that cost what they say."""

import gc
import random
import sys
import tracemalloc

import pytest
from account import places
from hypothesis import given
from hypothesis import strategies as st

from tmemfs.pages import Arena, Segment
from tmemfs.pages.locations import overflowed
from tmemfs.tmem.objects import (
    MAPS,
    NODE_OVERHEAD,
    NODE_PAGES,
    OBJECT_OVERHEAD,
    Object,
    ObjectTable,
)

# Around the edges of nodes, and far out.
INDICES = st.sampled_from([0, 1, 5, 62, 63, 64, 65, 127, 128, 4096, 2**32 - 65, 2**32 - 1])


def at(*numbers: int) -> list[int]:
    """Different locations, 0 for 0; outside, because there are no segments here."""
    return [overflowed(number) if number else 0 for number in numbers]


def store(table: ObjectTable, object_id: int, index: int, locations: list[int]) -> Object:
    """Store a run, node by node."""
    while locations:
        owner, count = table.obtain(object_id), NODE_PAGES - index % NODE_PAGES
        table.store(owner, index, locations[:count])
        index, locations = index + count, locations[count:]
    return owner


def remove(table: ObjectTable, object_id: int, index: int, count: int) -> int:
    """Remove a run; how many there were."""
    owner = table.find(object_id)
    parts = owner.parts(index, count) if owner else []
    return sum(table.remove(owner, first, last) for first, last in parts if owner)


@pytest.fixture(autouse=True)
def storage() -> str:
    """Of Python's tables alone: those in C are in tests/native."""
    return "python"


@pytest.fixture
def table() -> ObjectTable:
    return ObjectTable(Arena(1, 4096))


def test_objects_come_and_go(table: ObjectTable) -> None:
    assert table.find(9) is None
    nine = store(table, 9, 0, at(1))
    ten = store(table, 10, 0, at(2))
    assert table.obtain(9) is nine
    assert table.find(10) is ten
    assert list(table) == [nine, ten]
    assert (nine.number, ten.number) == (0, 1)
    assert remove(table, 9, 0, 1) == 1
    assert table.find(9) is None
    assert table.owner(0) is None
    assert len(table) == 1
    # The number is given out again: it is what rows of 32 bits have.
    again = store(table, 11, 0, at(3))
    assert again.number == 0
    assert table.owner(0) is again
    table.clear()
    assert (len(table), table.pages, table.metadata_bytes) == (0, 0, 0)
    assert table.obtain(9).number == 0


def test_one_without_a_page_is_not_there(table: ObjectTable) -> None:
    """Whoever obtains it may fail to get it one."""
    assert table.obtain(9).number == table.obtain(10).number == 0
    assert (len(table), table.metadata_bytes, table.owner(0)) == (0, 0, None)


def test_runs_across_nodes(table: ObjectTable) -> None:
    owner = store(table, 1, 60, at(*range(1000, 1200)))
    assert owner.pages == table.pages == table.overflowed == 200
    assert owner.run(58, 204, mark=False) == at(0, 0, *range(1000, 1200), 0, 0)
    assert owner.location(59) == 0
    assert owner.location(60) == overflowed(1000)
    assert owner.location(259) == overflowed(1199)
    assert owner.location(260) == owner.location(100_000) == 0
    assert remove(table, 1, 0, 130) == 70
    assert owner.run(58, 204, mark=False) == at(*[0] * 72, *range(1070, 1200), 0, 0)
    assert places(owner) == {130 + i: overflowed(1070 + i) for i in range(130)}
    assert table.overflowed == 130


def test_marks_are_a_pages_own(table: ObjectTable) -> None:
    owner = store(table, 1, 0, at(*[5] * 130))
    used = lambda: [index for index in range(130) if owner.used(index)]  # noqa: E731
    assert used() == []
    owner.run(62, 4, mark=False)
    assert used() == []
    owner.run(62, 4, mark=True)
    assert used() == [62, 63, 64, 65]
    store(table, 1, 63, at(6))
    assert used() == [62, 64, 65], "stored anew, it has not been used"
    owner.run(100, 300, mark=True)
    assert used() == [62, 64, 65, *range(100, 130)]
    store(table, 1, 130, at(*[7] * 5))
    assert not owner.used(132), "the mark was set when the page was absent"


def test_parts_cover_what_is_there_and_little_else(table: ObjectTable) -> None:
    for index in (3, 70, 1000, 2**32 - 1):
        owner = store(table, 1, index, at(1))
    assert owner.parts(3, 100) == [(3, 64), (64, 103)]
    assert sorted(owner.parts(5, 2**32)) == [
        (5, 64),
        (64, 128),
        (960, 1024),
        (2**32 - 64, 2**32),
    ]
    assert owner.parts(64, 64) == [(64, 128)]
    assert owner.parts(2000, 2**20) == owner.parts(128, 65) == []


@given(st.lists(st.tuples(st.booleans(), INDICES, st.integers(1, 150)), max_size=30))
def test_like_a_dict(steps: list[tuple[bool, int, int]]) -> None:
    """Stores and removals of runs against a dict, and the tables' account after each."""
    table = ObjectTable(Arena(1, 4096))
    model: dict[int, int] = {}
    for number, (is_store, index, count) in enumerate(steps):
        if is_store:
            locations = at(*(1000 * number + 1 + i for i in range(count)))
            store(table, 7, index, locations)
            model |= {index + i: location for i, location in enumerate(locations)}
        else:
            there = [model.pop(index + i, 0) for i in range(count)]
            assert remove(table, 7, index, count) == count - there.count(0)
        owner = table.find(7)
        assert (owner is not None) == bool(model)
        assert (places(owner) if owner else {}) == model
        assert table.pages == table.overflowed == len(model)
        assert table.metadata_bytes == (charge(owner) if owner else 0)
        assert table.metadata_bytes == table._arena.metadata_bytes


def charge(owner: Object) -> int:
    nodes = owner.nodes.values()
    assert all(any(node[MAPS:]) for node in nodes), "a node goes with its last page"
    return OBJECT_OVERHEAD + sum(NODE_OVERHEAD + 8 * len(node) for node in nodes)


@pytest.mark.parametrize(
    ("objects", "pages", "apart"),
    [
        (20_000, 1, 1),  # small files
        (12_000, 5, 1),
        (2_000, 64, 1),
        (20, 20_000, 1),  # large files
        (5, 6_000, 64),  # random access to huge ones
    ],
)
def test_the_charge_is_what_python_takes(objects: int, pages: int, apart: int) -> None:
    """`OBJECT_OVERHEAD` and `NODE_OVERHEAD` are within a sixth of the truth.

    A dict is between a third and two thirds full, which alone is worth as much.
    """
    arena: Arena[Segment] = Arena(1, 4096)
    source = random.Random(1)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        table = ObjectTable(arena)
        for _ in range(objects):
            object_id = source.getrandbits(191) | 1 << 190
            for first in range(0, pages, 250 if apart == 1 else 1):
                count = min(250, pages - first) if apart == 1 else 1
                owner = store(table, object_id, first * apart, at(1 << 40) * count)
            owner.stamp = source.getrandbits(191) | 1 << 190
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert table.pages == objects * pages
    assert 0.85 < (after - before) / arena.metadata_bytes < 1.15


def test_tables_go_with_their_objects() -> None:
    """A million small files that went must not leave their numbers behind."""
    table = ObjectTable(Arena(1, 4096))
    gc.collect()
    tracemalloc.start()
    try:
        for object_id in range(10_000):
            store(table, object_id << 100, 0, at(1))
        full, _ = tracemalloc.get_traced_memory()
        for object_id in range(10_000):
            remove(table, object_id << 100, 0, 1)
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A dict and a list have room for what there once was, until they are next written to.
    room = sys.getsizeof(table._by_id) + sys.getsizeof(table._by_number)
    assert left - room < full / 50
