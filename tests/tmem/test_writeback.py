"""Writeback: which persistent pages leave for a file, when, and what may happen on their way."""

import random
import zlib

import pytest
from account import check_account
from page_data import KINDS, page, run, split

from tmemfs.errors import BudgetInUse, CorruptPage
from tmemfs.tmem import MIN_BUDGET, Client, Core, PersistentPool
from tmemfs.tmem.reclaim import RESERVE_SEGMENTS
from tmemfs.tmem.writeback import BATCH, HIGH, LOW, TRIES_LIMIT, Batch

# Pages that do not compress: so many go into a segment, and so many into a batch.
PER_SEGMENT = 32
PER_BATCH = BATCH // 4096
SEGMENTS = 16 - RESERVE_SEGMENTS - 1


@pytest.fixture
def core() -> Core:
    return Core(MIN_BUDGET, capacity=8 * MIN_BUDGET)  # segments of 128 KiB


@pytest.fixture
def client(core: Core) -> Client:
    return core.new_client("client")


@pytest.fixture
def pool(client: Client) -> PersistentPool:
    return new_pool(client)


def new_pool(client: Client, name: str = "swap", page_size: int = 4096) -> PersistentPool:
    return client.new_pool(name, kind="persistent", page_size=page_size, overflows=True)


def put(
    pool: PersistentPool, indices: range, object_id: int = 1, seed: int = 0, kind: str = "raw"
) -> None:
    for index in indices:
        new = page(seed + index, pool.page_size, kind)
        assert pool.put(object_id, index, new)


def begin(core: Core, *, heads: bool = False) -> Batch:
    batch = core.writeback.begin(heads=heads)
    assert batch is not None
    return batch


def finish(core: Core, batch: Batch, pages: list[tuple[int, bytes]]) -> int:
    """End a batch of which everything was written."""
    moved = core.writeback.finish(batch, [zlib.crc32(data) for _, data in pages])
    check_account(core)
    return moved


def indices(pages: list[tuple[int, bytes]]) -> list[int]:
    return [index for index, _ in pages]


def leave(core: Core) -> list[int]:
    """Let one batch leave; return the indices of its pages."""
    batch = begin(core)
    check_account(core, pinned=True)
    pages = batch.pages()
    assert finish(core, batch, pages) == len(pages) > 0
    return indices(pages)


def leave_all(core: Core, *, enough: bool = False) -> None:
    """Let batches leave until none may, or until it is *enough*; the account is not looked at."""
    while not (enough and core.writeback.enough):
        batch = core.writeback.begin()
        if batch is None:
            break
        pages = batch.pages()
        core.writeback.finish(batch, [zlib.crc32(data) for _, data in pages])


def overflowed(pool: PersistentPool, count: int = 4096, object_id: int = 1) -> list[int]:
    return list(pool.checksums(object_id, 0, count))


def written_back(core: Core) -> int:
    return int(core.statistics()["reclaim"]["written_back_pages"])


def use(pool: PersistentPool, which: range) -> None:
    for index in which:
        assert pool.get(1, index) is not None


# --- which, and in what order --------------------------------------------------------------------


def test_nothing_may_leave(core: Core, client: Client, pool: PersistentPool) -> None:
    """An empty pool; one that does not overflow; segments that are being filled."""
    assert core.writeback.begin(heads=True) is None
    put(client.new_pool("stays", kind="persistent"), range(4 * PER_SEGMENT))
    assert core.writeback.begin(heads=True) is None
    put(pool, range(PER_SEGMENT))
    put(pool, range(100, 110), kind="text")
    assert core.writeback.begin() is None
    check_account(core)


