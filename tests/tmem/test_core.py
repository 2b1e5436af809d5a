"""The core: one budget, changed while pages are there, its figures, and memory that goes back."""

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from account import SIZES, check_account, resident
from page_data import KINDS, page, run, split

from tmemfs.errors import BudgetError, BudgetInUse
from tmemfs.tmem import MIN_BUDGET, Client, Core, Pool
from tmemfs.tmem.ephemeral import EphemeralPool
from tmemfs.tmem.stats import PoolCounters, ReclaimCounters, as_dict

MIB = 1 << 20


@pytest.fixture
def core() -> Core:
    return Core(8 * MIB, capacity=16 * MIB)


@pytest.fixture
def client(core: Core) -> Client:
    return core.new_client("client")


def fill(pool: Pool, object_id: int = 1) -> int:
    """Put pages that do not compress until one is refused; return how many there are."""
    count = 0
    while pool.put(object_id, count, page(count, pool.page_size)):
        count += 1
    return count


def intact(pool: Pool, count: int, object_id: int = 1) -> bool:
    return all(pool.get(object_id, index) == page(index, pool.page_size) for index in range(count))


# --- the budget ----------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [0, -1, 4096, MIN_BUDGET - 1])
def test_too_small_a_budget(core: Core, budget: int) -> None:
    with pytest.raises(BudgetError, match=f"budget of {budget} bytes is not between {MIN_BUDGET}"):
        Core(budget)
    with pytest.raises(BudgetError, match="is not between"):
        core.set_budget(budget)
    assert core.budget == 8 * MIB


def test_more_than_the_capacity(core: Core) -> None:
    with pytest.raises(BudgetError, match=f"and {16 * MIB} bytes"):
        core.set_budget(16 * MIB + 1)
    assert core.budget == 8 * MIB
    with pytest.raises(BudgetError):
        Core(1 << 60)
    core.set_budget(16 * MIB)
    assert core.budget == 16 * MIB


@pytest.mark.parametrize(
    ("budget", "segment"),
    [
        (MIN_BUDGET, 128 << 10),
        (16 * MIB, 128 << 10),
        (40 * MIB, 256 << 10),
        (64 * MIB, 512 << 10),
        (128 * MIB, MIB),
        (10_000 * MIB, MIB),
    ],
)
def test_segments_are_smaller_where_the_budget_is(budget: int, segment: int) -> None:
    core = Core(budget, capacity=budget)
    assert core.statistics()["memory"]["segment_size"] == segment
    assert core.smallest_budget == 16 * segment <= budget
    core.close()


def test_a_budget_that_grows_is_used(core: Core, client: Client) -> None:
    pool = client.new_pool("swap", kind="persistent")
    count = fill(pool)
    core.set_budget(16 * MIB)
    index = count
    while pool.put(1, index, page(index)):
        index += 1
    assert index - count > 0.9 * 8 * MIB / 4096
    assert intact(pool, index)
    check_account(core)


def test_a_budget_that_shrinks_takes_ephemeral_pages(core: Core, client: Client) -> None:
    cache = client.new_pool("cache", kind="ephemeral")
    swap = client.new_pool("swap", kind="persistent")
    for index in range(400):
        swap.put(1, index, page(index))
    cache.put_many(1, 0, run(0, 3000))
    core.set_budget(4 * MIB)
    check_account(core)
    assert core.statistics()["memory"]["mem_limit"] == 4 * MIB
    assert 0 < cache.statistics()["pages"] < 3 * MIB / 4096
    assert intact(swap, 400)
    core.set_budget(8 * MIB)
    cache.put_many(1, 0, run(0, 1500))
    assert cache.get_many(1, 1400, 100) == split(run(1400, 100))
    check_account(core)


