"""The index: pages of objects by number, marks, and tables that cost what they say."""

import gc
import random
import sys
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmemfs.pages import Arena, Segment
from tmemfs.tmem.objects import MAPS, NODE_OVERHEAD, OBJECT_OVERHEAD, Object, ObjectTable

# Around the edges of nodes, and far out.
INDICES = st.sampled_from([0, 1, 5, 62, 63, 64, 65, 127, 128, 4096, 2**32 - 65, 2**32 - 1])


@pytest.fixture
def table() -> ObjectTable:
    return ObjectTable(Arena(1, 4096))


def test_objects_come_and_go(table: ObjectTable) -> None:
    assert table.find(9) is None
    nine, ten = table.obtain(9), table.obtain(10)
    table.store(nine, 0, [1])
    table.store(ten, 0, [2])
    assert table.obtain(9) is nine
    assert table.find(10) is ten
    assert list(table) == [nine, ten]
    assert (nine.number, ten.number) == (0, 1)
    assert table.take(nine, 0, 1) == [1]
    assert table.find(9) is None
    assert table.owner(0) is None
    assert len(table) == 1
    # The number is given out again: it is what rows of 32 bits have.
    again = table.obtain(11)
    assert again.number == 0
    assert table.owner(0) is again
    table.clear()
    assert (len(table), table.pages, table.metadata_bytes) == (0, 0, 0)
    assert table.obtain(9).number == 0


def test_runs_across_nodes(table: ObjectTable) -> None:
    owner = table.obtain(1)
    table.store(owner, 60, list(range(1000, 1200)))
    assert owner.pages == table.pages == 200
    assert owner.run(58, 204, mark=False) == [0, 0, *range(1000, 1200), 0, 0]
    assert owner.location(59) == 0
    assert owner.location(60) == 1000
    assert owner.location(259) == 1199
    assert owner.location(260) == owner.location(100_000) == 0
    assert table.take(owner, 0, 130) == [0] * 60 + list(range(1000, 1070))
    assert owner.run(58, 204, mark=False) == [0] * 72 + list(range(1070, 1200)) + [0, 0]
    assert sorted(owner.items()) == [(130 + i, 1070 + i) for i in range(130)]


def test_marks_are_a_pages_own(table: ObjectTable) -> None:
    owner = table.obtain(1)
    table.store(owner, 0, [5] * 130)
    used = lambda: [index for index in range(130) if owner.used(index)]  # noqa: E731
    assert used() == []
    owner.run(62, 4, mark=False)
    assert used() == []
    owner.run(62, 4, mark=True)
    assert used() == [62, 63, 64, 65]
    table.store(owner, 63, [6])
    assert used() == [62, 64, 65], "stored anew, it has not been used"
    owner.run(100, 300, mark=True)
    assert used() == [62, 64, 65, *range(100, 130)]
    table.store(owner, 130, [7] * 5)
    assert not owner.used(132), "the mark was set when the page was absent"


def test_spans_cover_what_is_there_and_little_else(table: ObjectTable) -> None:
    owner = table.obtain(1)
    for index in (3, 70, 1000, 2**32 - 1):
        table.store(owner, index, [1])
    assert owner.spans(3, 200) == [(3, 203)]
    assert sorted(owner.spans(5, 2**32)) == [
        (5, 64),
        (64, 128),
        (960, 1024),
        (2**32 - 64, 2**32),
    ]
    assert owner.spans(2000, 2**20) == []


@given(st.lists(st.tuples(st.booleans(), INDICES, st.integers(1, 150)), max_size=30))
def test_like_a_dict(steps: list[tuple[bool, int, int]]) -> None:
    """Stores and takes of runs against a dict, and the tables' account after each."""
    table = ObjectTable(Arena(1, 4096))
    model: dict[int, int] = {}
    for number, (store, index, count) in enumerate(steps):
        if store:
            locations = [1000 * number + 1 + i for i in range(count)]
            table.store(table.obtain(7), index, locations)
            model |= {index + i: location for i, location in enumerate(locations)}
        else:
            owner = table.find(7)
            expected = [model.pop(index + i, 0) for i in range(count)]
            assert (table.take(owner, index, count) if owner else [0] * count) == expected
        owner = table.find(7)
        assert (owner is not None) == bool(model)
        assert dict(owner.items() if owner else ()) == model
        assert table.pages == len(model)
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
            owner = table.obtain(source.getrandbits(191) | 1 << 190)
            owner.stamp = source.getrandbits(191) | 1 << 190
            for first in range(0, pages, 250 if apart == 1 else 1):
                count = min(250, pages - first) if apart == 1 else 1
                table.store(owner, first * apart, [1 << 60] * count)
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
            table.store(table.obtain(object_id << 100), 0, [1])
        full, _ = tracemalloc.get_traced_memory()
        for object_id in range(10_000):
            table.take(table.obtain(object_id << 100), 0, 1)
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A dict and a list have room for what there once was, until they are next written to.
    room = sys.getsizeof(table._by_id) + sys.getsizeof(table._by_number)
    assert left - room < full / 50