def test_heads_are_for_need(core: Core, pool: PersistentPool) -> None:
    """What is being filled leaves last, and only when it is asked for."""
    put(pool, range(3 * PER_SEGMENT))
    put(pool, range(1000, 1010), kind="text")
    assert leave(core) == list(range(2 * PER_SEGMENT))
    assert core.writeback.begin() is None
    batch = begin(core, heads=True)
    put(pool, range(1010, 1013), kind="text")
    pages = batch.pages()
    assert indices(pages) == [*range(2 * PER_SEGMENT, 3 * PER_SEGMENT), *range(1000, 1010)]
    assert finish(core, batch, pages) == len(pages)
    assert pool.segments == 1, "what was put meanwhile is in one of them"
    assert pool.get(1, 1011) == page(1011, kind="text")


def test_the_oldest_leave_first(core: Core, pool: PersistentPool) -> None:
    core.set_budget(8 * MIN_BUDGET)
    put(pool, range(2 * PER_BATCH + 5 * PER_SEGMENT))
    half = TRIES_LIMIT * PER_SEGMENT
    assert half < PER_BATCH
    for first in range(0, 2 * PER_BATCH, half):
        assert leave(core) == list(range(first, first + half))
    assert overflowed(pool) == list(range(2 * PER_BATCH))
    assert written_back(core) == pool.overflow_pages == 2 * PER_BATCH


def test_pages_that_do_not_compress_leave_first(core: Core, pool: PersistentPool) -> None:
    for index in range(0, 400, 2):
        put(pool, range(index, index + 1), kind="text")
        put(pool, range(index + 1, index + 2))
    left = leave(core)
    assert [index for index in left if index % 2] == list(range(1, 2 * 6 * PER_SEGMENT, 2))
    # There were no more of them to be had: others fill the batch up, the oldest of them.
    others = [index for index in left if index % 2 == 0]
    assert others == list(range(0, 2 * len(others), 2))
    assert 0 < len(others) < 200
    figures = pool.raw.statistics()
    assert figures["pages"] == figures["huge_pages"] == 200 % PER_SEGMENT
    assert pool.log.statistics()["huge_pages"] == 0


def test_used_pages_are_spared_once(core: Core, pool: PersistentPool) -> None:
    put(pool, range(5 * PER_SEGMENT))
    use(pool, range(0, 4 * PER_SEGMENT, 2))
    assert leave(core) == list(range(1, 4 * PER_SEGMENT, 2))
    assert leave(core) == list(range(0, 4 * PER_SEGMENT, 2)), "they had not been used since"
    assert core.writeback.begin() is None


def test_used_pages_are_spared_again_if_they_are_used_again(
    core: Core, pool: PersistentPool
) -> None:
    put(pool, range(5 * PER_SEGMENT))
    use(pool, range(PER_SEGMENT))
    assert leave(core) == list(range(PER_SEGMENT, 4 * PER_SEGMENT))
    put(pool, range(1000, 1000 + 4 * PER_SEGMENT))
    use(pool, range(PER_SEGMENT))
    spared, other = range(PER_SEGMENT), range(4 * PER_SEGMENT, 5 * PER_SEGMENT)
    assert set(leave(core)) >= set(other)
    assert set(overflowed(pool)).isdisjoint(spared)


def test_where_all_are_used_some_leave_all_the_same(core: Core, pool: PersistentPool) -> None:
    """After TRIES_LIMIT segments: the pages of the next ones, whose turn to lose the mark."""
    core.set_budget(4 * MIN_BUDGET)
    put(pool, range(3 * TRIES_LIMIT * PER_SEGMENT + 1))
    use(pool, range(3 * TRIES_LIMIT * PER_SEGMENT))
    left = leave(core)
    assert left == list(range(TRIES_LIMIT * PER_SEGMENT, 2 * TRIES_LIMIT * PER_SEGMENT))
    # Those that were looked at first are unmarked now, and come when their turn does.
    assert leave(core) == list(range(TRIES_LIMIT * PER_SEGMENT))


def test_a_segment_with_too_many_pages_leaves_in_parts(core: Core, pool: PersistentPool) -> None:
    """The rest of it is the first of the next batch."""
    count = 2000
    put(pool, range(count), kind="word")
    put(pool, range(count, count + 3 * PER_SEGMENT), kind="text")
    assert leave(core) == list(range(PER_BATCH))
    assert leave(core) == list(range(PER_BATCH, 2 * PER_BATCH))
    leave_all(core)
    check_account(core)
    assert overflowed(pool)[:count] == list(range(count))
    assert pool.segments == len(pool.log.segments) > 0


