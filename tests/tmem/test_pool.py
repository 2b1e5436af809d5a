"""A pool: runs, counters, what is refused, and stamps. The contract itself is in contract/."""

from typing import Any

import pytest
from account import check_account
from page_data import KINDS, page, run, split

from tmemfs.tmem import INDEX_LIMIT, INVALID_OBJECT_ID, MIN_BUDGET, Client, Core, Pool


@pytest.fixture
def core() -> Core:
    return Core(2 * MIN_BUDGET, capacity=4 * MIN_BUDGET)


@pytest.fixture
def client(core: Core) -> Client:
    return core.new_client("client")


@pytest.fixture(params=["ephemeral", "persistent"])
def pool(request: pytest.FixtureRequest, client: Client) -> Pool:
    return client.new_pool("pool", kind=request.param)


def counted(pool: Pool, *names: str) -> tuple[int, ...]:
    figures = pool.statistics()
    return tuple(figures[name] for name in names)


@pytest.mark.parametrize("page_size", [4096, 8192, 16384, 32768, 65536])
@pytest.mark.parametrize("kind", ["ephemeral", "persistent"])
def test_runs_in_any_cut(core: Core, client: Client, kind: Any, page_size: int) -> None:
    """What was put in one cut is read in any other."""
    pool = client.new_pool("pool", kind=kind, page_size=page_size)
    data = b"".join(page(i, page_size, KINDS[i % 4]) for i in range(20))
    pages = split(data, page_size)
    assert pool.put_many(5, 55, data) == 20
    assert pool.get_many(5, 55, 20) == pages
    assert pool.get_many(5, 50, 30) == [None] * 5 + pages + [None] * 5
    assert pool.get_many(5, 60, 8) == pages[5:13]
    assert [pool.get(5, 55 + i) for i in range(20)] == pages
    assert pool.put_many(5, 60, data[: 3 * page_size]) == 3
    pages[5:8] = pages[:3]
    assert pool.get_many(5, 55, 20) == pages
    assert pool.flush_many(5, 57, 4) == 4
    pages[2:6] = [None] * 4
    assert pool.get_many(5, 55, 20) == pages
    check_account(core)


def test_empty_runs(core: Core, pool: Pool) -> None:
    assert pool.put_many(1, 0, b"") == 0
    assert pool.get_many(1, 0, 0) == []
    pool.put(1, 0, page(1))
    assert pool.put_many(1, 0, b"") == 0
    assert pool.get_many(1, 0, 0) == []
    assert pool.flush_many(1, 0, 0) == 0
    assert pool.flush_many(1, 5, -5) == 0
    assert pool.get(1, 0) == page(1)
    check_account(core)


@pytest.mark.parametrize("length", [1, 4095, 4097, 8191])
def test_no_whole_number_of_pages(core: Core, pool: Pool, length: int) -> None:
    pool.put_many(1, 0, run(1, 3))
    with pytest.raises(ValueError, match=f"{length} bytes are no whole number of pages of 4096"):
        pool.put_many(1, 0, bytes(length))
    for wrong in (length, 0, 8192):
        with pytest.raises(ValueError, match=f"{wrong} bytes are not a page of 4096"):
            pool.put(1, 0, bytes(wrong))
    assert pool.get_many(1, 0, 3) == split(run(1, 3)), "nothing has changed"
    assert counted(pool, "puts", "good_puts") == (3, 3)


@pytest.mark.parametrize(
    ("object_id", "index"),
    [
        (INVALID_OBJECT_ID, 0),
        (1 << 192, 0),
        (-1, 0),
        (1, -1),
        (1, INDEX_LIMIT),
        (1, 1 << 64),
    ],
)
def test_out_of_range_is_a_counted_refusal(
    core: Core, pool: Pool, object_id: int, index: int
) -> None:
    assert not pool.put(object_id, index, page(1))
    assert pool.get(object_id, index) is None
    assert pool.get_and_flush(object_id, index) is None
    assert pool.flush_page(object_id, index) == 0
    assert counted(pool, "puts", "bad_puts", "gets", "found_gets") == (1, 1, 2, 0)
    assert counted(pool, "pages", "objects", "no_mem_puts") == (0, 0, 0)
    check_account(core)


def test_the_outermost_handle(pool: Pool) -> None:
    object_id, index = INVALID_OBJECT_ID - 1, INDEX_LIMIT - 1
    assert pool.put(object_id, index, page(1))
    assert pool.get(object_id, index) == page(1)
    assert pool.get(object_id, 0) is None
    # A run that reaches beyond the end finds what is before it.
    assert pool.get_many(object_id, index - 1, 4) == [None, page(1), None, None]
    assert pool.flush_many(object_id, index - 1, 4) == 1


def test_flush_far_beyond_the_end(core: Core, pool: Pool) -> None:
    """What a truncate asks for: from here on, however much there is."""
    pool.put_many(1, 0, run(1, 200))
    pool.put(1, INDEX_LIMIT - 1, page(7))
    assert pool.flush_many(1, 100, INDEX_LIMIT) == 101
    assert pool.get_many(1, 0, 201) == [*split(run(1, 100)), *[None] * 101]
    assert pool.flush_many(1, -5, 1 << 70) == 100
    assert counted(pool, "flushs", "flushs_found", "pages", "objects") == (2, 201, 0, 0)
    check_account(core)


