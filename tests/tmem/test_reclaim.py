"""Reclaim: the order in which memory is taken back, S3-FIFO within a pool, and cleaning."""

import random
from typing import Any

import pytest
from account import check_account
from page_data import KINDS, page, run, split

from tmemfs.pages import Segment
from tmemfs.tmem import MIN_BUDGET, Client, Core
from tmemfs.tmem.ephemeral import EphemeralPool
from tmemfs.tmem.persistent import PersistentPool
from tmemfs.tmem.pool import Pool
from tmemfs.tmem.reclaim import RESERVE_SEGMENTS, TRIES_LIMIT, live_pages

# Pages that do not compress: so many go into a segment, and so many segments are for pages (one
# goes for tables).
PER_SEGMENT = 32
SEGMENTS = 16 - RESERVE_SEGMENTS - 1
CAPACITY = SEGMENTS * PER_SEGMENT


@pytest.fixture
def core() -> Core:
    return Core(MIN_BUDGET, capacity=4 * MIN_BUDGET)


@pytest.fixture
def client(core: Core) -> Client:
    return core.new_client("client")


@pytest.fixture
def cache(client: Client) -> EphemeralPool:
    pool = client.new_pool("cache", kind="ephemeral")
    assert isinstance(pool, EphemeralPool)
    return pool


@pytest.fixture
def swap(client: Client) -> PersistentPool:
    pool = client.new_pool("swap", kind="persistent")
    assert isinstance(pool, PersistentPool)
    return pool


def present(pool: Pool, indices: range, object_id: int = 1) -> list[int]:
    """Which pages are there, without using them."""
    owner = pool.objects.find(object_id)
    return [index for index in indices if owner is not None and owner.location(index)]


def put(pool: Pool, indices: range, object_id: int = 1) -> None:
    for index in indices:
        assert pool.put(object_id, index, page(index))


def use(pool: Pool, indices: range, object_id: int = 1) -> None:
    for index in indices:
        assert pool.get(object_id, index) == page(index)


def in_main(pool: EphemeralPool, object_id: int = 1) -> set[int]:
    return {
        index
        for segment in pool.main.segments.values()
        for owner, index, _ in live_pages(pool, segment)
        if owner.id == object_id
    }


def put_and_use_again(pool: EphemeralPool, indices: range) -> None:
    for index in indices:
        put(pool, range(index, index + 1))
        use(pool, range(index, index + 1))
        use(pool, range(index, index + 1))


def fill_main(pool: EphemeralPool) -> None:
    """Let main be full of pages that nobody uses, as it is when a pool begins to evict."""
    put(pool, range(CAPACITY + PER_SEGMENT), object_id=9)
    assert pool.main.segments


def reclaimed(core: Core, name: str) -> int:
    figure = core.statistics()["reclaim"][name]
    assert isinstance(figure, int)
    return figure


# --- S3-FIFO -------------------------------------------------------------------------------------


def test_what_came_first_stays_and_the_rest_passes_by(core: Core, cache: EphemeralPool) -> None:
    """Nothing is known of any page: those of a loop that is longer than the pool hit like that."""
    put(cache, range(3 * CAPACITY))
    there = present(cache, range(3 * CAPACITY))
    passing = [index for index in there if index > CAPACITY]
    assert passing == list(range(passing[0], 3 * CAPACITY)), "the newest, without a gap"
    assert passing[0] % PER_SEGMENT == 0, "whole segments went"
    assert len(passing) <= 2 * PER_SEGMENT
    first = there[: -len(passing)]
    assert first == list(range(first[0], first[-1] + 1)), "and the oldest"
    assert first[0] <= PER_SEGMENT, "but for one segment that the tables needed"
    assert CAPACITY - PER_SEGMENT <= len(there) <= CAPACITY + PER_SEGMENT
    gone = 3 * CAPACITY - len(there)
    assert reclaimed(core, "evicted_pgs") == gone
    assert reclaimed(core, "evict_attempts") == gone // PER_SEGMENT
    assert reclaimed(core, "moved_pgs") == 0
    check_account(core)