def test_shrinking_cleans_persistent_pages_together(core: Core, client: Client) -> None:
    swap = client.new_pool("swap", kind="persistent")
    count = fill(swap)
    for index in range(count):
        if index % 3:
            swap.flush_page(1, index)
    core.set_budget(4 * MIB)
    check_account(core)
    assert core.statistics()["reclaim"]["cleaned_segments"] > 10
    assert all(swap.get(1, index) == page(index) for index in range(0, count, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_a_budget_that_does_not_hold_the_persistent_pages(kind: str) -> None:
    """Refused with nothing changed, not even an ephemeral page."""
    core = Core(4 * MIB, capacity=8 * MIB)
    client = core.new_client("client")
    swap = client.new_pool("swap", kind="persistent")
    cache = client.new_pool("cache", kind="ephemeral")
    cache.put_many(1, 0, run(0, 100))
    index = 0
    while core._arena.charged_bytes < 3 * MIB:
        assert swap.put_many(1, index, run(index, 8, kind=kind)) == 8
        index += 8
    cached = cache.get_many(1, 0, 100)
    assert None not in cached
    before = core.statistics()
    with pytest.raises(BudgetInUse, match="does not hold the persistent pages, which need"):
        core.set_budget(MIN_BUDGET)
    assert core.statistics() == before
    assert cache.get_many(1, 0, 100) == cached
    assert all(swap.get(1, i) == page(i, 4096, kind) for i in range(index))
    # What it says they need is enough, and is within reason.
    needed = core._reclaim.must_keep()
    assert needed < 4 * MIB
    core.set_budget(needed)
    assert all(swap.get(1, i) == page(i, 4096, kind) for i in range(index))
    check_account(core)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_there_fits_into_what_it_is_said_to_need(seed: int) -> None:
    """Random pools with random holes: shrunk to the very byte that is allowed, nothing is lost."""
    source = random.Random(seed)
    core = Core(4 * MIB, capacity=4 * MIB)
    client = core.new_client("client")
    pools = [
        client.new_pool(str(size), kind="persistent", page_size=size)
        for size in source.sample((4096, 16384, 65536), 2)
    ]
    model: dict[tuple[int, int], bytes] = {}
    for _ in range(1500):
        which = source.randrange(2)
        pool, index = pools[which], source.randrange(600)
        new = page(source.randrange(300), pool.page_size, source.choice(KINDS))
        model.pop((which, index), None)
        if pool.put(index % 3, index, new):
            model[which, index] = new
    for which, index in source.sample(sorted(model), len(model) * 2 // 3):
        pools[which].flush_page(index % 3, index)
        del model[which, index]
    needed = max(core._reclaim.must_keep(), core.smallest_budget)
    assert needed < 4 * MIB
    core.set_budget(needed)
    check_account(core)
    assert core._arena.charged_bytes < needed
    for (which, index), expected in model.items():
        assert pools[which].get(index % 3, index) == expected
    if needed > core.smallest_budget:
        with pytest.raises(BudgetInUse):
            core.begin_budget(core._reclaim.must_keep() - 1)


def test_memory_that_is_there_before_it_is_needed(core: Core, client: Client) -> None:
    """All of the budget, whatever it is and whatever takes it; never more."""
    before = resident()
    core.keep_warm(core.capacity)
    for budget in (8, 4, 12):
        core.set_budget(budget * MIB)
        while core.warm_up():
            pass
        check_account(core)
        assert core.warm_bytes == budget * MIB
        assert abs(resident() - before - budget * MIB) < 2 * MIB
    for _ in range(3):
        pool = client.new_pool("p", kind="persistent", page_size=4096)
        count = fill(pool)
        assert count > 10 * MIB // 4096
        assert core.warm_bytes < MIB
        assert intact(pool, count)
        check_account(core)
        client.destroy_pool(pool)
        while core.sweep(16):
            pass
        check_account(core)
        # It was only lent: tables that grew meanwhile have not pushed any of it out.
        assert core.warm_bytes == 12 * MIB
    core.close()


def test_memory_that_is_there_stays() -> None:
    """Tables that grow and go do not push out memory that is touched again later."""
    program = Path(__file__).with_name("fill_and_flush.py")
    environment = os.environ | {"PYTHONPATH": str(program.parent.parent)}
    done = subprocess.run(
        [sys.executable, program], env=environment, capture_output=True, text=True, check=True
    )
    _, *later = map(int, done.stdout.split())
    assert len(later) == 4
    # One segment that comes back would be 128 of them.
    assert max(later) < 16


def test_shrinking_in_slices(core: Core, client: Client) -> None:
    """Between two slices anything may be asked, and no slice takes more than it was told to."""
    cache = client.new_pool("cache", kind="ephemeral")
    cache.put_many(1, 0, run(0, 2000))
    core.begin_budget(3 * MIB)
    assert core.budget == 3 * MIB
    slices = 0
    more = True
    while more:
        before = core.statistics()["memory"]["mem_used_total"]
        more = core.shrink(2)
        after = core.statistics()["memory"]["mem_used_total"]
        assert before - after <= 2 * core.statistics()["memory"]["segment_size"]
        check_account(core, settled=not more)
        cache.get(1, 1999 - slices)
        slices += 1
    assert slices > 10
    assert not core.shrink()
    # A put in the middle of it settles what is left.
    core.set_budget(8 * MIB)
    cache.put_many(1, 0, run(0, 2000))
    core.begin_budget(3 * MIB)
    cache.put(1, 0, page(1))
    check_account(core)


# --- figures -------------------------------------------------------------------------------------


def test_statistics_have_the_names_that_operators_know(core: Core, client: Client) -> None:
    client.new_pool("cache", kind="ephemeral", page_size=16384)
    figures = core.statistics()
    assert set(figures) == {"memory", "pools", "reclaim"}
    assert figures["memory"] == {
        "mem_limit": 8 * MIB,
        "mem_used_total": 0,
        "mem_used_max": 0,
        "orig_data_size": 0,
        "compr_data_size": 0,
        "same_pages": 0,
        "huge_pages": 0,
        "metadata_bytes": 0,
        "segment_size": 128 << 10,
    }
    (pool,) = figures["pools"]
    assert (pool["name"], pool["kind"], pool["page_size"]) == ("cache", "ephemeral", 16384)
    assert set(as_dict(PoolCounters())) < set(pool)
    assert set(SIZES) < set(pool)
    assert figures["reclaim"] == dict.fromkeys(as_dict(ReclaimCounters()), 0)
    assert all(type(value) is int for value in figures["memory"].values())


def test_the_most_that_was_used_is_remembered(core: Core, client: Client) -> None:
    pool = client.new_pool("swap", kind="persistent")
    fill(pool)
    most = core.statistics()["memory"]["mem_used_total"]
    pool.flush_object(1)
    pool.put(1, 0, page(0))
    memory = core.statistics()["memory"]
    assert memory["mem_used_max"] == most > memory["mem_used_total"] > 0


# --- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_tables_take_at_most_32_bytes_a_page(kind: str) -> None:
    """Dense objects with 4 KiB pages, ghosts and all, in segments of a mebibyte."""
    core = Core(128 * MIB, capacity=128 * MIB)
    client = core.new_client("client")
    cache = client.new_pool("cache", kind="ephemeral")
    swap = client.new_pool("swap", kind="persistent")
    data = run(0, 1024, kind=kind)
    assert swap.put_many(1, 0, data * 4) == 4096
    while cache.segments < 4:
        cache.put_many(cache.counters.puts, 0, data)
    # One eviction, so that there are ghosts as well.
    assert isinstance(cache, EphemeralPool)
    assert core._reclaim._evict(cache) > 200
    assert cache.ghosts.metadata_bytes > 4 * cache.statistics()["pages"]
    memory, (cached, swapped) = core.statistics()["memory"], core.statistics()["pools"]
    assert memory["metadata_bytes"] <= 32 * (cached["pages"] + swapped["pages"])
    assert swapped["metadata_bytes"] <= 32 * swapped["pages"]
    check_account(core)
    core.close()


@pytest.fixture
def large() -> Core:
    return Core(64 * MIB, capacity=64 * MIB)


@pytest.mark.parametrize("how", ["flush_object", "flush_many", "destroy", "shrink", "close"])
def test_memory_goes_back_to_the_system(large: Core, how: str) -> None:
    client = large.new_client("client")
    kind: Any = "ephemeral" if how == "shrink" else "persistent"
    pool = client.new_pool("pool", kind=kind, page_size=65536)
    data = random.Random(1).randbytes(MIB)
    for index in range(60):
        assert pool.put_many(1, index * 16, data) == 16
    full = resident()
    left = 0
    if how == "flush_object":
        pool.flush_object(1)
    elif how == "flush_many":
        # A scattered half gives little back, and then the rest gives all.
        for index in range(0, 960, 2):
            pool.flush_page(1, index)
        pool.flush_many(1, 0, 960)
    elif how == "destroy":
        client.destroy_pool(pool)
        large.sweep(1000)
    elif how == "shrink":
        left = large.smallest_budget
        large.set_budget(left)
    else:
        large.close()
    # Segments that are kept warm, and what the interpreter did meanwhile.
    assert full - resident() > 60 * MIB - left - 4 * MIB
    if how != "close":
        assert large.statistics()["memory"]["mem_used_total"] <= left


def test_pages_that_were_read_outlive_the_core(core: Core, client: Client) -> None:
    pool = client.new_pool("pool", kind="persistent")
    pool.put_many(1, 0, run(1, 3))
    pages = pool.get_many(1, 0, 3)
    core.close()
    assert pages == split(run(1, 3))
