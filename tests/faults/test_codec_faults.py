"""T17, the codec's part: what memory holds is damaged, and nobody is given wrong bytes for it.

lz4 tells damage by its structure alone, without a checksum: a changed literal is a changed page.
What can be told is told, always, and counted.
"""

import random
from collections.abc import Callable

import lz4.block
import pytest
from account import check_account
from hypothesis import given
from hypothesis import strategies as st
from page_data import page, run, split

from tmemfs.errors import CorruptPage
from tmemfs.pages import codec, reader
from tmemfs.pages.locations import SIZE_BITS, SIZE_MASK
from tmemfs.tmem import MIN_BUDGET, Core, Pool

pytestmark = pytest.mark.usefixtures("each_reader")

INDEX = 3
"""Where the damaged page is, in a run of six."""


@pytest.fixture(params=[4096, 65536])
def page_size(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def core() -> Core:
    return Core(MIN_BUDGET, capacity=MIN_BUDGET)


@pytest.fixture
def swap(core: Core, page_size: int) -> Pool:
    return filled(core.new_client("client").new_pool("p", kind="persistent", page_size=page_size))


@pytest.fixture
def cache(core: Core, page_size: int) -> Pool:
    return filled(core.new_client("client").new_pool("e", kind="ephemeral", page_size=page_size))


def filled(pool: Pool) -> Pool:
    assert pool.put_many(1, 0, data(pool)) == 6
    return pool


def data(pool: Pool) -> bytes:
    return run(10, 6, pool.page_size, "text")


def location(pool: Pool) -> int:
    owner = pool.objects.find(1)
    assert owner is not None
    return owner.location(INDEX)


def overwrite(pool: Pool, damage: Callable[[memoryview], None]) -> None:
    start, size = location(pool) >> SIZE_BITS, location(pool) & SIZE_MASK
    damage(pool.arena.view[start : start + size])


def resize(pool: Pool, change: Callable[[int], int]) -> None:
    """Let the index have a wrong length for the page."""
    start, size = location(pool) >> SIZE_BITS, location(pool) & SIZE_MASK
    owner = pool.objects.find(1)
    assert owner is not None
    pool.objects.store(owner, INDEX, [start << SIZE_BITS | change(size)])


def all_ones(payload: memoryview) -> None:
    payload[:] = b"\xff" * len(payload)


def all_zeros(payload: memoryview) -> None:
    payload[:] = bytes(len(payload))


def garbage(payload: memoryview) -> None:
    payload[:] = random.Random(1).randbytes(len(payload))


def another_page(payload: memoryview) -> None:
    block = codec.encode(bytes(range(16)) * 64)
    payload[: len(block)] = block


def lost_start(payload: memoryview) -> None:
    payload[:-1] = bytes(payload[1:])


def lost_end(payload: memoryview) -> None:
    payload[-9:] = bytes(9)


DAMAGES = [all_ones, all_zeros, garbage, another_page, lost_start, lost_end]


@pytest.mark.parametrize("damage", DAMAGES)
def test_t17_persistent_page_is_an_error_and_stays(
    core: Core, swap: Pool, damage: Callable[[memoryview], None]
) -> None:
    pages: list[bytes | None] = list(split(data(swap), swap.page_size))
    overwrite(swap, damage)
    for attempt in range(1, 4):
        with pytest.raises(CorruptPage):
            swap.get(1, INDEX)
        assert swap.statistics()["corrupt_pages"] == attempt
    with pytest.raises(CorruptPage):
        swap.get_and_flush(1, INDEX)
    with pytest.raises(CorruptPage):
        swap.get_many(1, 0, 6)
    told = swap.statistics()
    assert (told["pages"], told["flushs"], told["corrupt_pages"]) == (6, 0, 5)
    assert (told["gets"], told["found_gets"]) == (10, 0)
    # The others of the run are as they were, and a put mends it.
    assert swap.get_many(1, 0, INDEX) == pages[:INDEX]
    assert swap.get_many(1, INDEX + 1, 2) == pages[INDEX + 1 :]
    assert swap.put(1, INDEX, page(99, swap.page_size))
    pages[INDEX] = page(99, swap.page_size)
    assert swap.get_many(1, 0, 6) == pages
    check_account(core)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("exclusive", [False, True])
def test_t17_ephemeral_page_is_an_error_and_goes(
    core: Core, cache: Pool, damage: Callable[[memoryview], None], exclusive: bool
) -> None:
    pages: list[bytes | None] = list(split(data(cache), cache.page_size))
    overwrite(cache, damage)
    with pytest.raises(CorruptPage):
        cache.get_and_flush(1, INDEX) if exclusive else cache.get(1, INDEX)
    pages[INDEX] = None
    assert cache.get_many(1, 0, 6) == pages
    told = cache.statistics()
    assert (told["pages"], told["corrupt_pages"], told["flushs_found"]) == (5, 1, 1)
    assert (told["gets"], told["found_gets"]) == (7, 5)
    check_account(core)


def test_t17_ephemeral_run_goes_whole(core: Core, cache: Pool) -> None:
    overwrite(cache, all_ones)
    with pytest.raises(CorruptPage):
        cache.get_many(1, 1, 4)
    pages = split(data(cache), cache.page_size)
    assert cache.get_many(1, 0, 6) == [pages[0], *[None] * 4, pages[5]]
    check_account(core)


@pytest.mark.parametrize(
    "change",
    [
        lambda size: size - 1,
        lambda size: size // 2,
        lambda size: 9,
        lambda size: 7,
        lambda size: 1,
        lambda size: size + 1,
        lambda size: size + 100,
    ],
)
@pytest.mark.parametrize("kind", ["ephemeral", "persistent"])
def test_t17_wrong_length(
    core: Core, page_size: int, kind: str, change: Callable[[int], int]
) -> None:
    client = core.new_client("client")
    pool = filled(client.new_pool("pool", kind=kind, page_size=page_size))  # type: ignore[arg-type]
    right = location(pool) & SIZE_MASK
    resize(pool, change)
    with pytest.raises(CorruptPage):
        pool._reader.read([location(pool)])
    # With the right length again, all is well: nothing but the index was wrong.
    resize(pool, lambda _: right)
    assert pool.get_many(1, 0, 6) == split(data(pool), page_size)


@given(st.integers(0, 50), st.sampled_from([4096, 65536]), st.data())
def test_t17_truncated_payload(seed: int, size: int, draw: st.DataObject) -> None:
    """Cut anywhere: never a page."""
    payload = codec.encode(page(seed, size, "text"))
    cut = draw.draw(st.integers(codec.WORD + 1, len(payload) - 1))
    with pytest.raises(CorruptPage):
        codec.decode(payload[:cut], cut, size)


@given(
    st.integers(0, 20),
    st.sampled_from([4096, 16384]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1),
)
def test_t17_any_damage_is_told_or_is_a_page(
    seed: int, size: int, flips: list[tuple[float, int]]
) -> None:
    """No crash, no other exception, no page of another size."""
    original = page(seed, size, "text")
    payload = bytearray(codec.encode(original))
    for place, flip in flips:
        payload[int(place * len(payload))] ^= flip
    try:
        decoded = codec.decode(bytes(payload), len(payload), size)
    except CorruptPage:
        return
    assert len(decoded) == size


def test_t17_error_of_the_codec_itself(
    core: Core, swap: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that nobody expects passes through, and takes nothing with it."""
    before = core.statistics()
    with monkeypatch.context() as patch:
        patch.setattr(reader, "native", None)
        patch.setattr(codec, "_decompress", _raise)
        with pytest.raises(MemoryError):
            swap.get_many(1, 0, 6)
    told = swap.statistics()
    assert (told["gets"], told["found_gets"], told["corrupt_pages"]) == (6, 0, 0)
    assert core.statistics()["memory"] == before["memory"]
    assert swap.get_many(1, 0, 6) == split(data(swap), swap.page_size)
    with monkeypatch.context() as patch:
        patch.setattr(codec, "_compress", _raise)
        with pytest.raises(MemoryError):
            swap.put_many(1, 1, run(70, 2, swap.page_size, "text"))
    pages: list[bytes | None] = list(split(data(swap), swap.page_size))
    assert swap.get_many(1, 0, 6) == [pages[0], None, None, *pages[3:]]
    told = swap.statistics()
    assert (told["puts"], told["good_puts"], told["bad_puts"], told["no_mem_puts"]) == (8, 6, 2, 0)
    assert (told["dup_puts_flushed"], told["dup_puts_replaced"]) == (2, 0)
    check_account(core)


def _raise(*_: object, **__: object) -> bytes:
    raise MemoryError


def test_t17_the_message_is_one_line_and_names_no_bytes(swap: Pool) -> None:
    overwrite(swap, all_ones)
    with pytest.raises(CorruptPage, match=r"^stored page cannot be decompressed: [^\n]+$") as told:
        swap.get(1, INDEX)
    assert isinstance(told.value.__cause__, lz4.block.LZ4BlockError)