def test_pages_that_were_used_again_survive_to_main(core: Core, cache: EphemeralPool) -> None:
    fill_main(cache)
    put(cache, range(PER_SEGMENT))
    use(cache, range(0, PER_SEGMENT, 4))
    use(cache, range(0, PER_SEGMENT, 8))
    put(cache, range(CAPACITY, 3 * CAPACITY))
    assert present(cache, range(PER_SEGMENT)) == list(range(0, PER_SEGMENT, 8))
    assert set(range(0, PER_SEGMENT, 8)) <= in_main(cache)
    assert reclaimed(core, "moved_pgs") == PER_SEGMENT // 8
    use(cache, range(0, PER_SEGMENT, 8))
    check_account(core)


def test_a_put_is_not_a_use(cache: EphemeralPool) -> None:
    fill_main(cache)
    for _ in range(3):
        put(cache, range(20))
    put(cache, range(50, 3 * CAPACITY))
    assert present(cache, range(20)) == []


def test_a_page_that_comes_back_goes_to_main(core: Core, cache: EphemeralPool) -> None:
    fill_main(cache)
    gone = range(12 * PER_SEGMENT)
    put(cache, gone[::2])
    put(cache, range(10_000, 10_000 + 3 * PER_SEGMENT))
    assert present(cache, gone) == []
    # In one run, pages whose ghosts are known are told from those that never were there.
    for index in range(0, len(gone), 16):
        assert cache.put_many(1, index, run(index, 16)) == 16
    came_back = in_main(cache)
    assert came_back <= set(gone[::2])
    assert len(came_back) > len(gone) / 2 * 0.8, "a few ghosts were pushed out by younger ones"
    # A scan does not take what is in main.
    put(cache, range(20_000, 20_000 + 2 * CAPACITY))
    assert set(present(cache, gone)) == came_back
    # A ghost is good for once.
    cache.flush_many(1, 0, len(gone))
    put(cache, gone)
    assert not came_back & in_main(cache)
    check_account(core)


def test_a_second_life_in_main_has_to_be_earned_again(core: Core, cache: EphemeralPool) -> None:
    fill_main(cache)
    mine = range(4 * PER_SEGMENT)
    put_and_use_again(cache, mine)
    put(cache, range(10_000, 10_000 + 2 * PER_SEGMENT))
    assert in_main(cache) == set(mine)
    once, twice = mine[:PER_SEGMENT], mine[PER_SEGMENT : 2 * PER_SEGMENT]
    use(cache, once)
    use(cache, twice)
    use(cache, twice)
    # New pages that are used again push on main, once round: there, the marked are moved on and the
    # others go.
    put_and_use_again(cache, range(20_000, 20_000 + CAPACITY + PER_SEGMENT))
    assert present(cache, mine) == [*once, *twice]
    # Used no more, they go as well, those that were used twice too.
    put_and_use_again(cache, range(30_000, 30_000 + CAPACITY + PER_SEGMENT))
    assert present(cache, mine) == []
    # Main leaves no ghosts: they had their chance.
    put(cache, mine)
    assert not in_main(cache) & set(mine)
    check_account(core)


def test_a_head_is_reclaimed_like_any_other_segment(core: Core, cache: EphemeralPool) -> None:
    """Nothing is appended to it any more, not even what is moved out of it."""
    put(cache, range(5))
    use(cache, range(5))
    for _ in range(3):
        use(cache, range(5))
        (before,) = [*cache.new.segments.values(), *cache.main.segments.values()]
        assert core._reclaim._evict(cache) == 0
        (after,) = cache.main.segments.values()
        assert after is not before
        assert after.row_count == 5
        check_account(core)
    assert core._reclaim._evict(cache) == 5
    assert cache.segments == 0
    check_account(core)


