"""Clients: pools are made as asked or not at all, shared by uuid, and belong to somebody."""

from typing import Any

import pytest
from account import check_account
from page_data import page

from tmemfs.errors import BadPool
from tmemfs.tmem import MIN_BUDGET, Core


@pytest.fixture
def core() -> Core:
    return Core(MIN_BUDGET, capacity=2 * MIN_BUDGET)


@pytest.mark.parametrize(
    "wrong",
    [
        {"page_size": 0},
        {"page_size": -4096},
        {"page_size": 2048},
        {"page_size": 4097},
        {"page_size": 12288},
        {"page_size": 131072},
        {"kind": "eternal"},
        {"kind": ""},
        {"uuid": -1},
        {"uuid": 1 << 128},
    ],
)
def test_a_bad_pool_is_refused_with_nothing_made(core: Core, wrong: dict[str, Any]) -> None:
    client = core.new_client("client")
    (value,) = wrong.values()
    with pytest.raises(BadPool) as caught:
        client.new_pool("pool", **{"kind": "ephemeral"} | wrong)
    assert repr(value) in str(caught.value) or "uuid" in str(caught.value)
    assert client.pools == []
    assert core.pools == ()
    check_account(core)


@pytest.mark.parametrize("kind", ["ephemeral", "persistent"])
@pytest.mark.parametrize("page_size", [4096, 8192, 16384, 32768, 65536])
def test_a_pool_as_asked_for(core: Core, kind: Any, page_size: int) -> None:
    client = core.new_client("client")
    pool = client.new_pool("pool", kind=kind, page_size=page_size)
    assert (pool.name, pool.kind, pool.page_size) == ("pool", kind, page_size)
    assert client.pools == [pool]
    assert core.pools == (pool,)
    assert pool.put(0, 0, page(1, page_size))
    assert pool.get(0, 0) == page(1, page_size)


def test_pools_of_a_client_are_apart(core: Core) -> None:
    client = core.new_client("client")
    one = client.new_pool("same name", kind="ephemeral")
    two = client.new_pool("same name", kind="ephemeral")
    assert one.number != two.number
    one.put(1, 1, page(1))
    two.put(1, 1, page(2))
    assert (one.get(1, 1), two.get(1, 1)) == (page(1), page(2))
    client.destroy_pool(one)
    assert two.get(1, 1) == page(2)


def test_sharing_is_by_uuid_kind_and_page_size(core: Core) -> None:
    one, two = core.new_client("one"), core.new_client("two")
    pool = one.new_pool("pool", kind="ephemeral", uuid=0)
    assert two.new_pool("another name", kind="ephemeral", uuid=0) is pool
    assert one.new_pool("pool", kind="ephemeral", uuid=0) is pool
    assert one.pools == two.pools == [pool]
    assert pool.uuid == 0
    assert two.new_pool("pool", kind="ephemeral", uuid=(1 << 128) - 1) is not pool
    with pytest.raises(BadPool, match="shared pool 'pool' is ephemeral with pages of 4096"):
        two.new_pool("pool", kind="persistent", uuid=0)
    with pytest.raises(BadPool, match="not ephemeral with 8192"):
        two.new_pool("pool", kind="ephemeral", page_size=8192, uuid=0)
    assert len(core.pools) == 2


def test_only_the_owner_destroys(core: Core) -> None:
    one, two = core.new_client("one"), core.new_client("two")
    pool = one.new_pool("pool", kind="persistent")
    pool.put(1, 1, page(1))
    with pytest.raises(BadPool, match="'pool' does not belong to client 'two'"):
        two.destroy_pool(pool)
    assert pool.get(1, 1) == page(1)
    one.destroy_pool(pool)
    with pytest.raises(BadPool, match="does not belong"):
        one.destroy_pool(pool)
    assert core.pools == ()


def test_a_uuid_is_free_again_after_the_last(core: Core) -> None:
    one, two = core.new_client("one"), core.new_client("two")
    pool = one.new_pool("pool", kind="persistent", uuid=5)
    two.new_pool("pool", kind="persistent", uuid=5)
    pool.put(1, 1, page(1))
    one.destroy_pool(pool)
    assert not pool.destroyed
    two.destroy_pool(pool)
    assert pool.destroyed
    fresh = one.new_pool("pool", kind="ephemeral", uuid=5)
    assert fresh is not pool
    assert fresh.get(1, 1) is None