def test_the_pool_that_has_most_gives_first(core: Core, client: Client) -> None:
    small, large = new_pool(client, "small"), new_pool(client, "large")
    stays = client.new_pool("stays", kind="persistent")
    put(small, range(3 * PER_SEGMENT))
    put(large, range(4 * PER_SEGMENT))
    put(stays, range(5 * PER_SEGMENT))
    assert begin_and_end(core) is large
    leave(core)
    assert begin_and_end(core) is small
    leave(core)
    assert core.writeback.begin() is None
    assert (small.overflow_pages, large.overflow_pages) == (2 * PER_SEGMENT, 3 * PER_SEGMENT)
    # Heads too, the fattest pool first.
    assert begin(core, heads=True).pool in (small, large)


def begin_and_end(core: Core) -> PersistentPool:
    """The pool of the next batch, nothing of which is written."""
    batch = begin(core)
    for owner, index, _ in batch._victims:
        owner.unmark(index)
    pool, marks = batch.pool, [(owner, index) for owner, index, _ in batch._victims]
    assert core.writeback.finish(batch, [None] * len(batch.pages())) == 0
    for owner, index in marks:
        assert owner.used(index), "as if it had been used"
        owner.unmark(index)
    check_account(core)
    return pool


@pytest.mark.parametrize("kind", KINDS)
def test_no_page_is_twice_in_a_batch(core: Core, pool: PersistentPool, kind: str) -> None:
    """However often it was put, it is at one place."""
    for _ in range(3):
        put(pool, range(20), kind=kind)
    batch = begin(core, heads=True)
    pages = batch.pages()
    assert indices(pages) == list(range(20))
    finish(core, batch, pages)


def test_the_pages_of_a_batch_are_in_order(core: Core, pool: PersistentPool) -> None:
    """Of object and index, however they were put, so that what is adjacent is written at once."""
    source = random.Random(1)
    handles = [(object_id, index) for object_id in (1, 2) for index in range(70)]
    source.shuffle(handles)
    for object_id, index in handles:
        put(pool, range(index, index + 1), object_id, seed=object_id)
    pool.raw.head = None
    batch = begin(core)
    pages = batch.pages()
    assert indices(pages) == [*range(70), *range(70)]
    assert pages == [(i, page(i + o)) for o in (1, 2) for i in range(70)]
    finish(core, batch, pages)


# --- when ----------------------------------------------------------------------------------------


def test_between_a_high_and_a_low_mark(core: Core, pool: PersistentPool) -> None:
    index = 0
    while not core.writeback.needed:
        assert core.writeback.enough == (pool.segments <= LOW * (SEGMENTS + 1) - 0.1)
        put(pool, range(index, index + 1))
        index += 1
    assert HIGH * SEGMENTS < pool.segments <= HIGH * (SEGMENTS + 1) + 1
    assert not core.writeback.enough
    while not core.writeback.enough:
        leave(core)
    assert not core.writeback.needed
    assert pool.segments <= LOW * (SEGMENTS + 1)


def test_what_does_not_overflow_counts_and_what_is_ephemeral_does_not(
    core: Core, client: Client, pool: PersistentPool
) -> None:
    cache = client.new_pool("cache", kind="ephemeral")
    cache.put_many(1, 0, run(0, 1000))
    assert core.writeback.enough
    assert not core.writeback.needed
    stays = client.new_pool("stays", kind="persistent")
    put(stays, range((SEGMENTS - 2) * PER_SEGMENT))
    put(pool, range(PER_SEGMENT + 1))
    assert core.writeback.needed
    # Its own pages are all that can be moved; then there is nothing more to be done.
    assert leave(core) == list(range(PER_SEGMENT))
    assert core.writeback.begin() is None


