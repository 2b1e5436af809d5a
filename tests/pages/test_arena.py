"""The arena: segments taken and given back, the account, and memory that really goes."""

import pytest
from account import resident

from tmemfs.pages import Arena
from tmemfs.pages.arena import WARM_SEGMENTS

SIZE = 1 << 20


def fill(arena: Arena[str], numbers: list[int]) -> None:
    for number in numbers:
        arena.holders[number] = "somebody"
        arena.view[number * SIZE : (number + 1) * SIZE] = b"\xaa" * SIZE


def test_segments_are_different_and_never_the_first() -> None:
    arena: Arena[str] = Arena(5, 4096)
    numbers = [arena.take() for _ in range(5)]
    assert sorted(numbers) == [1, 2, 3, 4, 5]
    assert len(arena.view) == 6 * 4096
    arena.close()


def test_more_than_there_are() -> None:
    arena: Arena[str] = Arena(2, 4096)
    arena.take()
    last = arena.take()
    with pytest.raises(MemoryError, match="every segment of the arena is taken"):
        arena.take()
    assert arena.used_segments == 2
    arena.holders[last] = "somebody"
    arena.give(last)
    assert arena.take() == last
    arena.close()


@pytest.mark.parametrize("size", [0, 2048, 4095, 4097, 12288])
def test_a_segment_is_a_power_of_two_of_pages(size: int) -> None:
    with pytest.raises(ValueError, match="not a power of two"):
        Arena(4, size)


def test_the_account() -> None:
    arena: Arena[str] = Arena(8, 8192)
    assert (arena.used_bytes, arena.charged_bytes) == (0, 0)
    numbers = [arena.take() for _ in range(6)]
    arena.holders.update(dict.fromkeys(numbers, "somebody"))
    arena.metadata_bytes += 100
    assert (arena.used_bytes, arena.charged_bytes) == (6 * 8192, 6 * 8192 + 100)
    for number in numbers[:5]:
        arena.give(number)
    assert arena.used_segments == 1
    assert arena.peak_segments == 6
    assert list(arena.holders) == numbers[5:]
    # Given back in any order, all of them can be had again.
    again = {arena.take() for _ in range(7)}
    assert again | {numbers[5]} == set(range(1, 9))
    assert arena.peak_segments == 8
    arena.close()


def test_memory_is_lent_when_taken_and_goes_back_when_given() -> None:
    before = resident()
    arena: Arena[str] = Arena(1 << 20, SIZE)  # a terabyte of addresses costs nothing
    assert resident() - before < 2 * SIZE
    numbers = [arena.take() for _ in range(64)]
    fill(arena, numbers)
    full = resident()
    assert full - before >= 63 * SIZE
    for number in numbers:
        arena.give(number)
    # All of it, apart from the warm ones; a second's worth of interpreter is allowed for.
    assert full - resident() >= (63 - WARM_SEGMENTS) * SIZE
    arena.close()
    assert full - resident() >= 63 * SIZE


def test_what_was_read_outlives_the_arena() -> None:
    arena: Arena[str] = Arena(1, 4096)
    start = arena.take() * 4096
    arena.view[start : start + 3] = b"abc"
    copied = bytes(arena.view[start : start + 3])
    arena.close()
    assert copied == b"abc"
    with pytest.raises(ValueError, match="released"):
        arena.view[0]
