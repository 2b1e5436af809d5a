"""The tmem contract, rule by rule, for every kind of pool and the smallest and largest pages.

T1 to T13 are the names of the design; T11 (freeze) and T14 (weights) come with what they test.
"""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import random_work
from account import check_account
from overflow_files import OverflowFiles
from page_data import KINDS, page, run, split

import tmemfs
from tmemfs.errors import BadPool
from tmemfs.native.storage import NativeStorage
from tmemfs.pages import codec
from tmemfs.tmem import INDEX_LIMIT, INVALID_OBJECT_ID, Client, Core, Pool

BUDGET = 4 << 20

both_kinds = pytest.mark.parametrize("kind", ["ephemeral", "persistent"], indirect=True)
page_sizes = pytest.mark.parametrize("page_size", [4096, 65536], indirect=True)


@pytest.fixture
def core() -> Core:
    return Core(BUDGET, capacity=BUDGET)


@pytest.fixture
def client(core: Core) -> Client:
    return core.new_client("client")


@pytest.fixture(params=["ephemeral", "persistent", "overflowing"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[4096, 65536])
def page_size(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def pool(client: Client, kind: str, page_size: int) -> Pool:
    """A pool of each kind with pages of each size."""
    if kind == "overflowing":
        return client.new_pool("pool", kind="persistent", page_size=page_size, overflows=True)
    return client.new_pool("pool", kind=kind, page_size=page_size)  # type: ignore[arg-type]


def new_swap(client: Client, page_size: int = 4096) -> Pool:
    return client.new_pool("swap", kind="persistent", page_size=page_size)


def new_cache(client: Client, page_size: int = 4096) -> Pool:
    return client.new_pool("cache", kind="ephemeral", page_size=page_size)


def fill(pool: Pool, object_id: int = 99) -> int:
    """Put pages that do not compress until one is refused; return how many there are."""
    count = 0
    while pool.put(object_id, count, page(count, pool.page_size)):
        count += 1
    return count


# --- T1 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("first", KINDS)
def test_t1_put_put_get(core: Core, pool: Pool, first: str, second: str) -> None:
    """Put-put-get never returns the first put, whatever the two pages are stored as."""
    size = pool.page_size
    assert pool.put(1, 7, page(1, size, first))
    assert pool.put(1, 7, page(2, size, second))
    assert pool.get(1, 7) == page(2, size, second)
    # The same in a run, half of which was there.
    assert pool.put_many(1, 5, run(50, 3, size, first)) == 3
    assert pool.get_many(1, 5, 3) == split(run(50, 3, size, first), size)
    assert pool.statistics()["dup_puts_replaced"] == 2
    check_account(core)


# --- T2 ------------------------------------------------------------------------------------------


def refuse_for_memory(core: Core, pool: Pool, patch: pytest.MonkeyPatch) -> Callable[[], int]:
    patch.setattr(core._reclaim, "make_room", lambda segments, pool: False)
    return lambda: pool.put_many(1, 3, run(70, 3, pool.page_size))


def refuse_out_of_range(core: Core, pool: Pool, patch: pytest.MonkeyPatch) -> Callable[[], int]:
    return lambda: pool.put_many(1, INDEX_LIMIT - 2, run(70, 3, pool.page_size))


def refuse_below_zero(core: Core, pool: Pool, patch: pytest.MonkeyPatch) -> Callable[[], int]:
    return lambda: pool.put_many(1, -1, run(70, 3, pool.page_size))


def refuse_after_destroy(core: Core, pool: Pool, patch: pytest.MonkeyPatch) -> Callable[[], int]:
    core.clients[0].destroy_pool(pool)
    return lambda: pool.put_many(1, 3, run(70, 3, pool.page_size))


def refuse_in_the_codec(core: Core, pool: Pool, patch: pytest.MonkeyPatch) -> Callable[[], int]:
    calls = 0

    def encode(data: bytes) -> bytes:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise MemoryError("in the codec")
        return data

    def encode_all(*_: object) -> list[bytes]:
        raise MemoryError("in the codec")

    def put() -> int:
        with pytest.raises(MemoryError, match="in the codec"):
            pool.put_many(1, 3, run(70, 3, pool.page_size))
        return 0

    patch.setattr(codec, "encode", encode)
    patch.setattr(NativeStorage, "encode", encode_all)
    return put


@pytest.mark.parametrize(
    "refuse",
    [
        refuse_for_memory,
        refuse_out_of_range,
        refuse_below_zero,
        refuse_after_destroy,
        refuse_in_the_codec,
    ],
)
def test_t2_refused_put_leaves_a_miss(
    core: Core,
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
    refuse: Callable[[Core, Pool, pytest.MonkeyPatch], Callable[[], int]],
) -> None:
    """For every cause of refusal; the pages beside it stay as they are."""
    size = pool.page_size
    handles = [0, 1, 3, 4, 5, 6, INDEX_LIMIT - 2, INDEX_LIMIT - 1]
    for index in handles:
        assert pool.put(1, index, page(index % 1000, size))
    destroys = refuse is refuse_after_destroy
    with monkeypatch.context() as patch:
        before = {name: pool.statistics()[name] for name in ("puts", "dup_puts_flushed")}
        assert refuse(core, pool, patch)() == 0
        after = pool.statistics()
    expected = {
        refuse_out_of_range: {INDEX_LIMIT - 2, INDEX_LIMIT - 1},
        refuse_below_zero: {0, 1},
        refuse_after_destroy: set(handles),
    }.get(refuse, {3, 4, 5})
    for index in handles:
        found = pool.get(1, index)
        assert found == (None if index in expected else page(index % 1000, size)), index
    cause = "no_mem_puts" if refuse is refuse_for_memory else "bad_puts"
    assert after["puts"] - before["puts"] == after[cause] == 3
    flushed = 0 if destroys else len(expected)
    assert after["dup_puts_flushed"] == flushed
    assert core.statistics()["reclaim"]["put_to_flush"] == flushed
    assert after["puts"] == after["good_puts"] + after["no_mem_puts"] + after["bad_puts"]
    if not destroys:
        check_account(core)
        # And a miss it stays until a put succeeds.
        assert pool.put(1, 4, page(44, size))
        assert pool.get(1, 4) == page(44, size)


@page_sizes
def test_t2_refused_for_want_of_memory(core: Core, client: Client, page_size: int) -> None:
    """The real thing: persistent pages fill the budget, and one that hardly compresses comes."""
    swap = new_swap(client, page_size)
    assert swap.put_many(1, 0, run(0, 100, page_size, "zero")) == 100
    fill(swap)
    refused = [index for index in range(100) if not swap.put(1, index, page(index, page_size))]
    assert len(refused) > 50
    for index in range(100):
        expected = None if index in refused else page(index, page_size)
        assert swap.get(1, index) == expected
    assert swap.statistics()["dup_puts_flushed"] == len(refused)
    check_account(core)


def test_t2_a_run_of_which_a_part_is_refused(core: Core, client: Client) -> None:
    swap = new_swap(client)
    assert swap.put_many(1, 0, run(0, 500, kind="zero")) == 500
    count = fill(swap)
    swap.flush_many(99, 0, 64)
    assert count > 800
    stored = swap.put_many(1, 100, run(100, 300))
    assert 0 < stored < 300
    found = swap.get_many(1, 0, 500)
    new = split(run(100, 300))
    assert found[:100] == found[400:] == [bytes(4096)] * 100
    assert all(told in (None, put) for told, put in zip(found[100:400], new, strict=True))
    assert 300 - found.count(None) == stored
    check_account(core)


# --- T3, T4 --------------------------------------------------------------------------------------


def test_t3_miss_stays_a_miss(core: Core, pool: Pool) -> None:
    size = pool.page_size
    for _ in range(3):
        assert pool.get(1, 0) is None
    pool.put(1, 1, page(1, size))
    pool.put(2, 0, page(2, size))
    assert pool.get(1, 0) is None
    pool.flush_page(1, 1)
    fill(new_swap(core.clients[0], size))
    for _ in range(3):
        assert pool.get(1, 1) is None
        assert pool.get_many(1, 0, 3) == [None] * 3
    assert pool.statistics()["found_gets"] == 0
    core.clients[0].destroy_pool(core.pools[1])
    assert pool.put(1, 1, page(3, size))
    assert pool.get_many(1, 0, 3) == [None, page(3, size), None]


@pytest.mark.parametrize("kind", ["ephemeral"], indirect=True)
def test_t3_what_was_evicted_does_not_come_back(core: Core, pool: Pool) -> None:
    size = pool.page_size
    pages = BUDGET // size
    for index in range(2 * pages):
        pool.put(1, index, page(index, size))
    missing = {index for index in range(2 * pages) if pool.get(1, index) is None}
    assert len(missing) > pages
    pool.flush_object(1)
    for index in range(pages):
        pool.put(2, index, page(index, size))
    assert all(pool.get(1, index) is None for index in range(2 * pages))


def test_t4_get_and_flush_empties(core: Core, pool: Pool) -> None:
    size = pool.page_size
    for index, kind in enumerate(KINDS):
        pool.put(1, index, page(index, size, kind))
    for index, kind in enumerate(KINDS):
        assert pool.get_and_flush(1, index) == page(index, size, kind)
        assert pool.get_and_flush(1, index) is None
        assert pool.get(1, index) is None
    figures = pool.statistics()
    assert (figures["flushs"], figures["flushs_found"], figures["pages"]) == (4, 4, 0)
    assert core._arena.charged_bytes == 0
    check_account(core)


@pytest.mark.parametrize("kind", ["persistent"], indirect=True)
def test_t4_copies_first_and_removes_then(
    core: Core, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A get that fails half way must not have lost the page."""
    original = page(1, pool.page_size, "text")
    pool.put(1, 0, original)
    with monkeypatch.context() as patch:
        patch.setattr(codec, "decode", lambda *_: (_ for _ in ()).throw(MemoryError("no copy")))
        with pytest.raises(MemoryError, match="no copy"):
            pool.get_and_flush(1, 0)
    assert pool.get_and_flush(1, 0) == original
    assert pool.get(1, 0) is None


def test_gets_are_not_exclusive(pool: Pool) -> None:
    pool.put(1, 0, page(1, pool.page_size))
    assert [pool.get(1, 0) for _ in range(5)] == [page(1, pool.page_size)] * 5


# --- T5 ------------------------------------------------------------------------------------------


@both_kinds
def test_t5_shared_pool_two_clients(core: Core, kind: str, page_size: int) -> None:
    one, two = core.new_client("one"), core.new_client("two")
    theirs = [
        client.new_pool("pool", kind=kind, page_size=page_size, uuid=77)  # type: ignore[arg-type]
        for client in (one, two)
    ]
    private = two.new_pool("pool", kind=kind, page_size=page_size)  # type: ignore[arg-type]
    assert theirs[0].put(1, 0, page(1, page_size))
    assert theirs[1].get(1, 0) == page(1, page_size)
    assert private.get(1, 0) is None
    assert theirs[1].put(1, 0, page(2, page_size))
    assert theirs[0].get(1, 0) == page(2, page_size)
    one.destroy_pool(theirs[0])
    assert theirs[1].get(1, 0) == page(2, page_size), "two has it still"
    assert theirs[1].flush_page(1, 0) == 1
    assert theirs[1].put(1, 1, page(3, page_size))
    two.destroy_pool(theirs[1])
    assert theirs[1].get(1, 1) is None
    again = one.new_pool("pool", kind=kind, page_size=page_size, uuid=77)  # type: ignore[arg-type]
    assert again.get(1, 1) is None
    check_account(core)


# --- T6, T7 --------------------------------------------------------------------------------------


@page_sizes
def test_t6_persistent_survives_any_pressure(core: Core, client: Client, page_size: int) -> None:
    """From its own kind, from ephemeral pages, from cleaning, and from a budget that shrinks."""
    source = random.Random(6)
    swap, cache = new_swap(client, page_size), new_cache(client)
    model: dict[int, bytes] = {}
    for step in range(8 * BUDGET // page_size):
        index = source.randrange(2 * BUDGET // page_size)
        new = page(step, page_size, source.choice(("zero", "text", "raw", "raw")))
        model.pop(index, None)
        if swap.put(1, index, new):
            model[index] = new
        elif step % 3:
            other = source.choice(sorted(model))
            assert swap.flush_page(1, other) == 1
            del model[other]
        cache.put_many(step % 5, step, run(step % 100, 8))
        cache.get_many(step % 5, step - 20, 16)
    figures = core.statistics()["reclaim"]
    assert min(figures["evicted_pgs"], figures["cleaned_segments"]) > 10
    assert swap.statistics()["no_mem_puts"] > 10
    swap.flush_many(1, 0, BUDGET // page_size)
    model = {index: new for index, new in model.items() if index >= BUDGET // page_size}
    core.set_budget(max(core._reclaim.must_keep(), core.smallest_budget))
    for index in range(2 * BUDGET // page_size):
        assert swap.get(1, index) == model.get(index)
    check_account(core)


@page_sizes
@pytest.mark.parametrize("heads", [False, True])
def test_t6_persistent_survives_or_leaves(
    core: Core, client: Client, page_size: int, heads: bool
) -> None:
    """Many times the budget: each page is in memory or in the file, and it is the newest."""
    source = random.Random(7)
    swap = client.new_pool("swap", kind="persistent", page_size=page_size, overflows=True)
    other, cache = new_swap(client), new_cache(client)
    files = OverflowFiles(core)
    model: dict[int, bytes] = {}
    assert other.put_many(1, 0, run(0, 100)) == 100
    for step in range(8 * BUDGET // page_size):
        index = source.randrange(4 * BUDGET // page_size)
        new = page(step, page_size, source.choice(("zero", "text", "raw", "raw")))
        while not swap.has_room(1):
            assert files.batch or files.begin(heads=True)
            files.finish()
        assert swap.put(1, index, new)
        model[index] = new
        if step % 5 == 0 and model:
            victim = source.choice(sorted(model))
            assert swap.flush_page(1, victim) == 1
            del model[victim]
        cache.put_many(step % 5, step, run(step % 100, 8))
        # Batches begin and end at any time; now and then a page cannot be written.
        if files.batch is None and (core.writeback.needed or step % 50 == 0):
            files.begin(heads=heads)
        elif files.batch is not None and source.random() < 0.3:
            files.finish(lambda _: source.random() < 0.9)
        if step % 100 == 0:
            check_account(core, pinned=files.batch is not None)
    if files.batch is not None:
        files.finish()
    check_account(core)
    figures = swap.statistics()
    assert figures["overflow_pages"] * page_size > BUDGET
    assert figures["no_mem_puts"] == 0
    gone = figures["dup_puts_replaced"] + figures["flushs_found"]
    assert figures["good_puts"] - gone == figures["pages"] == len(model)
    for index in range(4 * BUDGET // page_size):
        overflowed = files.overflowed(swap, 1, index, 1)
        assert (overflowed.get(index) or swap.get(1, index)) == model.get(index)
    assert other.get_many(1, 0, 100) == split(run(0, 100))
    written = core.statistics()["reclaim"]["written_back_pages"]
    assert written >= figures["overflow_pages"]
    client.destroy_pool(swap)
    client.destroy_pool(other)
    client.destroy_pool(cache)
    while core.sweep(1):
        check_account(core)
    assert core._arena.charged_bytes == 0


@page_sizes
def test_t7_persistent_put_takes_ephemeral_memory(
    core: Core, client: Client, page_size: int
) -> None:
    """And never the other way round."""
    cache, swap = new_cache(client, page_size), new_swap(client, page_size)
    most = BUDGET // page_size
    for index in range(2 * most):
        assert cache.put(1, index, page(index, page_size))
        cache.get(1, index)
    evicted = core.statistics()["reclaim"]["evicted_pgs"]
    there = cache.statistics()["pages"]
    assert there > most * 0.7
    count = fill(swap)
    assert count > most * 0.7
    figures = core.statistics()["reclaim"]
    assert cache.statistics()["pages"] == 0
    assert figures["pers_ate_eph"] == figures["evicted_pgs"] - evicted == there
    refused = cache.statistics()["no_mem_puts"]
    assert not any(cache.put(1, index, page(index, page_size)) for index in range(most))
    assert cache.statistics()["no_mem_puts"] - refused == most
    assert all(swap.get(99, index) == page(index, page_size) for index in range(count))
    check_account(core)


# --- T8, T9 --------------------------------------------------------------------------------------


def test_t8_flush_of_the_absent(core: Core, client: Client, pool: Pool) -> None:
    """Not an error, in an empty pool, beside pages that are there, out of range, after the end."""
    page_there = page(1, pool.page_size)
    for there in (False, True):
        if there:
            pool.put(1, 5, page_there)
        assert pool.flush_page(1, 4) == 0
        assert pool.flush_page(2, 5) == 0
        assert pool.flush_many(1, 6, INDEX_LIMIT) == 0
        assert pool.flush_many(1, 0, 5) == 0
        assert pool.flush_object(2) == 0
        assert pool.flush_object(INVALID_OBJECT_ID) == 0
        assert pool.flush_page(-1, -1) == 0
        assert pool.flush_page(1, INDEX_LIMIT) == 0
    assert pool.get(1, 5) == page_there
    figures = pool.statistics()
    assert (figures["flushs"], figures["flushs_found"]) == (12, 0)
    assert (figures["flush_objs"], figures["flush_objs_found"]) == (4, 0)
    check_account(core)
    client.destroy_pool(pool)
    assert pool.flush_page(1, 5) == pool.flush_many(1, 0, 9) == pool.flush_object(1) == 0


def test_t9_pool_ids_are_not_reused_early(core: Core, client: Client, pool: Pool) -> None:
    """Not while a page of the pool takes memory (and here, not ever)."""
    size = pool.page_size
    numbers = {pool.number}
    for _ in range(50):
        pool.put(1, 0, page(1, size))
        client.destroy_pool(pool)
        pool = client.new_pool("pool", kind=pool.kind, page_size=size)
        assert pool.number not in numbers
        numbers.add(pool.number)
    check_account(core)


def test_t9_old_handles_never_reach_a_new_pool(core: Core, client: Client, pool: Pool) -> None:
    size = pool.page_size
    pool.put(1, 0, page(1, size))
    uuid_pool = client.new_pool("shared", kind=pool.kind, page_size=size, uuid=9)
    uuid_pool.put(1, 0, page(2, size))
    for old in (pool, uuid_pool):
        client.destroy_pool(old)
        new = client.new_pool(old.name, kind=old.kind, page_size=size, uuid=old.uuid)
        assert new.get(1, 0) is None
        assert new.put(1, 0, page(3, size))
        # Whoever kept the old pool gets and changes nothing.
        assert old.get(1, 0) is None
        assert not old.put(1, 0, page(4, size))
        assert old.get_and_flush(1, 0) is None
        assert old.flush_page(1, 0) == old.flush_object(1) == 0
        assert not old.has_room(1)
        assert new.get(1, 0) == page(3, size)
        assert old.statistics()["bad_puts"] == 1
        with pytest.raises(BadPool):
            client.destroy_pool(old)
    check_account(core)


# --- T10 -----------------------------------------------------------------------------------------


@both_kinds
def test_t10_destroying_a_million_pages_in_slices(kind: str) -> None:
    """Unreachable at once, freed in slices, and others are served between any two."""
    core = Core(63 << 20, capacity=63 << 20)
    client = core.new_client("client")
    doomed = client.new_pool("doomed", kind=kind)  # type: ignore[arg-type]
    other = client.new_pool("other", kind="persistent")
    assert doomed.put_many(1, 0, bytes(4096 << 10)) == 1 << 10
    for index in range(1, 1000):
        assert doomed.put_many(index % 5, index << 10, bytes(4096 << 10)) == 1 << 10
    assert doomed.statistics()["pages"] >= 10**6
    segments = doomed.segments
    other.put(1, 0, page(1))

    client.destroy_pool(doomed)
    assert core.pools == (other,)
    assert doomed.get_many(1, 0, 100) == [None] * 100
    slices = 0
    while core.sweep(1):
        before = core._arena.used_segments
        assert other.get(1, slices) == page(1 + slices)
        slices += 1
        assert other.put(1, slices, page(1 + slices))
        assert core._arena.used_segments >= before
        check_account(core)
    assert slices >= segments - 64 - 1 > 0, "a small part of it went at once"
    assert not core.sweep(100)
    other.flush_object(1)
    assert core._arena.charged_bytes == 0


def test_t10_a_put_that_needs_memory_goes_on_with_it(core: Core, client: Client) -> None:
    """Nobody has to call sweep."""
    swap = new_swap(client)
    count = fill(swap)
    core.detach_pool = lambda pool, _: pool.close()  # type: ignore[method-assign]  # no sweep
    client.destroy_pool(swap)
    other = new_swap(client)
    assert not core._arena.charged_bytes < BUDGET // 2
    assert core.sweep(0), "none was asked for, so all of it is still there"
    assert fill(other) == count
    assert not core.sweep(0)
    check_account(core)


# --- T12 -----------------------------------------------------------------------------------------


def test_t12_every_counter_identity(core: Core, client: Client) -> None:
    """What is told of each pool against what was asked and answered; sums; zero in the end."""
    source = random.Random(12)
    pools = [
        new_cache(client),
        new_swap(client),
        new_cache(client, 65536),
        new_swap(client, 16384),
    ]
    names = ("puts", "good_puts", "gets", "found_gets")
    names += ("flushs", "flushs_found", "flush_objs", "flush_objs_found")
    asked = {pool: dict.fromkeys(names, 0) for pool in pools}
    for step in range(3000):
        pool = source.choice(pools)
        mine = asked[pool]
        object_id, index = source.randrange(3), source.choice((0, 40, 3000)) + source.randrange(99)
        count = source.choice((1, 2, 20))
        match source.randrange(9):
            case 0 | 1 | 2 | 3:
                kind = source.choice(KINDS)
                data = run(source.randrange(300), count, pool.page_size, kind)
                mine["puts"] += count
                mine["good_puts"] += pool.put_many(object_id, index, data)
            case 4:
                mine["puts"] += 1
                assert not pool.put(INVALID_OBJECT_ID, 0, page(1, pool.page_size))
            case 5 | 6:
                mine["gets"] += count
                found = pool.get_many(object_id, index, count)
                mine["found_gets"] += count - found.count(None)
            case 7:
                mine["flushs"] += 1
                mine["flushs_found"] += pool.flush_many(object_id, index, count)
            case 8 if step % 10 == 0:
                mine["flush_objs"] += 1
                mine["flush_objs_found"] += pool.flush_object(object_id) > 0
        if step % 50 == 0:
            check_account(core)
    for pool in pools:
        told = pool.statistics()
        assert {name: told[name] for name in names} == asked[pool]
        assert min(asked[pool].values()) > 0
        assert told["gets"] == told["found_gets"] + pool.counters.missed_gets
        assert told["puts"] == told["good_puts"] + told["no_mem_puts"] + told["bad_puts"]
    figures = core.statistics()
    assert figures["reclaim"]["put_to_flush"] == sum(
        pool["dup_puts_flushed"] for pool in figures["pools"]
    )
    assert figures["reclaim"]["pers_ate_eph"] <= figures["reclaim"]["evicted_pgs"]
    for pool in pools:
        client.destroy_pool(pool)
    while core.sweep(1):
        check_account(core)
    memory = core.statistics()["memory"]
    for name in ("mem_limit", "mem_used_max", "segment_size"):
        del memory[name]
    assert set(memory.values()) == {0}


def test_t12_pages_that_were_put_are_somewhere(core: Core, client: Client) -> None:
    """A persistent page that was stored is there, was replaced, or was flushed."""
    source = random.Random(13)
    swap = new_swap(client)
    for _ in range(4000):
        index = source.randrange(3000)
        swap.put_many(1, index, run(source.randrange(300), 2, kind=source.choice(KINDS[1:])))
        if source.random() < 0.1:
            swap.flush_many(1, source.randrange(3000), 5)
    told = swap.statistics()
    assert told["dup_puts_flushed"] > 100
    gone = told["dup_puts_replaced"] + told["dup_puts_flushed"] + told["flushs_found"]
    assert told["good_puts"] - gone == told["pages"] > 100


# --- T13 -----------------------------------------------------------------------------------------


def test_t13_resident_memory() -> None:
    """A million random puts and flushes of random sizes, in a process of their own.

    Its resident memory stays within the budget and 80 MiB for everything else; what the core
    charges itself with never exceeds the budget by more than a segment, and hardly ever at all.
    """
    package = Path(tmemfs.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, random_work.__file__],
        env=os.environ | {"PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = {name: int(value) for name, value in (line.split() for line in done.stdout.splitlines())}
    assert told["puts"] >= 10**6
    assert told["flushed"] > 10**5
    assert told["evicted"] > 10**5
    assert told["cleaned"] > 100
    assert told["used_most"] > 0.9 * random_work.BUDGET, "there was no pressure"
    assert told["charged_most"] <= random_work.BUDGET + told["segment_size"]
    assert told["resident_most"] <= random_work.BUDGET + (80 << 20)
    # And in the end, when all is flushed, the memory is the system's again.
    assert told["resident_last"] <= told["resident_first"] + (24 << 20)