def test_flush_of_an_object_takes_all_of_it_and_no_other(core: Core, pool: Pool) -> None:
    pool.put_many(1, 0, run(1, 70))
    pool.put(1, INDEX_LIMIT - 1, page(8))
    pool.put(2, 0, page(9))
    assert pool.flush_object(1) == 71
    assert pool.flush_object(1) == 0
    assert pool.get_many(1, 0, 70) == [None] * 70
    assert pool.get(2, 0) == page(9)
    assert counted(pool, "flush_objs", "flush_objs_found", "pages", "objects") == (2, 1, 1, 1)
    check_account(core)


def test_counters_of_a_life(core: Core, client: Client) -> None:
    pool = client.new_pool("swap", kind="persistent")
    pool.put_many(1, 0, run(1, 10))
    pool.put_many(1, 5, run(50, 10))
    pool.get_many(1, 0, 20)
    pool.get(2, 0)
    pool.get_and_flush(1, 0)
    pool.flush_many(1, 1, 3)
    pool.flush_page(1, 1)
    pool.put_many(1, INDEX_LIMIT - 1, run(1, 2))
    assert pool.statistics() == {
        "name": "swap",
        "kind": "persistent",
        "page_size": 4096,
        "objects": 1,
        "pages": 11,
        "orig_data_size": 11 * 4096,
        "compr_data_size": 11 * 4096,
        "same_pages": 0,
        "huge_pages": 11,
        "mem_used_total": core.statistics()["memory"]["mem_used_total"],
        "metadata_bytes": core.statistics()["memory"]["metadata_bytes"],
        "puts": 22,
        "good_puts": 20,
        "no_mem_puts": 0,
        "bad_puts": 2,
        "dup_puts_replaced": 5,
        "dup_puts_flushed": 0,
        "gets": 22,
        "found_gets": 16,
        "flushs": 3,
        "flushs_found": 4,
        "flush_objs": 0,
        "flush_objs_found": 0,
        "corrupt_pages": 0,
        "overflow_pages": 0,
    }
    assert pool.counters.missed_gets == 6
    check_account(core)


def test_kinds_of_pages_are_counted(core: Core, pool: Pool) -> None:
    pool.put_many(1, 0, run(1, 3, kind="zero") + run(1, 2, kind="word") + run(1, 4))
    text = page(5, kind="text")
    pool.put(1, 20, text)
    same, huge, pages, compressed = counted(
        pool, "same_pages", "huge_pages", "pages", "compr_data_size"
    )
    assert (same, huge, pages) == (5, 4, 10)
    assert 2 * 8 + 4 * 4096 < compressed < 2 * 8 + 5 * 4096
    pool.put_many(1, 0, run(1, 9, kind="zero"))
    assert counted(pool, "same_pages", "huge_pages", "pages") == (9, 0, 10)
    pool.flush_object(1)
    assert counted(pool, "same_pages", "compr_data_size", "mem_used_total") == (0, 0, 0)


def test_stamps_live_as_long_as_the_object_has_pages(pool: Pool) -> None:
    assert pool.stamp(1) == 0
    pool.set_stamp(1, 99)
    assert pool.stamp(1) == 0, "without pages there is nothing to note it with"
    pool.put_many(1, 0, run(1, 2))
    assert pool.stamp(1) == 0
    pool.set_stamp(1, (1 << 192) - 1)
    pool.put(1, 5, page(3))
    pool.flush_many(1, 0, 2)
    assert pool.stamp(1) == (1 << 192) - 1
    pool.flush_page(1, 5)
    pool.put(1, 0, page(1))
    assert pool.stamp(1) == 0, "these may be other pages altogether"


@pytest.mark.parametrize("page_size", [4096, 65536])
@pytest.mark.parametrize("count", [1, 7, 16])
def test_with_room_nothing_is_refused(
    core: Core, client: Client, page_size: int, count: int
) -> None:
    """Up to the brim, with pages that do not compress and whatever was there before."""
    pool = client.new_pool("pool", kind="persistent", page_size=page_size)
    index = stored = 0
    while pool.has_room(count):
        assert pool.put_many(index % 7, index * 3, run(index, count, page_size)) == count
        index += 1
        stored += count
        assert pool.put_many(index % 7, index * 3, run(index, 1, page_size, "zero")) == 1
    assert stored * page_size > core.budget / 2
    assert counted(pool, "no_mem_puts", "dup_puts_flushed") == (0, 0)
    check_account(core)


def test_room_is_for_the_tables_too(core: Core, client: Client) -> None:
    """The budget is filled up by a few hundred bytes at a time, until there is no room left."""
    pool = client.new_pool("pool", kind="persistent")
    index = 0
    while pool.has_room(3 * 32):
        pool.put(1, index, page(index))
        index += 1
    tried = 0
    while pool.has_room(32):
        assert pool.put_many(2, 0, run(0, 32)) == 32
        assert pool.flush_object(2) == 32
        # An object, a node and a row more.
        assert pool.put(100 + tried, 0, bytes(4096))
        tried += 1
    assert tried > 100
    check_account(core)


def test_there_is_never_room_in_a_destroyed_pool(core: Core, client: Client, pool: Pool) -> None:
    assert pool.has_room(1)
    client.destroy_pool(pool)
    assert not pool.has_room(1)


def test_no_room_for_more_than_the_budget(core: Core, pool: Pool) -> None:
    pool.put(1, 0, page(1))
    assert not pool.has_room(core.budget // 4096)
    assert (pool.get(1, 0) == page(1)) or pool.kind == "ephemeral"
    check_account(core)
