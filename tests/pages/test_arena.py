"""The arena: segments taken and given back, the account, and memory that really goes."""

import ctypes
import mmap

import pytest
from account import resident

from tmemfs.pages import Arena
from tmemfs.pages.arena import WARM_SEGMENTS

SIZE = 1 << 20


def take(arena: Arena[str], count: int) -> list[int]:
    """Take so many segments; their numbers."""
    numbers = []
    for _ in range(count):
        numbers.append(arena.ready())
        arena.take(numbers[-1], "somebody")
    return numbers


def give(arena: Arena[str], numbers: list[int]) -> None:
    for number in numbers:
        arena.give(number)
        arena.cool()


def fill(arena: Arena[str], numbers: list[int]) -> None:
    for number in numbers:
        arena.view[number * SIZE : (number + 1) * SIZE] = b"\xaa" * SIZE


def test_segments_are_different_and_never_the_first() -> None:
    arena: Arena[str] = Arena(5, 4096)
    numbers = take(arena, 5)
    assert sorted(numbers) == [1, 2, 3, 4, 5]
    assert len(arena.view) == 6 * 4096
    arena.close()


def test_more_than_there_are() -> None:
    arena: Arena[str] = Arena(2, 4096)
    _, last = take(arena, 2)
    with pytest.raises(MemoryError, match="every segment of the arena is taken"):
        arena.ready()
    assert arena.used_segments == 2
    give(arena, [last])
    assert take(arena, 1) == [last]
    arena.close()


@pytest.mark.parametrize("size", [0, 2048, 4095, 4097, 12288])
def test_a_segment_is_a_power_of_two_of_pages(size: int) -> None:
    with pytest.raises(ValueError, match="not a power of two"):
        Arena(4, size)


def test_the_account() -> None:
    arena: Arena[str] = Arena(8, 8192)
    assert (arena.used_bytes, arena.charged_bytes) == (0, 0)
    numbers = take(arena, 6)
    arena.heap_bytes += 100
    assert (arena.used_bytes, arena.charged_bytes) == (6 * 8192, 6 * 8192 + 100)
    give(arena, numbers[:5])
    assert arena.used_segments == 1
    assert arena.peak_segments == 6
    assert list(arena.holders) == numbers[5:]
    # Given back in any order, all of them can be had again.
    again = set(take(arena, 7))
    assert again | {numbers[5]} == set(range(1, 9))
    assert arena.peak_segments == 8
    arena.close()


def test_memory_is_lent_when_taken_and_goes_back_when_given() -> None:
    before = resident()
    arena: Arena[str] = Arena(1 << 20, SIZE)  # a terabyte of addresses costs nothing
    assert resident() - before < 2 * SIZE
    numbers = take(arena, 64)
    fill(arena, numbers)
    full = resident()
    assert full - before >= 63 * SIZE
    give(arena, numbers)
    # All of it, apart from the warm ones; a second's worth of interpreter is allowed for.
    assert full - resident() >= (63 - WARM_SEGMENTS) * SIZE
    arena.close()
    assert full - resident() >= 63 * SIZE


def warm_up(arena: Arena[str], limit: int) -> None:
    while arena.warm_up(limit):
        pass


def test_what_is_warm_is_there_before_it_is_taken() -> None:
    arena: Arena[str] = Arena(100, SIZE)
    arena.warm_wanted = 16
    before = resident()
    warm_up(arena, 64 * SIZE)
    warm = resident()
    assert arena.warm_bytes == 16 * SIZE
    assert warm - before >= 15 * SIZE
    fill(arena, take(arena, 16))
    # Taken and filled, they are no more than they were.
    assert resident() - warm < 2 * SIZE
    assert arena.warm_bytes == 0
    give(arena, list(arena.holders))
    assert arena.warm_bytes == 16 * SIZE
    arena.close()


def test_what_is_warm_stays_within_the_limit() -> None:
    arena: Arena[str] = Arena(10, SIZE)
    arena.warm_wanted = 1000
    fill(arena, take(arena, 3))
    # Tables that come and go do not take it away: it would have to be waited for again.
    arena.heap_bytes = SIZE
    warm_up(arena, 8 * SIZE)
    assert arena.warm_bytes == 5 * SIZE
    warm_up(arena, 6 * SIZE)
    assert arena.warm_bytes == 3 * SIZE
    # What every arena keeps is covered by what the budget has in reserve.
    warm_up(arena, 3 * SIZE)
    assert arena.warm_bytes == WARM_SEGMENTS * SIZE
    # No more than there are.
    warm_up(arena, 100 * SIZE)
    assert arena.warm_bytes == 7 * SIZE
    take(arena, 7)
    assert set(arena.holders) == set(range(1, 11))
    arena.close()


def test_locked_memory_is_given_back() -> None:
    """A daemon that serves swap locks its memory, which the usual advice leaves alone."""
    size, count = mmap.PAGESIZE, 8
    arena: Arena[str] = Arena(count, size)
    start = ctypes.addressof(ctypes.c_char.from_buffer(arena.view))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mlock(ctypes.c_void_p(start), ctypes.c_size_t(len(arena.view))) == 0
    numbers = take(arena, count)
    for number in numbers:
        arena.view[number * size : (number + 1) * size] = b"\xaa" * size
    give(arena, numbers)
    # Memory that the system took is zeros when it comes again.
    gone = [n for n in numbers if not any(arena.view[n * size : (n + 1) * size])]
    assert len(gone) == count - WARM_SEGMENTS
    assert sorted(take(arena, count)) == sorted(numbers)
    arena.close()


def test_locked_memory_of_an_old_kernel_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing takes it back there: it is as warm as what was never given."""
    # Advice that no kernel knows, in the place of what an old one does not.
    monkeypatch.setattr("tmemfs.pages.memory._MADV_DONTNEED_LOCKED", 9999)
    monkeypatch.setattr("mmap.MADV_DONTNEED", 9998)
    arena: Arena[str] = Arena(4, SIZE)
    fill(arena, take(arena, 4))
    give(arena, list(arena.holders))
    assert arena.warm_bytes == 4 * SIZE
    assert not arena.warm_up(SIZE)
    assert set(take(arena, 4)) == {1, 2, 3, 4}
    arena.close()


def test_a_core_dump_has_no_pages() -> None:
    arena: Arena[str] = Arena(8, SIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(arena.view))
    with open("/proc/self/smaps", encoding="ascii") as file:
        mapping = file.read().partition(f"\n{start:x}-")[2]
    flags = mapping.partition("\nVmFlags:")[2].partition("\n")[0].split()
    assert "dd" in flags
    arena.close()


def test_what_was_read_outlives_the_arena() -> None:
    arena: Arena[str] = Arena(1, 4096)
    start = take(arena, 1)[0] * 4096
    arena.view[start : start + 3] = b"abc"
    copied = bytes(arena.view[start : start + 3])
    arena.close()
    assert copied == b"abc"
    with pytest.raises(ValueError, match="released"):
        arena.view[0]