def test_the_tables_are_no_room_for_pages(core: Core, pool: PersistentPool) -> None:
    """Many pages outside: what is known of them takes memory, and the marks follow."""
    before = core.writeback._available()
    for first in range(0, 60_000, 60):
        assert pool.put_many(1, first, run(first % 1000, 60)) == 60
        leave_all(core, enough=True)
    check_account(core)
    tables = pool.objects.metadata_bytes
    assert 8 * 60_000 < tables < 12 * 60_000
    assert before - core.writeback._available() >= tables / core._arena.segment_size


# --- what is outside -----------------------------------------------------------------------------


def test_what_is_outside_is_told_by_its_checksum(core: Core, pool: PersistentPool) -> None:
    put(pool, range(3 * PER_SEGMENT))
    there = leave(core)
    assert pool.checksums(1, 0, 500) == {index: zlib.crc32(page(index)) for index in there}
    assert pool.checksums(1, 10, 3) == {index: zlib.crc32(page(index)) for index in (10, 11, 12)}
    assert pool.checksums(2, 0, 500) == pool.checksums(1, 100, 0) == {}
    with pytest.raises(CorruptPage):
        pool.get(1, 0)
    with pytest.raises(CorruptPage):
        pool.get_many(1, 60, 8)
    assert pool.get(1, 2 * PER_SEGMENT) == page(2 * PER_SEGMENT)
    told = pool.statistics()
    assert told["pages"] == 3 * PER_SEGMENT
    assert told["overflow_pages"] == 2 * PER_SEGMENT
    assert told["compr_data_size"] == told["huge_pages"] * 4096 == PER_SEGMENT * 4096
    check_account(core)


@pytest.mark.parametrize("checksum", [0, 1, (1 << 47) - 1])
def test_every_checksum_that_there_can_be(core: Core, pool: PersistentPool, checksum: int) -> None:
    put(pool, range(PER_SEGMENT + 1))
    batch = begin(core)
    core.writeback.finish(batch, [checksum] * len(batch.pages()))
    assert pool.checksums(1, 5, 1) == {5: checksum}
    with pytest.raises(CorruptPage):
        pool.get(1, 5)
    check_account(core)


def test_uses_outside_are_counted(core: Core, pool: PersistentPool) -> None:
    put(pool, range(PER_SEGMENT + 1))
    use(pool, range(3))
    assert pool.raw.head is not None
    pool.raw.append([b""] * pool.raw.head.rows_left, 0, 0)  # it is full
    leave(core)
    leave(core)
    assert overflowed(pool) == list(range(PER_SEGMENT))
    assert not pool.use_overflowed(1, 2), "what it was in memory does not count"
    assert pool.use_overflowed(1, 2)
    assert not pool.use_overflowed(1, 3)
    # Only of pages that are outside.
    assert not pool.use_overflowed(1, PER_SEGMENT)
    assert not pool.use_overflowed(1, 10_000)
    assert not pool.use_overflowed(9, 2)
    put(pool, range(2, 3))
    assert not pool.use_overflowed(1, 2)
    check_account(core)


def test_what_is_outside_is_replaced_and_flushed(core: Core, pool: PersistentPool) -> None:
    put(pool, range(5 * PER_SEGMENT))
    leave(core)
    assert pool.overflow_pages == 4 * PER_SEGMENT
    assert pool.put_many(1, 10, run(500, 20)) == 20
    assert pool.get_many(1, 10, 20) == split(run(500, 20))
    assert pool.overflow_pages == 4 * PER_SEGMENT - 20
    check_account(core)
    assert pool.flush_page(1, 0) == 1
    assert pool.flush_page(1, 0) == 0
    assert pool.get(1, 0) is None
    # A run over what is outside, what is not, and what is nowhere.
    assert pool.flush_many(1, 0, 5 * PER_SEGMENT - 1) == 5 * PER_SEGMENT - 2
    assert (pool.overflow_pages, pool.objects.pages) == (0, 1)
    check_account(core)
    told = pool.statistics()
    assert told["dup_puts_replaced"] == 20
    assert told["flushs_found"] == 5 * PER_SEGMENT - 1


