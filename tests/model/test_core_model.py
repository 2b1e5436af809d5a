"""T18: the core against a dict, in any order that hypothesis can think of.

Budgets are so small that pages are evicted, moved, cleaned and refused all the time, and leave for
files where they can. After every step the whole account is recounted.
"""

from typing import Any

import pytest
from account import check_account
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)
from overflow_files import OverflowFiles
from page_data import page
from stepping import Operation, fail_at_line

from tmemfs.errors import BudgetError, CorruptPage
from tmemfs.native.storage import NativeStorage
from tmemfs.tmem import (
    INDEX_LIMIT,
    INVALID_OBJECT_ID,
    MIN_BUDGET,
    Core,
    PersistentPool,
    Pool,
)
from tmemfs.tmem.storage import MakeStorage, PythonStorage

SIZES = (4096, 8192, 65536)

seeds = st.integers(0, 40)
steps = st.integers(0, 400)
objects = st.sampled_from([1, 2, INVALID_OBJECT_ID - 1])
# Around the edges of nodes, far out, and close to the end.
indices = st.one_of(
    st.integers(0, 200), st.sampled_from([62, 63, 64, 1 << 20, INDEX_LIMIT - 9, INDEX_LIMIT - 1])
)
# Some runs are large beside the budget.
counts = st.sampled_from([1, 1, 2, 3, 10, 65, 130])
budgets = st.integers(MIN_BUDGET, 2 * MIN_BUDGET)
pool_kinds = st.sampled_from(["ephemeral", "persistent", "overflowing"])
# Runs are of a single kind, or of all of them in turn.
kinds = st.sampled_from(["zero", "word", "text", "raw", "raw", "raw", "mix"])


