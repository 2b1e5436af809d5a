"""A swap volume holds what was written, at any offset and length, and loses nothing when full."""

import errno
import gc
from collections.abc import Iterator

import pytest
from account import check_account
from hypothesis import given, settings
from hypothesis import strategies as st
from page_data import page, run

from tmemfs.pages.locations import SIZE_BITS, SIZE_MASK
from tmemfs.swap.volume import PAGE_SIZE, SwapVolume
from tmemfs.tmem import MIN_BUDGET, Core

SIZE = 64 * PAGE_SIZE


def volume_of(core: Core, size: int = SIZE) -> SwapVolume:
    pool = core.new_client("test").new_pool("swap0", kind="persistent", page_size=PAGE_SIZE)
    return SwapVolume("swap0", size, pool)


def put(volume: SwapVolume, offset: int, data: bytes) -> bool:
    """Write; return whether there was room, the only reason for which there may be no success."""
    try:
        assert volume.write(offset, data) == len(data)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
    return True


@pytest.fixture
def core() -> Iterator[Core]:
    core = Core(MIN_BUDGET)
    yield core
    check_account(core)
    gc.collect()  # tracebacks that were caught hold on to what they saw of the memory
    core.close()


@settings(max_examples=100)
@given(
    steps=st.lists(
        st.tuples(
            st.booleans(),
            st.integers(0, SIZE + PAGE_SIZE),
            st.integers(0, 6 * PAGE_SIZE),
            st.sampled_from(["zero", "word", "text", "raw"]),
        ),
        max_size=30,
    )
)
def test_like_a_run_of_bytes(steps: list[tuple[bool, int, int, str]]) -> None:
    core = Core(MIN_BUDGET)
    volume = volume_of(core)
    model = bytearray(SIZE)
    for number, (write, offset, length, kind) in enumerate(steps):
        if not write:
            assert bytes(volume.read(offset, length)) == model[offset : offset + length]
            continue
        data = run(number, 7, kind=kind)[number : number + length]
        fits = offset + len(data) <= SIZE
        assert put(volume, offset, data) == fits
        if fits:
            model[offset : offset + len(data)] = data
    assert bytes(volume.read(0, SIZE)) == model
    check_account(core)
    core.close()


def test_never_written_reads_as_zeros(core: Core) -> None:
    volume = volume_of(core)
    assert bytes(volume.read(100, 5000)) == bytes(5000)
    assert volume.write(5000, b"x") == 1
    assert bytes(volume.read(0, 10_000)) == bytes(5000) + b"x" + bytes(4999)


def test_the_end_of_the_volume(core: Core) -> None:
    volume = volume_of(core)
    assert bytes(volume.read(SIZE - 10, 100)) == bytes(10)
    assert bytes(volume.read(SIZE, 100)) == b""
    assert volume.write(SIZE - 3, b"end") == 3
    with pytest.raises(OSError, match="space") as caught:
        volume.write(SIZE - 2, b"end")
    assert caught.value.errno == errno.ENOSPC
    assert bytes(volume.read(SIZE - 3, 3)) == b"end"
    assert volume.write(SIZE, b"") == 0


@pytest.mark.parametrize("pages", [1, 3, 32, 256])
@pytest.mark.parametrize("shift", [0, 100], ids=["whole pages", "parts of pages"])
def test_a_full_budget_loses_nothing(core: Core, pages: int, shift: int) -> None:
    """Writes until nothing fits, goes on trying everywhere, and compares everything each time."""
    size = 1024 * PAGE_SIZE
    volume = volume_of(core, size)
    model = bytearray(size)
    refused = 0
    for number in range(2 * 1024 // pages):
        offset = number * pages * PAGE_SIZE % (size - pages * PAGE_SIZE) + shift
        data = run(number * pages, pages)
        if put(volume, offset, data):
            model[offset : offset + len(data)] = data
        else:
            refused += 1
        assert bytes(volume.read(offset, len(data))) == model[offset : offset + len(data)]
    assert refused
    assert bytes(volume.read(0, size)) == model
    # What was given up makes room again.
    assert volume._pool.flush_many(0, 0, 600) > 0
    assert volume.write(0, run(5000, pages)) == pages * PAGE_SIZE


def test_every_amount_of_room_that_is_left(core: Core) -> None:
    """A large write just fits or does not, whatever is left: never half of it."""
    size = 1024 * PAGE_SIZE
    for left in range(0, 64, 7):
        volume = volume_of(core, size)
        count = 0
        while volume._pool.has_room(left + 1) and count < 700:
            volume.write(count * PAGE_SIZE, page(count))
            count += 1
        big = run(1000, 40)
        want = big if put(volume, 700 * PAGE_SIZE, big) else bytes(len(big))
        assert bytes(volume.read(700 * PAGE_SIZE, len(big))) == want
        assert bytes(volume.read(0, count * PAGE_SIZE)) == run(0, count)
        client = core.clients[-1]
        client.destroy_pool(volume._pool)


def test_a_full_budget_takes_from_the_cache_first(core: Core) -> None:
    cache = core.new_client("other").new_pool("cache", kind="ephemeral")
    cache.put_many(1, 0, run(1, 400))
    volume = volume_of(core)
    assert volume.write(0, run(2, 64)) == SIZE
    assert bytes(volume.read(0, SIZE)) == run(2, 64)


@pytest.mark.parametrize("length", [PAGE_SIZE, 10], ids=["read", "part of a page"])
def test_a_corrupt_page_is_an_error_and_never_wrong_bytes(core: Core, length: int) -> None:
    volume = volume_of(core)
    volume.write(0, b"compressible " * 2000)
    location = volume._pool.objects.find(0).location(2)
    start, size = location >> SIZE_BITS, location & SIZE_MASK
    assert 8 < size < PAGE_SIZE
    volume._pool.arena.view[start : start + size] = b"\xff" * size
    for _ in range(2):
        with pytest.raises(OSError, match="page") as caught:
            volume.read(2 * PAGE_SIZE, length)
        assert caught.value.errno == errno.EIO
    # A part cannot be written into what cannot be read; the whole page can be replaced.
    with pytest.raises(OSError, match="page"):
        volume.write(2 * PAGE_SIZE + 5, b"part")
    assert bytes(volume.read(PAGE_SIZE, 10)) == (b"compressible " * 2000)[PAGE_SIZE:][:10]
    assert volume.write(2 * PAGE_SIZE, page(1)) == PAGE_SIZE
    assert bytes(volume.read(2 * PAGE_SIZE, PAGE_SIZE)) == page(1)