@pytest.mark.parametrize("way", ["flush_object", "destroy"])
def test_all_of_it_goes(core: Core, client: Client, pool: PersistentPool, way: str) -> None:
    put(pool, range(5 * PER_SEGMENT))
    leave(core)
    if way == "destroy":
        client.destroy_pool(pool)
        while core.sweep(1):
            pass
        assert not pool.use_overflowed(1, 3)
    else:
        assert pool.flush_object(1) == 5 * PER_SEGMENT
    assert pool.overflow_pages == 0
    assert overflowed(pool) == []
    assert core._arena.charged_bytes == 0
    check_account(core)


def test_a_refused_put_of_what_is_outside_leaves_a_miss(
    core: Core, pool: PersistentPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T2: it is not to be found again there."""
    put(pool, range(5 * PER_SEGMENT))
    leave(core)
    with monkeypatch.context() as patch:
        patch.setattr(core._reclaim, "make_room", lambda segments, pool: False)
        assert pool.put_many(1, 3, run(70, 3)) == 0
    assert pool.get_many(1, 3, 3) == [None] * 3
    assert overflowed(pool, 8) == [0, 1, 2, 6, 7]
    check_account(core)


# --- while pages are on their way ----------------------------------------------------------------


def test_pages_on_their_way_are_still_there(core: Core, pool: PersistentPool) -> None:
    put(pool, range(5 * PER_SEGMENT))
    batch = begin(core)
    pages = batch.pages()
    assert pages == [(index, page(index)) for index in range(4 * PER_SEGMENT)]
    assert overflowed(pool) == []
    use(pool, range(5 * PER_SEGMENT))
    check_account(core, pinned=True)
    finish(core, batch, pages)
    assert overflowed(pool) == list(range(4 * PER_SEGMENT))


def test_what_changes_on_the_way_stays(core: Core, pool: PersistentPool) -> None:
    put(pool, range(5 * PER_SEGMENT))
    batch = begin(core)
    pages = batch.pages()
    put(pool, range(10, 20), seed=1000)
    assert pool.flush_many(1, 20, 10) == 10
    assert pool.flush_many(1, 30, 10) == 10
    put(pool, range(30, 40))  # the same as before, but somewhere else
    check_account(core, pinned=True)
    assert finish(core, batch, pages) == 4 * PER_SEGMENT - 30 == written_back(core)
    assert overflowed(pool) == [*range(10), *range(40, 4 * PER_SEGMENT)]
    assert pool.get_many(1, 10, 30) == [
        *split(run(1010, 10)),
        *[None] * 10,
        *split(run(30, 10)),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_that_goes_and_comes_back_on_the_way(
    core: Core, pool: PersistentPool, kind: str
) -> None:
    """Nothing of the new one leaves with the old one, also where it has the same number."""
    put(pool, range(5 * PER_SEGMENT), kind=kind)
    pool.raw.head = pool.log.head = None
    owner = pool.objects.find(1)
    assert owner is not None
    batch = begin(core)
    pages = batch.pages()
    assert pool.flush_object(1) == 5 * PER_SEGMENT
    put(pool, range(PER_SEGMENT), kind=kind, seed=7)
    again = pool.objects.find(1)
    assert again is not None
    assert again is not owner
    assert again.number == owner.number
    check_account(core, pinned=True)
    assert finish(core, batch, pages) == 0
    assert overflowed(pool) == []
    for index in range(PER_SEGMENT):
        assert pool.get(1, index) == page(index + 7, kind=kind)
    assert pool.get(1, PER_SEGMENT) is None


def test_a_pool_that_is_destroyed_on_the_way(core: Core, client: Client) -> None:
    """Its segments go while the batch still has them, and may be somebody else's at its end."""
    pool, other = new_pool(client), new_pool(client, "other")
    put(pool, range(5 * PER_SEGMENT))
    batch = begin(core)
    pages = batch.pages()
    client.destroy_pool(pool)
    while core.sweep(1):
        pass
    check_account(core)
    put(other, range(5 * PER_SEGMENT))
    assert finish(core, batch, pages) == 0
    assert other.get_many(1, 0, 5 * PER_SEGMENT) == split(run(0, 5 * PER_SEGMENT))


def test_a_pool_that_is_destroyed_but_not_yet_swept(core: Core, client: Client) -> None:
    pool = new_pool(client)
    put(pool, range(5 * PER_SEGMENT))
    batch = begin(core)
    pages = batch.pages()
    core.detach_pool = lambda pool, _: pool.close()  # type: ignore[method-assign]  # no sweep
    client.destroy_pool(pool)
    assert finish(core, batch, pages) == 0
    assert core.sweep(2)
    while core.sweep(2):
        check_account(core)
    assert core._arena.charged_bytes == 0


def test_what_could_not_be_written_stays(core: Core, pool: PersistentPool) -> None:
    """As if it had been used: others come first now."""
    put(pool, range(9 * PER_SEGMENT))
    batch = begin(core)
    checksums = [zlib.crc32(data) if index % 2 else None for index, data in batch.pages()]
    assert core.writeback.finish(batch, checksums) == 4 * PER_SEGMENT
    assert overflowed(pool) == list(range(1, 8 * PER_SEGMENT, 2))
    check_account(core)
    put(pool, range(1000, 1000 + 2 * PER_SEGMENT))
    assert pool.get_many(1, 0, 1) == [page(0)]
    assert leave(core)[-1] >= 8 * PER_SEGMENT, "not the same again"
    leave_all(core)
    check_account(core)
    assert overflowed(pool)[: 8 * PER_SEGMENT] == list(range(8 * PER_SEGMENT))


def test_segments_on_their_way_are_neither_given_back_nor_cleaned(
    core: Core, pool: PersistentPool
) -> None:
    put(pool, range(10 * PER_SEGMENT))
    batch = begin(core)
    pages = batch.pages()
    pinned = {number for number, segment in pool.raw.segments.items() if segment.pins}
    assert len(pinned) == TRIES_LIMIT
    # Two empty ones, and the others are nearly so.
    assert pool.flush_many(1, 0, 2 * PER_SEGMENT) == 2 * PER_SEGMENT
    for index in range(2 * PER_SEGMENT, 8 * PER_SEGMENT):
        if index % 4:
            pool.flush_page(1, index)
    check_account(core, pinned=True)
    index = 1000
    while pool.put(1, index, page(index)):
        index += 1
    assert core.statistics()["reclaim"]["cleaned_segments"] == 0
    assert pinned <= pool.raw.segments.keys()
    check_account(core, pinned=True)
    moved = finish(core, batch, pages)
    assert moved == 6 * PER_SEGMENT // 4
    assert pinned.isdisjoint(pool.raw.segments)
    assert pool.put_many(1, index, run(index, 6 * PER_SEGMENT)) == 6 * PER_SEGMENT
    check_account(core)


def test_a_batch_of_which_nothing_is_left(core: Core, pool: PersistentPool) -> None:
    put(pool, range(5 * PER_SEGMENT))
    batch = begin(core)
    pages = batch.pages()
    pool.flush_object(1)
    assert pool.segments > 0
    assert finish(core, batch, pages) == 0
    assert pool.segments == 0
    assert core._arena.charged_bytes == 0


def test_a_corrupt_page_does_not_leave(core: Core, pool: PersistentPool) -> None:
    """It is no better anywhere else; the others go, and go on going."""
    put(pool, range(200), kind="text")
    pool.log.head = None
    owner = pool.objects.find(1)
    assert owner is not None
    location = owner.location(5)
    start, size = location >> 17, location & 0x1FFFF
    pool.arena.view[start : start + size] = b"\xff" * size
    assert 5 not in leave(core)
    assert pool.counters.corrupt_pages == 1
    with pytest.raises(CorruptPage):
        pool.get(1, 5)
    assert pool.overflow_pages == 199
    assert pool.statistics()["pages"] == 200


# --- the budget ----------------------------------------------------------------------------------


def test_a_budget_below_what_is_in_memory(core: Core, client: Client, pool: PersistentPool) -> None:
    core.set_budget(8 * MIN_BUDGET)
    cache = client.new_pool("cache", kind="ephemeral")
    put(pool, range(6 * MIN_BUDGET // 4096))
    cache.put_many(1, 0, run(0, 100))
    core.begin_budget(MIN_BUDGET)
    while core.shrink():
        pass
    assert cache.statistics()["pages"] == 0
    check_account(core, settled=False)
    assert core._arena.charged_bytes > core.budget
    assert core.writeback.needed
    # Puts have to wait until then, and nothing is lost.
    assert not pool.has_room(1)
    leave_all(core, enough=True)
    check_account(core)
    assert pool.has_room(1)
    for index in range(6 * MIN_BUDGET // 4096):
        if not pool.checksums(1, index, 1):
            assert pool.get(1, index) == page(index)


def test_a_budget_that_does_not_hold_the_tables(core: Core, pool: PersistentPool) -> None:
    core.set_budget(8 * MIN_BUDGET)
    for first in range(0, 160_000, 400):
        assert pool.put_many(1, first, run(first % 1000, 400)) == 400
        leave_all(core, enough=True)
    before = core.statistics()
    with pytest.raises(BudgetInUse, match="does not hold the persistent pages"):
        core.begin_budget(MIN_BUDGET)
    assert core.statistics() == before
    core.begin_budget(2 * MIN_BUDGET)


def test_pages_that_stay_still_need_their_memory(core: Core, client: Client) -> None:
    """Only those of pools that overflow can be counted on to leave."""
    core.set_budget(8 * MIN_BUDGET)
    put(new_pool(client), range(1000))
    put(client.new_pool("stays", kind="persistent"), range(1000))
    with pytest.raises(BudgetInUse):
        core.begin_budget(MIN_BUDGET)
    core.begin_budget(3 * MIN_BUDGET)


@pytest.mark.parametrize("left", range(0, 2000, 200))
@pytest.mark.parametrize("segments", [4, 5])
def test_two_pages_that_need_a_segment_each(
    core: Core, pool: PersistentPool, segments: int, left: int
) -> None:
    core.set_budget(2 * MIN_BUDGET)
    put(pool, range(14 * PER_SEGMENT - 1))
    pool.raw.head = None
    core.set_budget(core._arena.charged_bytes + segments * core._arena.segment_size + left)
    if pool.has_room(2):
        assert pool.put_many(1, 1000, page(1) + page(2, kind="text")) == 2
    check_account(core)


@pytest.mark.parametrize("page_size", [4096, 65536])
@pytest.mark.parametrize("seed", range(4))
def test_where_there_is_room_no_page_is_refused(
    core: Core, client: Client, page_size: int, seed: int
) -> None:
    """Whatever the run is made of: pages of two logs need more segments than pages of one."""
    source = random.Random(seed)
    pool, cache = new_pool(client, page_size=page_size), client.new_pool("c", kind="ephemeral")
    model: dict[int, bytes] = {}
    refused = 0
    for step in range(1500 if page_size == 4096 else 300):
        index, count = source.randrange(900), source.choice((1, 2, 3, 8))
        new = b"".join(
            page(source.randrange(400), page_size, source.choice(KINDS[1:])) for _ in range(count)
        )
        if pool.has_room(count):
            assert pool.put_many(1, index, new) == count
            model.update(enumerate(split(new, page_size), index))
        else:
            refused += 1
            for other in source.sample(sorted(model), min(8, len(model))):
                assert pool.flush_page(1, other) == 1
                del model[other]
        if step % 7 == 0:
            cache.put_many(1, step, run(step, 4))
    assert refused > 20
    check_account(core)
    for index, expected in model.items():
        assert pool.get(1, index) == expected
