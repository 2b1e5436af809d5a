"""What a budget is said to hold of pages that do not compress, it holds."""

import random

import pytest
from page_data import page

from tmemfs.tmem import MIN_BUDGET, Core
from tmemfs.tmem.capacity import incompressible

MIB = 1 << 20
PAGE = 4096


@pytest.mark.parametrize("budget", [MIN_BUDGET, 4 * MIB, 16 * MIB])
def test_pages_that_do_not_compress_written_over_and_over(budget: int) -> None:
    core = Core(budget, capacity=budget)
    client = core.new_client("mount")
    client.new_pool("cache", kind="ephemeral").put_many(0, 0, b"".join(map(page, range(64))))
    swap = client.new_pool("swap", kind="persistent", page_size=PAGE)
    count = incompressible(budget) // PAGE
    chosen = random.Random(1)
    order = [*range(count), *(chosen.randrange(count) for _ in range(3 * count))]
    for number, index in enumerate(order):
        assert swap.has_room(1)
        assert swap.put(1, index, page(number, PAGE))
    # And it does not hold much more.
    more = count
    while swap.has_room(1) and swap.put(1, more, page(more, PAGE)):
        more += 1
    assert more <= count * 1.15
    core.close()


def test_a_budget_that_is_all_tables() -> None:
    assert incompressible(0) == 0
    assert incompressible(MIB // 4) == 0


def test_a_larger_budget_holds_more() -> None:
    held = [incompressible(mib * MIB) / mib / MIB for mib in (16, 64, 256, 1024, 8192)]
    assert held == sorted(held)
    assert held[-1] > 0.91