class CoreMachine(RuleBasedStateMachine):
    """`pages` is what may be there: for a persistent pool exactly that, for an ephemeral at most.

    A page that a get has missed leaves it at once, and must never be seen again.
    """

    pools = Bundle("pools")
    make_storage: MakeStorage = PythonStorage

    def __init__(self) -> None:
        super().__init__()
        self.pages: dict[Pool, dict[tuple[int, int], bytes]] = {}
        self.told: dict[Pool, dict[str, int]] = {}
        self.destroyed: list[Pool] = []
        self.settled = True
        self.failed = False
        """whether an error has passed through"""

    @initialize(budget=budgets, size=st.sampled_from(SIZES), target=pools)
    def start(self, budget: int, size: int) -> Any:
        make_storage = type(self).make_storage
        self.core = Core(budget, capacity=2 * MIN_BUDGET, make_storage=make_storage)
        self.files = OverflowFiles(self.core)
        self.clients = [self.core.new_client("one"), self.core.new_client("two")]
        first = ("ephemeral", "persistent", "overflowing")
        return multiple(*(self._new(0, kind, size) for kind in first))

    def _new(self, client: int, kind: Any, size: int, uuid: int | None = None) -> Pool:
        new = self.clients[client].new_pool
        pool: Pool
        if kind == "overflowing":
            pool = new("pool", kind="persistent", page_size=size, overflows=True)
        else:
            pool = new("pool", kind=kind, page_size=size, uuid=uuid)
        self.pages.setdefault(pool, {})
        names = ("puts", "good_puts", "gets", "found_gets", "flushs", "flushs_found")
        self.told.setdefault(pool, dict.fromkeys(names, 0))
        return pool

    # -- pools -------------------------------------------------------------------------------

    @precondition(lambda self: len(self.pages) < 7)
    @rule(
        client=st.integers(0, 1),
        kind=pool_kinds,
        size=st.sampled_from(SIZES),
        target=pools,
    )
    def new_pool(self, client: int, kind: str, size: int) -> Pool:
        return self._new(client, kind, size)

    @rule(target=pools)
    def share_a_pool(self) -> Any:
        """Both clients have it; whichever puts, either gets."""
        known = set(self.pages)
        pool = self._new(0, "ephemeral", 4096, uuid=5)
        assert self._new(1, "ephemeral", 4096, uuid=5) is pool
        return multiple() if pool in known else pool

    @precondition(lambda self: len(self.pages) > 1)
    @rule(pool=consumes(pools))
    def destroy_pool(self, pool: Pool) -> None:
        """By all who have it; a shared pool stays until then."""
        owners = [client for client in self.clients if pool in client.pools]
        for client in owners:
            assert not pool.destroyed
            client.destroy_pool(pool)
        assert pool.destroyed
        del self.pages[pool]
        self.destroyed.append(pool)

    @precondition(lambda self: self.destroyed)
    @rule(object_id=objects, index=indices)
    def ask_a_destroyed_pool(self, object_id: int, index: int) -> None:
        pool = self.destroyed[-1]
        assert pool.get(object_id, index) is None
        assert not pool.put(object_id, index, bytes(pool.page_size))
        assert pool.flush_object(object_id) == 0

    @rule(segments=st.integers(0, 3))
    def sweep(self, segments: int) -> None:
        self.core.sweep(segments)

    # -- pages -------------------------------------------------------------------------------

    @rule(
        pool=pools,
        object_id=objects,
        index=indices,
        count=counts,
        seed=seeds,
        kind=kinds,
        ask=st.booleans(),
    )
    def put(
        self,
        pool: Pool,
        object_id: int,
        index: int,
        count: int,
        seed: int,
        kind: str,
        ask: bool,
    ) -> None:
        count = min(count, (1 << 20) // pool.page_size)
        in_range = index + count <= INDEX_LIMIT
        with_room = ask and pool.has_room(count)
        stored = self._put(pool, object_id, index, count, seed, kind)
        if with_room:
            assert stored == (count if in_range else 0)

    @rule(pool=pools, object_id=objects, seed=seeds, kind=kinds, use=st.booleans())
    def fill(self, pool: Pool, object_id: int, seed: int, kind: str, use: bool) -> None:
        """About as much as the budget, run after run, and each is used or not."""
        count = (128 << 10) // pool.page_size
        for index in range(0, 20 * count, count):
            self._put(pool, object_id, index, count, seed, kind, look=use)

    @rule(pool=pools, object_id=objects, apart=st.integers(2, 9))
    def punch(self, pool: Pool, object_id: int, apart: int) -> None:
        """Flush scattered pages: dead space everywhere."""
        handles = [handle for handle in self.pages[pool] if handle[0] == object_id][::apart]
        removed = sum(pool.flush_page(*handle) for handle in handles)
        self.told[pool]["flushs"] += len(handles)
        self.told[pool]["flushs_found"] += removed
        self._flushed(pool, handles, removed)

    @rule(pool=pools, object_id=objects, seed=seeds, kind=kinds, apart=st.integers(2, 9))
    def churn(self, pool: Pool, object_id: int, seed: int, kind: str, apart: int) -> None:
        """A full pool, holes in it, and more pages than the holes hold: the older ones again."""
        self.fill(pool, object_id, seed, kind, False)
        self.punch(pool, object_id, apart)
        self.fill(pool, object_id ^ 3, seed + 1, "raw", True)
        self.fill(pool, object_id, seed + 2, "raw", False)

    def _put(
        self,
        pool: Pool,
        object_id: int,
        index: int,
        count: int,
        seed: int,
        kind: str,
        look: bool = True,
    ) -> int:
        size, model, told = pool.page_size, self.pages[pool], self.told[pool]
        cycle = ("raw", "zero", "text", "word") if kind == "mix" else (kind,)
        new = [page(seed + i, size, cycle[i % len(cycle)]) for i in range(count)]
        stored = pool.put_many(object_id, index, b"".join(new))
        told["puts"] += count
        told["good_puts"] += stored
        handles = [(object_id, index + i) for i in range(count)]
        for handle in handles:
            model.pop(handle, None)
        if stored == count and not look:
            model.update(zip(handles, new, strict=True))
            return stored
        # What there is now is new, never what was there before.
        found = pool.get_many(object_id, index, count)
        there = {i: data for i, data in enumerate(found) if data is not None}
        assert there == {i: new[i] for i in there}
        model.update({handles[i]: data for i, data in there.items()})
        told["gets"] += count
        told["found_gets"] += len(there)
        assert len(there) == stored or (len(there) < stored and pool.kind == "ephemeral")
        return stored

    @rule(pool=pools, object_id=objects, index=indices, count=counts)
    def get(self, pool: Pool, object_id: int, index: int, count: int) -> None:
        overflowed = self.files.overflowed(pool, object_id, index, count)
        for at, found in overflowed.items():
            assert found == self.pages[pool][object_id, at]
        # What is in memory between them.
        ends = sorted({*overflowed, index + count})
        first = index
        for end in ends:
            if first < end:
                self.told[pool]["gets"] += end - first
                for i, found in enumerate(pool.get_many(object_id, first, end - first), first):
                    self._found(pool, (object_id, i), found)
            first = end + 1

    @rule(pool=pools, object_id=objects, index=indices)
    def get_and_flush(self, pool: Pool, object_id: int, index: int) -> None:
        self.told[pool]["gets"] += 1
        if self.files.overflowed(pool, object_id, index, 1):
            with pytest.raises(CorruptPage):
                pool.get_and_flush(object_id, index)
            return
        found = pool.get_and_flush(object_id, index)
        self._found(pool, (object_id, index), found)
        if self.pages[pool].pop((object_id, index), None) is not None:
            self.told[pool]["flushs"] += 1
            self.told[pool]["flushs_found"] += 1

    def _found(self, pool: Pool, handle: tuple[int, int], found: bytes | None) -> None:
        expected = self.pages[pool].get(handle)
        if found is None and pool.kind == "ephemeral":
            self.pages[pool].pop(handle, None)
        else:
            assert found == expected
        self.told[pool]["found_gets"] += found is not None

    @rule(
        pool=pools,
        object_id=objects,
        index=indices,
        count=st.one_of(counts, st.sampled_from([5000, INDEX_LIMIT])),
    )
    def flush_many(self, pool: Pool, object_id: int, index: int, count: int) -> None:
        model = self.pages[pool]
        handles = [
            handle for handle in model if handle[0] == object_id and 0 <= handle[1] - index < count
        ]
        removed = pool.flush_many(object_id, index, count)
        self.told[pool]["flushs"] += 1
        self.told[pool]["flushs_found"] += removed
        self._flushed(pool, handles, removed)

    @rule(pool=pools, object_id=objects)
    def flush_object(self, pool: Pool, object_id: int) -> None:
        handles = [handle for handle in self.pages[pool] if handle[0] == object_id]
        self._flushed(pool, handles, pool.flush_object(object_id))
        assert pool.stamp(object_id) == 0

    def _flushed(self, pool: Pool, handles: list[tuple[int, int]], removed: int) -> None:
        for handle in handles:
            del self.pages[pool][handle]
        assert removed <= len(handles)
        if pool.kind == "persistent":
            assert removed == len(handles)

    @rule(pool=pools, object_id=objects)
    def stamp(self, pool: Pool, object_id: int) -> None:
        """A stamp stays while there are pages; without pages there is none."""
        pool.set_stamp(object_id, (pool.number + object_id) % (1 << 192))
        expected = (pool.number + object_id) % (1 << 192) if pool.objects.find(object_id) else 0
        assert pool.stamp(object_id) == expected

    # -- what leaves memory ------------------------------------------------------------------

    @precondition(lambda self: self.files.batch is None)
    @rule(heads=st.booleans())
    def begin_to_leave(self, heads: bool) -> None:
        self.files.begin(heads=heads)

    @precondition(lambda self: self.files.batch is not None)
    @rule(apart=st.sampled_from([0, 0, 1, 3]))
    def have_left(self, apart: int) -> None:
        """All of them, none of them, or some."""
        self.files.finish(lambda number: not apart or number % apart > 0)

    @rule(heads=st.booleans(), batches=st.integers(1, 9))
    def leave(self, heads: bool, batches: int) -> None:
        if self.files.batch is not None:
            self.files.finish()
        for _ in range(batches):
            self.files.leave(heads=heads)

    @rule(pool=pools, object_id=objects, index=indices)
    def bring_back(self, pool: Pool, object_id: int, index: int) -> None:
        overflowed = self.files.overflowed(pool, object_id, index, 1)
        if isinstance(pool, PersistentPool) and overflowed and pool.has_room(1):
            pool.use_overflowed(object_id, index)
            assert pool.use_overflowed(object_id, index)
            assert pool.put(object_id, index, overflowed[index])
            assert not pool.use_overflowed(object_id, index)
            self.told[pool]["puts"] += 1
            self.told[pool]["good_puts"] += 1

    # -- errors in the middle ----------------------------------------------------------------

    @rule(
        pool=pools,
        object_id=objects,
        index=indices,
        count=counts,
        seed=seeds,
        kind=st.sampled_from(["zero", "text", "raw"]),
        step=steps,
    )
    def put_with_an_error(
        self, pool: Pool, object_id: int, index: int, count: int, seed: int, kind: str, step: int
    ) -> None:
        """Nothing of the run is there then, unless the put had not even begun."""
        count = min(count, (1 << 20) // pool.page_size)
        new = b"".join(page(seed + i, pool.page_size, kind) for i in range(count))
        if self._fails(step + 1, lambda: pool.put_many(object_id, index, new)):
            assert pool.get_many(object_id, index, count) == [None] * count
        for i in range(count):
            self.pages[pool].pop((object_id, index + i), None)
        self._ask_again(pool)
        # Not to be counted twice.
        pool.flush_many(object_id, index, count)
        self._ask_again(pool)

    @rule(pool=pools, object_id=objects, index=indices, count=counts, step=steps)
    def flush_with_an_error(
        self, pool: Pool, object_id: int, index: int, count: int, step: int
    ) -> None:
        """Whatever went is not asked for again: it is flushed once more."""
        self._fails(step, lambda: pool.flush_many(object_id, index, count))
        pool.flush_many(object_id, index, count)
        for i in range(count):
            self.pages[pool].pop((object_id, index + i), None)
        self._ask_again(pool)

    @precondition(lambda self: self.files.batch is None)
    @rule(heads=st.booleans(), step=steps)
    def leave_with_an_error(self, heads: bool, step: int) -> None:
        begun = not self._fails(step, lambda: self.files.begin(heads=heads))
        batch = self.files.batch
        if batch is None:
            return
        if begun:
            self._fails(step, self.files.finish)
        # Also where to end it has failed, or where its pages could not be had.
        self.core.writeback.finish(batch, ())
        self.files.batch = None

    @rule(budget=budgets, step=steps)
    def change_the_budget_with_an_error(self, budget: int, step: int) -> None:
        if budget < self.core._reclaim.must_keep() or not self.settled:
            return
        self._fails(step, lambda: self.core.set_budget(budget))
        self.core.set_budget(budget)
        self.settled = self._can_be_settled()

    def _fails(self, step: int, operation: Operation) -> bool:
        failed = fail_at_line(step, operation) is not None
        self.failed |= failed
        return failed

    def _ask_again(self, pool: Pool) -> None:
        """Count from what there is: an error may have come before or after it was counted."""
        self.told[pool] = {name: pool.statistics()[name] for name in self.told[pool]}

    # -- the budget --------------------------------------------------------------------------

    @rule(budget=budgets, at_once=st.booleans())
    def change_the_budget(self, budget: int, at_once: bool) -> None:
        try:
            if at_once:
                self.core.set_budget(budget)
            else:
                self.core.begin_budget(budget)
        except BudgetError:
            assert budget < self.core.budget
        else:
            assert self.core.budget == budget
            self.settled = at_once and self._can_be_settled()

    @rule()
    def shrink_to_the_byte(self) -> None:
        needed = self.core._reclaim.must_keep()
        if self.core.smallest_budget <= needed <= self.core.budget:
            self.leave(heads=True, batches=0)
            self.core.set_budget(needed)
            while self.core._arena.charged_bytes > needed and self.files.leave(heads=True):
                while self.core.shrink():
                    pass
            self.settled = True

    @precondition(lambda self: not self.settled)
    @rule(segments=st.integers(1, 4))
    def shrink(self, segments: int) -> None:
        self.settled = not self.core.shrink(segments) and self._can_be_settled()

    def _can_be_settled(self) -> bool:
        """Whether shrinking has done all: where pages can leave, it does not do so for them."""
        return self.core._arena.charged_bytes <= self.core.budget or not any(
            isinstance(p, PersistentPool) and p.overflows for p in self.core.pools
        )

    # -- after every step --------------------------------------------------------------------

    @invariant()
    def the_account_is_right(self) -> None:
        if hasattr(self, "core"):
            pinned = self.files.batch is not None
            check_account(self.core, settled=self.settled, pinned=pinned, failed=self.failed)

    @invariant()
    def the_counters_are_right(self) -> None:
        for pool, model in self.pages.items():
            statistics = pool.statistics()
            assert self.told[pool] == {name: statistics[name] for name in self.told[pool]}
            if pool.kind == "persistent":
                assert statistics["pages"] == len(model)
            else:
                assert statistics["pages"] <= len(model)

    def teardown(self) -> None:
        """Every persistent page is there, and when all is destroyed, nothing is."""
        if not hasattr(self, "core"):
            return
        for pool, model in self.pages.items():
            for handle, expected in model.items():
                overflowed = self.files.overflowed(pool, *handle, 1)
                found = overflowed[handle[1]] if overflowed else pool.get(*handle)
                assert found == expected or (found is None and pool.kind == "ephemeral")
        for client in self.clients:
            for pool in list(client.pools):
                client.destroy_pool(pool)
        while self.core.sweep(3):
            check_account(self.core, settled=False)
        if self.files.batch is not None:
            assert self.files.finish() == 0
        assert self.core._arena.charged_bytes == 0
        assert self.core.pools == ()
        self.core.close()


class NativeMachine(CoreMachine):
    """The same with tables in C."""

    make_storage = NativeStorage


TestT18 = CoreMachine.TestCase
TestT18Native = NativeMachine.TestCase
TestT18.settings = TestT18Native.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, derandomize=True
)