def test_new_has_a_tenth(client: Client, core: Core) -> None:
    """Main's pages go for new ones until new has its share, and no longer."""
    core.set_budget(4 * MIN_BUDGET)
    cache = client.new_pool("cache", kind="ephemeral")
    assert isinstance(cache, EphemeralPool)
    index = 0
    while len(cache.main.segments) < 52:
        cache.put(1, index, page(index))
        cache.get(1, index)
        index += 1
    for index in range(10_000, 10_000 + 20 * PER_SEGMENT):
        cache.put(1, index, page(index))
        if len(cache.new.segments) <= cache.segments / 10:
            assert present(cache, range(10_000, index + 1)) == list(range(10_000, index + 1))
        assert len(cache.new.segments) <= cache.segments / 10 + 1
    assert len(cache.new.segments) >= 6
    assert len(cache.main.segments) >= 50


@pytest.mark.parametrize("count", [1, 16])
def test_a_scan_does_not_evict_the_working_set(
    core: Core, cache: EphemeralPool, count: int
) -> None:
    """Half the budget in use, twice the budget read once, in pages and in runs."""
    put(cache, range(CAPACITY // 2))
    use(cache, range(CAPACITY // 2))
    for index in range(0, 2 * CAPACITY, count):
        assert cache.put_many(2, index, run(index, count)) == count
    use(cache, range(CAPACITY // 2))
    assert reclaimed(core, "evicted_pgs") > CAPACITY
    check_account(core)


@pytest.mark.parametrize("count", [1, 32])
def test_pages_that_are_read_ahead_do_not_evict_the_working_set(
    core: Core, cache: EphemeralPool, count: int
) -> None:
    """One large sequential read: each page is put ahead of its reader, who then gets it once."""
    fill_main(cache)
    mine = range(CAPACITY // 2)
    put_and_use_again(cache, mine)
    for index in range(0, 4 * CAPACITY, count):
        assert cache.put_many(2, index, run(index, count)) == count
        assert cache.get_many(2, index, count) == split(run(index, count))
    assert present(cache, mine) == list(mine)
    check_account(core)


def test_one_put_does_not_walk_through_a_pool_of_used_pages(
    core: Core, cache: EphemeralPool
) -> None:
    """The others would have to wait for it; a few used pages are given up instead."""
    core.set_budget(4 * MIN_BUDGET)
    attempts, moved, index = 0, 0, 0
    while not reclaimed(core, "evicted_pgs"):
        before = attempts, moved
        cache.put(1, index, page(index))
        cache.get(1, index)
        index += 1
        attempts, moved = (reclaimed(core, name) for name in ("evict_attempts", "moved_pgs"))
        assert attempts - before[0] <= TRIES_LIMIT + 2
        assert moved - before[1] <= TRIES_LIMIT * PER_SEGMENT
    assert cache.segments > 4 * TRIES_LIMIT
    check_account(core)


# --- the order between pools ---------------------------------------------------------------------


def test_the_pool_that_has_most_gives_first(core: Core, client: Client) -> None:
    small = client.new_pool("small", kind="ephemeral")
    large = client.new_pool("large", kind="ephemeral")
    put(small, range(3 * PER_SEGMENT))
    put(large, range(4 * CAPACITY))
    assert len(present(small, range(CAPACITY))) == 3 * PER_SEGMENT
    put(small, range(CAPACITY, 4 * CAPACITY))
    share = len(present(large, range(4 * CAPACITY))) / CAPACITY
    assert 0.4 < share < 0.6, "now they have the same"
    check_account(core)


def test_order_of_reclaim(core: Core, client: Client, swap: PersistentPool) -> None:
    """Destroyed pools, then ephemeral pages, then dead space; and then the put is refused."""
    put(swap, range(4 * PER_SEGMENT))
    for index in range(0, 4 * PER_SEGMENT, 2):
        swap.flush_page(1, index)
    gone = client.new_pool("gone", kind="persistent")
    put(gone, range(3 * PER_SEGMENT))
    cache = client.new_pool("cache", kind="ephemeral")
    put(cache, range(6 * PER_SEGMENT))
    core.detach_pool = lambda pool, _: pool.close()  # type: ignore[method-assign]  # no sweep
    client.destroy_pool(gone)

    order: list[str] = []
    index = 10_000
    while swap.put(1, index, page(index)):
        index += 1
        now = {
            "destroyed": sum(p.segments for p in core._reclaim._pools if p.destroyed),
            "ephemeral": cache.statistics()["pages"],
            "cleaned": reclaimed(core, "cleaned_segments"),
        }
        if now["destroyed"]:
            assert now["ephemeral"] == 6 * PER_SEGMENT
        if now["ephemeral"]:
            assert now["cleaned"] == 0
        step = "destroyed" if now["destroyed"] else "ephemeral" if now["ephemeral"] else "cleaning"
        if step not in order:
            order.append(step)
        check_account(core)
    assert order == ["destroyed", "ephemeral", "cleaning"]
    assert reclaimed(core, "cleaned_segments") > 0
    assert reclaimed(core, "pers_ate_eph") == reclaimed(core, "evicted_pgs") == 6 * PER_SEGMENT
    assert reclaimed(core, "pool_limit_hit") == 1
    assert present(swap, range(4 * PER_SEGMENT)) == list(range(1, 4 * PER_SEGMENT, 2))
    use(swap, range(10_000, index))


def test_what_ephemeral_puts_evict_is_not_eaten_by_persistent_ones(
    core: Core, cache: EphemeralPool
) -> None:
    put(cache, range(2 * CAPACITY))
    assert reclaimed(core, "evicted_pgs") > 0
    assert reclaimed(core, "pers_ate_eph") == 0


def test_ghosts_go_with_the_pages(core: Core, cache: EphemeralPool, swap: PersistentPool) -> None:
    """A pool that was pushed aside takes no memory for what it once was."""
    cache.put_many(1, 0, run(0, 20_000, kind="zero"))
    index = 0
    while not reclaimed(core, "evicted_pgs"):
        swap.put(1, index, page(index))
        index += 1
    assert 6 * 20_000 <= cache.ghosts.metadata_bytes < 6 * 22_000
    while cache.segments > 1:
        swap.put(1, index, page(index))
        index += 1
    assert cache.ghosts.metadata_bytes <= 6 * 20_000 / 2
    while swap.put(1, index, page(index)):
        index += 1
    assert cache.ghosts.metadata_bytes == cache.statistics()["metadata_bytes"] == 0
    check_account(core)


# --- cleaning ------------------------------------------------------------------------------------


def fill(pool: Pool, kind: str, page_size: int, first: int = 0) -> int:
    """Put until a page is refused; return the index of that."""
    index = first
    while pool.put(1, index, page(index, page_size, kind)):
        index += 1
    assert pool.get(1, index) is None
    return index


@pytest.mark.parametrize("kind", ["zero", "text", "raw"])
@pytest.mark.parametrize("page_size", [4096, 65536])
def test_cleaning_frees_dead_space_and_ends(
    core: Core, client: Client, kind: str, page_size: int
) -> None:
    """Random pages are flushed from a full pool, and about as many fit in again; three times."""
    pool = client.new_pool("pool", kind="persistent", page_size=page_size)
    source = random.Random(5)
    end = fill(pool, kind, page_size)
    model = set(range(end))
    for _ in range(3):
        flushed = source.sample(sorted(model), len(model) // 2)
        for index in flushed:
            assert pool.flush_page(1, index) == 1
        check_account(core)
        more = fill(pool, kind, page_size, end)
        model = model.difference(flushed) | set(range(end, more))
        assert more - end > len(flushed) * 0.6
        end = more
        check_account(core)
    assert reclaimed(core, "cleaned_segments") > 0
    for index in range(end):
        expected = page(index, page_size, kind) if index in model else None
        assert pool.get(1, index) == expected
    check_account(core)


def test_a_mix_of_pages_with_and_without_bytes(core: Core, swap: PersistentPool) -> None:
    source = random.Random(6)
    model: dict[int, bytes] = {}
    refused = 0
    for step in range(20_000):
        index = source.randrange(3000)
        new = page(source.randrange(1000), kind=KINDS[source.choice((0, 0, 1, 2, 3))])
        if swap.put(1, index, new):
            model[index] = new
        else:
            refused += 1
            model.pop(index, None)
            for other in source.sample(sorted(model), 100):
                swap.flush_page(1, other)
                del model[other]
        if step % 500 == 0:
            check_account(core)
    assert refused > 10
    assert reclaimed(core, "cleaned_segments") > 50
    for index in range(3000):
        assert swap.get(1, index) == model.get(index)


def test_cleaning_leaves_no_half_used_head_behind(core: Core, swap: PersistentPool) -> None:
    """The segment that cleaning opened is filled up before another one is opened."""
    end = fill(swap, "raw", 4096)
    for index in range(end):
        if index % 4:
            swap.flush_page(1, index)
    while not reclaimed(core, "cleaned_segments"):
        swap.put(1, end, page(end))
        end += 1
    full = [segment for segment in swap.log.segments.values() if segment.position == segment.end]
    assert len(full) == len(swap.log.segments) - 1, "only the head has room left at its end"


def test_cleaning_looks_at_every_pool(core: Core, client: Client, swap: PersistentPool) -> None:
    """What one pool let go is what another needs."""
    large = client.new_pool("large", kind="persistent", page_size=65536)
    assert all(large.put(1, index, page(index, 65536)) for index in range(8))
    end = fill(swap, "raw", 4096)
    assert not large.put(1, 8, page(8, 65536))
    for index in range(0, end, 2):
        swap.flush_page(1, index)
    more = fill(large, "raw", 65536, first=8)
    assert (more - 8) * 65536 > end / 2 * 4096 * 0.8
    assert reclaimed(core, "cleaned_segments") > 0
    assert present(swap, range(end)) == list(range(1, end, 2))
    check_account(core)


def test_cleaning_is_for_ephemeral_puts_too(
    core: Core, cache: EphemeralPool, swap: PersistentPool
) -> None:
    end = fill(swap, "raw", 4096)
    assert not cache.put(1, 0, page(0)), "persistent pages never go for an ephemeral one"
    for index in range(0, end, 2):
        swap.flush_page(1, index)
    assert cache.put(1, 0, page(0))
    assert cache.get(1, 0) == page(0)
    assert present(swap, range(end)) == list(range(1, end, 2))
    check_account(core)


def test_moving_pages_stays_within_the_reserve(
    core: Core, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At no time, not even between two pages that move, is more taken than the budget."""
    most = 0
    take = core._arena.take

    def watched(number: int, holder: Segment) -> None:
        nonlocal most
        take(number, holder)
        most = max(most, core._arena.charged_bytes)

    monkeypatch.setattr(core._arena, "take", watched)
    source = random.Random(7)
    pools: list[tuple[Any, str]] = [("ephemeral", "cache"), ("persistent", "swap")]
    made = [
        client.new_pool(name, kind=kind, page_size=size)
        for kind, name in pools
        for size in (4096, 65536)
    ]
    for step in range(3000):
        pool = source.choice(made)
        index = source.randrange(300)
        count = source.choice((1, 1, 8))
        kind = KINDS[step % 4]
        if not pool.put_many(1, index, run(source.randrange(500), count, pool.page_size, kind)):
            pool.flush_many(1, source.randrange(300), 40)
        first = source.randrange(300)
        for _ in range(2):
            pool.get_many(1, first, 8)
    assert reclaimed(core, "cleaned_segments") > 5
    assert reclaimed(core, "moved_pgs") > 100
    assert core.budget - 2 * core._arena.segment_size < most <= core.budget
    check_account(core)


def test_runs_longer_than_the_budget(
    core: Core, cache: EphemeralPool, swap: PersistentPool
) -> None:
    data = run(0, 3 * CAPACITY)
    assert cache.put_many(1, 0, data) == 3 * CAPACITY, "its own older pages made room"
    assert len(present(cache, range(3 * CAPACITY))) >= CAPACITY - PER_SEGMENT
    stored = swap.put_many(1, 0, data)
    assert CAPACITY - PER_SEGMENT <= stored <= CAPACITY + PER_SEGMENT
    assert swap.get_many(1, 0, 3 * CAPACITY) == [
        *split(data)[:stored],
        *[None] * (3 * CAPACITY - stored),
    ]
    check_account(core)
